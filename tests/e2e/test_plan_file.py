"""Plan files with a real soakd: checked, run as a group, shown, and what is shown run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.box import Box

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PLAN = """\
rounds = 1
wait_publish = 0.05
wait_search = [0.1, 0.2]
wait_between = 0.05
read_every = 0
gates = ["rounds >= 1", "panics == 0"]

[node.a]
source = "{a}"
url = "127.0.0.1:{port_a}"

[node.b]
source = "{b}"
port = {port_b}
[node.b.env]
LEVEL = "two"

[node.env]
LEVEL = "one"
"""


def write_plan(box: Box, **changes: object) -> Path:
    """A plan file of this box's nodes."""
    path = box.folder / "night.toml"
    a, b = box.soaks
    text = PLAN.format(a=a, b=b, port_a=box.ports[0], port_b=box.ports[1])
    for old, new in changes.items():
        text = text.replace(f"{old} =", f"{old} = {new} #")
    path.write_text(text)
    return path


def test_a_matrix_becomes_a_group_with_one_table(box: Box) -> None:
    """Each value is a run of its own, with its verdict; the worst one is the exit status."""
    path = write_plan(box)
    checked = box.ctl("--json", "plan", "check", str(path)).json()
    assert checked["expected_start"] is not None
    waited = box.ctl("start", "--plan", str(path), "--wait")
    rows = [row.split() for row in waited.out.splitlines()]
    assert rows[0][:3] == ["RUN", "wait_search_s", "STATE"]
    assert [row[1:3] for row in rows[1:]] == [["0.1", "finished"], ["0.2", "finished"]]
    assert [row[-1] for row in rows[1:]] == ["passed", "passed"]
    assert box.ctl("table", "night").out == waited.out
    labels = [box.status(row[0])["label"] for row in rows[1:]]
    assert labels == ["night: wait_search_s=0.1", "night: wait_search_s=0.2"]


def test_what_a_run_used_can_be_run_again(box: Box) -> None:
    """The shown plan is a plan file; the second run has the plan of the first and another tag."""
    path = write_plan(box, wait_search=0.1)
    first = box.ctl("--json", "start", "--plan", str(path), "--label", "once").json()["id"]
    box.wait(first)
    again = box.folder / "again.toml"
    again.write_text(box.ctl("plan", "show", first).out)
    second = box.ctl("--json", "start", "--plan", str(again)).json()["id"]
    box.wait(second)
    used, used_again = (box.call("run.plan", run=run) for run in (first, second))
    assert used["sha256"] == used_again["sha256"]
    assert used["plan"].pop("run_tag") != used_again["plan"].pop("run_tag")
    assert used["plan"] == used_again["plan"]
    assert used["plan"]["label"] == "once"


def test_a_node_has_the_variables_of_its_table(box: Box) -> None:
    """Its own win over those of all nodes."""
    path = write_plan(box, wait_search=0.1, rounds=1000)
    run = box.ctl("--json", "start", "--plan", str(path)).json()["id"]
    status = box.until_rounds(run, 1)
    levels = {}
    for node in status["nodes"]:
        variables = Path(f"/proc/{node['pid']}/environ").read_bytes().split(b"\0")
        levels[node["name"]] = [v for v in variables if v.startswith(b"LEVEL=")]
    assert levels == {"a": [b"LEVEL=one"], "b": [b"LEVEL=two"]}


def test_a_plan_with_problems_starts_nothing(box: Box) -> None:
    """78 with all of them, from start as from check."""
    path = write_plan(box, rounds=0, read_every='"x"')
    before = box.ctl("--json", "list").json()
    for command in (("plan", "check"), ("start", "--plan")):
        refused = box.ctl(*command, str(path), status=78)
        assert f"{path}:1: rounds: cannot be outside 1 to 1000000, got 0" in refused.err
        assert f"{path}:5: read_every: cannot read a duration" in refused.err
    assert box.ctl("--json", "list").json() == before
