from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Runs in a process of its own: PrivateDaemon makes itself the parent of orphans and reaps them all.
_PROGRAM = """
import socket, sys
from soakctl import private_daemon
from soakctl.failures import Failure
private_daemon.STOP_TIMEOUT_S = private_daemon._SWEEP_TERM_S = 0.3
sys.executable = sys.argv[1]
with private_daemon.PrivateDaemon() as daemon:
    print(daemon.folder)
    daemon.launch()
    try:
        daemon.wait_until_ready()
        socket.socket(socket.AF_UNIX).connect(daemon.socket)
    except Failure as failure:
        print(failure.message, *daemon.last_words(), sep="|")
"""

# What stands in for `python -m soakd --config C --socket S --state D`.
_READY = """
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[sys.argv.index("--socket") + 1])
time.sleep(0.2)
s.listen()
"""
_STUBBORN = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""
_CHILD = (
    "import subprocess\nchild = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
    "print(child.pid, file=open({pids!r}, 'w'), flush=True)\n"
)
_TELLS = """
import signal, sys
def tell(*_):
    print("told", file=file)
    sys.exit()
file = open({told!r}, "w")
signal.signal(signal.SIGINT, tell)
print("ready", file=file, flush=True)
signal.pause()
"""
_FOREVER = "import signal\nwhile True: signal.pause()\n"


@pytest.fixture
def env(child_env: dict[str, str]) -> dict[str, str]:
    """Return an environment in which our packages are found from any folder."""
    paths = [str(ROOT), child_env.get("PYTHONPATH", "")]
    return {**child_env, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _run(tmp_path: Path, program: str, env: dict[str, str]) -> list[str]:
    """Run a private daemon of this program; return what was printed."""
    fake = tmp_path / "python"
    fake.write_text(f"#!{sys.executable}\n{program}")
    fake.chmod(0o755)
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(fake)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env=env,
    )
    assert ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert not Path(lines[0]).exists()
    return lines[1:]


@pytest.mark.slow
@pytest.mark.parametrize("stubborn", ["", _STUBBORN])
def test_soakd_and_its_orphans_are_gone_afterwards(
    tmp_path: Path, env: dict[str, str], stubborn: str
) -> None:
    """A soakd that ignores signals is killed, and what it left behind is found and ended.

    It takes connections some time after its socket was there: it is ready only then.
    """
    pids = tmp_path / "pids"
    child = _CHILD.format(pids=str(pids))
    # Its end on SIGINT leaves the child behind, as a crash would.
    assert _run(tmp_path, stubborn + child + _READY + _FOREVER, env) == []
    assert not Path(f"/proc/{pids.read_text().strip()}").exists()


@pytest.mark.slow
def test_a_soakd_that_does_not_start_is_quoted(tmp_path: Path, env: dict[str, str]) -> None:
    """Its last words are the only clue that a user has."""
    program = "import sys\nprint('cannot open store: disk full', file=sys.stderr)\nsys.exit(78)\n"
    assert _run(tmp_path, program, env) == [
        "cannot start soakd: it ended with 78|cannot open store: disk full"
    ]


@pytest.mark.slow
def test_soakd_is_told_when_the_demo_is_killed_outright(
    tmp_path: Path, env: dict[str, str]
) -> None:
    """SIGKILL cannot be caught: the kernel sends soakd a SIGINT instead of us."""
    fake = tmp_path / "python"
    told = tmp_path / "told"
    os.mkfifo(told)
    # Opening the FIFO lets us know that it is ready, closing it that it has ended.
    fake.write_text(f"#!{sys.executable}\n{_TELLS.format(told=str(told))}")
    fake.chmod(0o755)
    folder = ""
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(fake)],
        stdout=subprocess.PIPE,
        text=True,
        env={**env, "PYTHONUNBUFFERED": "1"},
    ) as demo:
        assert demo.stdout is not None
        folder = demo.stdout.readline().strip()
        with told.open() as words:
            assert words.readline() == "ready\n"
            demo.kill()
            assert words.read() == "told\n"
    subprocess.run(["rm", "-rf", folder], check=True)
