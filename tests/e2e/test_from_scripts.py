"""docs/from-scripts.md, row by row: each variable and option has its row, and does what it says."""

from __future__ import annotations

import argparse
import json
import re
import shutil

import pytest

from soakctl.commands import selftest
from soakd.core.plan import ENVIRONMENT_NAMES
from tests.e2e.box import ROOT, Box

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DOC = (ROOT / "docs" / "from-scripts.md").read_text()
OURS = {"--help", "--for", "--no-wait", "--label", "--set", "--latest", "--keep-config", "--gate",
        "--ports", "--node-env"}  # fmt: skip
"""Options that no script had and that are those of `start`."""


def named(heading: str, form: str) -> set[str]:
    """What stands in the first cells of the tables below a heading."""
    text = DOC.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(form, cell)}


def test_every_variable_has_its_row() -> None:
    """And every row is of a variable that soakctl knows."""
    known = {*ENVIRONMENT_NAMES, "SOAKD_SOCKET"}
    assert named("Environment variables", r"`([A-Z][A-Z_]+)`") == known


def test_every_option_of_the_self_test_has_its_row() -> None:
    """And every row is of an option."""
    parser = argparse.ArgumentParser()
    selftest.add_arguments(parser)
    options = {option for action in parser._actions for option in action.option_strings}
    known = {option for option in options if option.startswith("--")} - OURS
    assert named("The self-test", r"`(--[a-z-]+)[^`]*`") == known


def test_every_variable_of_the_scripts_shapes_the_soak(box: Box) -> None:
    """All of them at once, none with its default, against simulated nodes."""
    box.install(outcomes=["miss"])
    # The default of both sources hangs on ROOT alone.
    work = box.folder / "work" / "scripts" / "test"
    work.mkdir(parents=True)
    for source in box.soaks:
        shutil.copytree(source, work.parents[1] / source.name)
    root = box.folder / "run-root"
    env = {
        "ROOT": str(work),
        "A_URL": f"127.0.0.1:{box.ports[0]}",
        "B_URL": f"http://127.0.0.1:{box.ports[1]}",
        "RUN_ROOT": str(root),
        "WAIT_PUBLISH": "0.11",
        "WAIT_SEARCH": "0.42",
        "WAIT_BETWEEN": "0.13",
        "READ_EVERY": "0.1",
        "MISS_RECHECK_ATTEMPTS": "2",
        "MISS_RECHECK_DELAY": "0.14",
        "READY_TIMEOUT_SECS": "77",
        "SOAK_FRESH_IDENTITY": "0",
        "SOAK_RUN_TAG": "my-tag",
        "A_SRC": "",
        "B_SRC": "",
    }
    run = box.ctl("--json", "start", "--rounds", "2", env=env).json()["id"]
    final = box.wait(run)
    plan = json.loads(box.read(run, "plan.json"))["plan"]
    assert [node["source"] for node in plan["nodes"]] == [
        f"{work}/../../mule-a",
        f"{work}/../../mule-b",
    ]
    assert [node["port"] for node in plan["nodes"]] == box.ports[:2]
    waits = ("wait_publish_s", "wait_search_s", "wait_between_s", "read_every_s",
             "miss_recheck_delay_s", "ready_timeout_s")  # fmt: skip
    assert [plan[key] for key in waits] == [0.11, 0.42, 0.13, 0.1, 0.14, 77]
    log = box.read(run, "logs/runner.log")
    assert f"run-tag=my-tag session_a=rust-mule-a-soak-my-tag-{run}" in log
    assert "fresh_identity=0" in log
    # A round waits as it was told, and a miss is looked at twice more.
    assert log.count("miss_recheck attempt=2 delay_secs=0.14") == 2
    assert final["rounds"]["miss"] == 2
    lengths = [record["duration_s"] for record in box.records(run)]
    assert all(0.81 <= length_s < 5 for length_s in lengths)
    assert (root / "mule-a" / "rust-mule").exists()
    assert (root / "logs").is_symlink()
