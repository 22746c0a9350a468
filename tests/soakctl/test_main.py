from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import soakctl.commands
from soakctl import main as main_module
from soakd.wire.errors import EXIT_STATUS, WireError
from tests.soakctl.conftest import Soakctl
from tests.soakctl.fake_soakd import FakeSoakd, Notify, Params
from tests.soakctl.samples import status

Capture = pytest.CaptureFixture[str]


def test_each_verb_has_one_file_of_its_name() -> None:
    """The table and the folder say the same."""
    folder = Path(str(soakctl.commands.__file__)).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert files == set(main_module.VERBS)


def test_help_lists_every_verb_and_every_exit_status(soakctl: Soakctl, capsys: Capture) -> None:
    """A newcomer sees what there is, a script's author what it may return."""
    assert soakctl("--help") == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in main_module.VERBS)
    assert all(f"{number}" in out for number in EXIT_STATUS.values())
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("verb", main_module.VERBS)
def test_each_verb_explains_itself(soakctl: Soakctl, capsys: Capture, verb: str) -> None:
    """With the common flags, which may stand behind the verb as well."""
    assert soakctl(verb, "--help") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: soakctl {verb}")
    assert "--json" in out
    assert "--socket" in out


def test_without_a_verb_the_help_is_shown(soakctl: Soakctl, capsys: Capture) -> None:
    """On stderr, as a usage error."""
    assert soakctl() == 2
    assert "verbs:" in capsys.readouterr().err


def test_a_mistyped_verb_is_guessed(soakctl: Soakctl, capsys: Capture) -> None:
    """One guess, or all verbs."""
    assert soakctl("statsu") == 2
    assert "did you mean status?" in capsys.readouterr().err
    assert soakctl("\x1bfoo") == 2
    err = capsys.readouterr().err
    assert "known are start, soak, status" in err
    assert "\x1b" not in err


def test_the_version_needs_no_daemon(capsys: Capture) -> None:
    """As every program prints it."""
    assert main_module.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("soakctl 0.")


def test_no_daemon_is_69_and_says_how_to_start_one(
    short_dir: Path, soakctl: Soakctl, capsys: Capture
) -> None:
    """The first message that most newcomers see."""
    path = short_dir / "none.sock"
    assert soakctl("--socket", str(path), "status") == 69
    assert capsys.readouterr().err == (
        f"soakctl: cannot reach soakd at {path}: there is no such socket\n"
        f"  start it there: soakd --background --socket {path}\n"
    )


def test_no_traceback_reaches_a_user_unless_asked_for(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours is one line, with the way to see more."""
    soakd.handlers["run.status"] = {"id": "r7", "rounds": "nonsense"}
    assert soakctl("status") == 5
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "SOAKCTL_TRACEBACK=1" in err
    monkeypatch.setenv("SOAKCTL_TRACEBACK", "1")
    soakctl("status")
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_130(soakctl: Soakctl, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was under way."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("soakctl.commands.status.run", interrupted)
    assert soakctl("status") == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error_message(
    soakd: FakeSoakd, child_env: dict[str, str]
) -> None:
    """`soakctl status | head -0`: what a shell calls 141, and silence."""
    soakd.handlers["run.status"] = status()
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "soakctl", "--socket", str(soakd.path), "status"]
    ended = subprocess.run(
        command, check=False, stdout=write, stderr=subprocess.PIPE, env=child_env
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("argv", [("status", "r\udcff"), ("soak", "r7", "--rounds", "9" * 30)])
def test_what_no_frame_can_hold_is_a_usage_error(
    soakd: FakeSoakd, soakctl: Soakctl, capsys: Capture, argv: tuple[str, ...]
) -> None:
    """A name that is no UTF-8, a number without end: not a fault of soakctl."""
    assert soakctl(*argv) == 2
    assert soakd.calls == []
    error = capsys.readouterr().err
    assert "fault of soakctl" not in error
    assert error.startswith("soakctl: cannot ")


def _in_a_shell(
    soakd: FakeSoakd, child_env: dict[str, str], rest: str
) -> subprocess.CompletedProcess[str]:
    """Run `soakctl` with what a shell makes of its streams."""
    return subprocess.run(
        ["sh", "-c", f'"$0" -m soakctl --socket "$1" {rest}', sys.executable, str(soakd.path)],
        check=False,
        capture_output=True,
        text=True,
        env=child_env,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rest", "code", "said"),
    [
        ("status >&-", 0, ""),
        ("status </dev/null >/dev/full", 5, "soakctl: cannot write to stdout: No space left"),
        ("--json status >/dev/full", 5, "soakctl: cannot write to stdout: No space left"),
        ("stop r9 <&- >&-", 66, "soakctl: cannot find it"),
    ],
)
def test_a_stdout_that_takes_nothing_is_no_fault_of_soakctl(
    soakd: FakeSoakd, child_env: dict[str, str], rest: str, code: int, said: str
) -> None:
    """A closed one was meant so; of a full one the reason is told."""
    soakd.handlers |= {"run.status": status(), "run.stop": _no_such_run}
    if rest.startswith("stop"):
        soakd.handlers["run.status"] = _no_such_run
    ended = _in_a_shell(soakd, child_env, rest)
    assert (ended.returncode, ended.stderr[: len(said)]) == (code, said)
    assert "fault" not in ended.stderr
    assert bool(said) == bool(ended.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["2>&-", "2>/dev/full"])
def test_what_stderr_does_not_take_is_lost_and_changes_nothing(
    soakd: FakeSoakd, child_env: dict[str, str], lost: str
) -> None:
    """Neither the exit status nor stdout, on which programs rely."""
    soakd.handlers |= {"run.soak": {"id": "r7", "measurement": 1, "first_round": 1}}
    begun = _in_a_shell(soakd, child_env, f"soak r7 {lost}")
    assert (begun.returncode, begun.stdout) == (0, "r7 soak 1 · from round 1\n")
    soakd.handlers["run.status"] = _no_such_run
    refused = _in_a_shell(soakd, child_env, f"--json status r9 {lost}")
    assert (refused.returncode, refused.stdout) == (66, "")


def _no_such_run(_params: Params, _notify: Notify) -> None:
    raise WireError("no_such_run", "cannot find it")


@pytest.mark.slow
def test_status_loads_only_what_it_needs(soakd: FakeSoakd) -> None:
    """Neither the daemon's libraries nor what is dear to import; `wire.messages` is for soakd."""
    soakd.handlers["run.status"] = status()
    program = (
        "import sys\nfrom soakctl.main import main\n"
        f"assert main(['--socket', {str(soakd.path)!r}, 'status']) == 0\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-S", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    loaded = {name.partition(".")[0] for name in ended.stderr.split()}
    dear = {"trio", "httpx", "structlog", "psutil", "rich", "asyncio", "dataclasses", "inspect"}
    assert not loaded & (dear | {"json", "shutil", "subprocess", "pathlib", "tomllib", "hashlib"})
    assert "soakd.wire.messages" not in ended.stderr.split()
    assert "soakd.core" not in ended.stderr.split()
