"""The demo as its users' programs see it; what people see is shown in `tests/e2e/test_demo.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.e2e]


@pytest.fixture
def env(short_dir: Path, child_env: dict[str, str]) -> Iterator[dict[str, str]]:
    """Return an environment with a temporary folder of its own; nothing may be left in it."""
    # The test run's own settings must not reach the private soakd, and vice versa.
    yield {**child_env, "TMPDIR": str(short_dir), "PYTHONUNBUFFERED": "1"}
    assert list(short_dir.iterdir()) == []
    assert _processes_that_name(str(short_dir)) == []


def _processes_that_name(folder: str) -> list[str]:
    """Return the command lines of processes that run in a folder or were told of it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            place = str((process / "cwd").readlink())
        except OSError:
            continue
        if folder in command or folder in place:
            found.append(command)
    return found


def _demo(*argv: str) -> list[str]:
    return [sys.executable, "-m", "soakctl", "demo", *argv]


def test_as_json_stdout_holds_events_and_the_final_status(env: dict[str, str]) -> None:
    """One value per line, and only those."""
    ended = subprocess.run(
        _demo("--seconds", "1", "--json"),
        check=False,
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
    )
    values = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert values[-1]["verdict"] == "passed"
    assert {"state", "progress", "end"} <= {value.get("kind") for value in values}


@pytest.mark.parametrize(
    ("moment", "number", "status"),
    [
        ("r1 staging", signal.SIGHUP, 129),
        ("r1 starting", signal.SIGTERM, 143),
    ],
)
def test_a_signal_at_any_moment_cleans_up(
    env: dict[str, str], moment: str, number: signal.Signals, status: int
) -> None:
    """Twice, as an impatient user would: the second must not leak what the first one removes."""
    with subprocess.Popen(
        _demo("--seconds", "60"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        # The terminal sends Ctrl-C to the whole group.
        process_group=0,
    ) as demo:
        assert demo.stdout is not None
        seen = ""
        while moment not in seen:
            line = demo.stdout.readline()
            assert line, f"ended before {moment!r}: {seen}"
            seen += line
        os.killpg(demo.pid, number)
        os.killpg(demo.pid, number)
        rest = demo.stdout.read()
        demo.wait(60)
    assert demo.returncode == status, rest
    assert "Traceback" not in rest
