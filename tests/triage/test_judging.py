"""Which gates judge a bundle of whose nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from soakd.triage.judging import is_attached
from soakd.triage.triage import triage
from tests.triage import kit


@pytest.mark.parametrize(
    "plan", [None, {}, {"plan": []}, {"plan": {"nodes": {}}}, {"plan": {"nodes": ["a", {}]}}]
)
def test_a_plan_that_says_nothing_of_tokens_is_of_ones_own_nodes(plan: Any) -> None:
    """Whatever else it is."""
    assert not is_attached(plan)


def test_nodes_of_somebody_else_are_judged_as_the_live_run_was(tmp_path: Path) -> None:
    """Without what nobody recorded: they would make every such bundle inconclusive."""
    kit.script_folder(tmp_path, 30)
    kit.write_lines(tmp_path / "logs" / "rounds.ndjson", kit.dealt_rounds(60))
    plan = {"plan": {"nodes": [{"name": "a", "source": "", "token_file": "/x"}], "gates": []}}
    assert is_attached(plan)
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    gates = [gate["gate"] for gate in triage(str(tmp_path))["gates"]]
    assert gates == ["rounds >= 1", "errors <= 5%", "measured >= 90%"]
