"""`soakd` on the command line: options, refusals, and life in the background."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import soakd.command_line as program
from soakd import __version__
from soakd.core.errors import HostError, UserError
from soakd.daemon import Options
from tests.run.kit import ROOT, wait_until

GUARD_S = 60


@pytest.fixture
def lived(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """`main` does everything but live; the options it would have lived with are kept."""
    kept: list[Options] = []

    def live(options: Options, on_ready: Callable[[], None]) -> int:
        kept.append(options)
        on_ready()
        return 0

    monkeypatch.setattr(program, "_live", live)
    return kept


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["soakd", *map(str, arguments)])
    return program.main()


def test_flags_win_over_defaults(
    lived: list[Options], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Paths become absolute; settings come from the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text("max_running = 3\n")
    assert run(monkeypatch, "--socket", "s.sock", "--state", "st", "--config", "c.toml") == 0
    [options] = lived
    assert options.paths.socket == tmp_path / "s.sock"
    assert options.paths.state == tmp_path / "st"
    assert options.config.max_running == 3
    assert options.paths.mode == ("system" if os.geteuid() == 0 else "user")


@pytest.mark.parametrize(
    ("terminal", "notify", "flags", "expected"),
    [
        (True, False, (), True),
        (False, False, (), False),
        (True, True, (), False),
    ],
)
def test_foreground_is_a_terminal_without_a_manager(
    lived: list[Options],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    terminal: bool,
    notify: bool,
    flags: tuple[str, ...],
    expected: bool,
) -> None:
    """Only there do SIGINT and SIGHUP come from a person."""

    class Stdin:
        def isatty(self) -> bool:
            return terminal

    monkeypatch.setattr(sys, "stdin", Stdin())
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if notify:
        monkeypatch.setenv("NOTIFY_SOCKET", "/x")
    run(monkeypatch, "--state", tmp_path, *flags)
    assert lived[0].foreground is expected


def test_closed_stdin_is_no_terminal(
    lived: list[Options], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Python has no stdin then."""
    monkeypatch.setattr(sys, "stdin", None)
    run(monkeypatch, "--state", tmp_path)
    assert lived[0].foreground is False


def test_bad_configuration_is_refused_with_all_problems(
    lived: list[Options],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit status 78, no traceback, nothing begun."""
    (tmp_path / "c.toml").write_text("max_running = 0\nunknown = 1\n")
    assert run(monkeypatch, "--config", tmp_path / "c.toml", "--state", tmp_path / "st") == 78
    said = capsys.readouterr().err
    assert said.startswith("soakd: cannot use the configuration")
    assert "max_running" in said
    assert "unknown" in said
    assert lived == []
    assert not (tmp_path / "st").exists()


@pytest.mark.parametrize(
    ("error", "status"), [(HostError("refused", "cannot x: y"), 75), (UserError("usage", "u"), 2)]
)
def test_refusal_of_the_daemon_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    status: int,
) -> None:
    """With the exit status of its code."""

    def live(*_args: object) -> int:
        raise error

    monkeypatch.setattr(program, "_live", live)
    assert run(monkeypatch, "--state", tmp_path) == status
    assert capsys.readouterr().err == f"soakd: {error}\n"


def test_version_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing else done."""
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, "--version")
    assert left.value.code == 0
    assert capsys.readouterr().out == f"soakd {__version__}\n"


def test_live_runs_the_daemon_on_trio(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the daemon raises comes out as it was raised."""

    async def refuse(_self: object) -> None:
        raise HostError("refused", "cannot serve")

    monkeypatch.setattr("soakd.command_line.configure", lambda: None)
    monkeypatch.setattr("soakd.daemon.Daemon.run", refuse)
    assert run(monkeypatch, "--state", tmp_path) == 75
    assert "cannot serve" in capfd.readouterr().err


# -- the background ----------------------------------------------------------------------------


class Background:
    """`soakd --background` with short paths; every daemon of it is ended later."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.socket, self.state = folder / "s.sock", folder / "state"
        self.log = self.state / "soakd.log"
        self._env = {**env, "PYTHONPATH": str(ROOT)}

    def start(self, code: str = "", *flags: str) -> subprocess.CompletedProcess[str]:
        """Run it to the return of the starting process; `code` is executed in it first."""
        text = f"import sys, soakd.command_line as program\n{code}\nsys.exit(program.main())"
        return subprocess.run(
            [sys.executable, "-c", text, "--background", "--socket", str(self.socket), "--state",
             str(self.state), *flags],
            env=self._env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=GUARD_S, check=False,
        )  # fmt: skip

    def pids(self) -> list[int]:
        """Processes that have this socket on their command line."""
        wanted = str(self.socket).encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if wanted in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    def end(self, number: signal.Signals) -> None:
        for pid in self.pids():
            os.kill(pid, number)
        wait_until(lambda: self.pids() == [])


@pytest.fixture
def background(short_dir: Path, child_env: dict[str, str]) -> Iterator[Background]:
    made = Background(short_dir, child_env)
    yield made
    made.end(signal.SIGKILL)


@pytest.mark.slow
def test_background_returns_when_it_serves(background: Background) -> None:
    """A session of its own, no terminal, a log; SIGTERM ends it and its socket."""
    done = background.start()
    assert (done.returncode, done.stdout) == (0, "")
    assert f"soakd serves {background.socket}; its log is {background.log}" in done.stderr
    assert background.socket.exists()
    [pid] = background.pids()
    assert os.getsid(pid) != os.getsid(0)
    assert os.getsid(pid) != pid
    links = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)}
    assert links == {0: "/dev/null", 1: str(background.log), 2: str(background.log)}
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    background.end(signal.SIGTERM)
    assert not background.socket.exists()
    assert '"event": "left"' in background.log.read_text()


@pytest.mark.slow
def test_background_that_is_refused_says_why(background: Background) -> None:
    """To whoever started it, with the exit status; a second one is refused by the first."""
    assert background.start().returncode == 0
    done = background.start()
    assert done.returncode != 0
    assert "soakd: cannot" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(background.pids()) == 1


@pytest.mark.slow
def test_background_that_crashes_leaves_its_traceback_in_the_log(background: Background) -> None:
    """A crash of the daemon must not be silent."""
    done = background.start("program._live = lambda *_: 1 / 0")
    assert done.returncode != 0
    assert "see" in done.stderr
    assert str(background.log) in done.stderr
    assert background.pids() == []
    assert "ZeroDivisionError" in background.log.read_text()


def test_background_needs_its_state_folder(
    background: Background, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before anything is forked."""
    background.state.mkdir()
    background.state.chmod(0o777)
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked"))
    assert run(monkeypatch, "--background", "--state", background.state) == 75
    assert "others may write to it" in capsys.readouterr().err


class _Exit(Exception):
    """What `os._exit` became."""


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (None, 0, b"ready"),
        (HostError("refused", "cannot serve: taken"), 75, b"75 cannot serve: taken"),
    ],
)
def test_child_tells_its_starter_what_became_of_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: Exception | None,
    status: int,
    word: bytes,
) -> None:
    """The child's half, in this process: forks and exits only pretended."""
    pipes: list[tuple[int, int]] = []
    exits: list[int] = []
    pipe = os.pipe

    def make_pipe() -> tuple[int, int]:
        read, write = pipe()
        pipes.append((os.dup(read), write))
        return read, write

    def leave(code: int) -> None:
        exits.append(code)
        raise _Exit

    def live(_options: Options, on_ready: Callable[[], None]) -> int:
        if error is not None:
            raise error
        on_ready()
        return 0

    monkeypatch.setattr(os, "pipe", make_pipe)
    monkeypatch.setattr(os, "fork", lambda: 0)
    monkeypatch.setattr(os, "setsid", lambda: None)
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(program, "_detach", lambda _log: None)
    monkeypatch.setattr(program, "_live", live)
    with pytest.raises(_Exit):
        run(monkeypatch, "--background", "--state", tmp_path / "state")
    assert exits == [status]
    read, write = pipes[0]
    assert os.read(read, 100) == word
    os.close(read)
    if error is not None:
        os.close(write)


@pytest.mark.parametrize(
    ("word", "status", "said"),
    [
        (b"ready", 0, "soakd serves"),
        (b"75 cannot serve: taken", 75, "soakd: cannot serve: taken"),
        (b"", 1, "cannot start in the background: see"),
    ],
)
def test_starter_says_what_the_child_told_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    word: bytes,
    status: int,
    said: str,
) -> None:
    """The parent's half, in this process: served, refused, or gone without a word."""
    pipe = os.pipe

    def make_pipe() -> tuple[int, int]:
        read, write = pipe()
        os.write(write, word)
        return read, write

    monkeypatch.setattr(os, "pipe", make_pipe)
    monkeypatch.setattr(os, "fork", lambda: 4711)
    assert run(monkeypatch, "--background", "--state", tmp_path / "state") == status
    assert said in capsys.readouterr().err


def test_first_child_only_makes_the_second(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that the daemon is no session leader and never gets a terminal."""
    forks = iter([0, 1])
    exits: list[int] = []

    def leave(code: int) -> None:
        exits.append(code)
        raise _Exit

    monkeypatch.setattr(os, "fork", lambda: next(forks))
    monkeypatch.setattr(os, "setsid", lambda: None)
    monkeypatch.setattr(os, "_exit", leave)
    opened: list[int] = []
    pipe = os.pipe

    def make_pipe() -> tuple[int, int]:
        read, write = pipe()
        opened.append(write)
        return read, write

    monkeypatch.setattr(os, "pipe", make_pipe)
    with pytest.raises(_Exit):
        run(monkeypatch, "--background", "--state", tmp_path / "state")
    assert exits == [0]
    os.close(opened[0])


def test_detached_process_prints_to_the_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """stdin is nothing, stdout and stderr are the log, appended to."""
    moved: dict[int, str] = {}

    def dup2(source: int, target: int) -> None:
        moved[target] = os.readlink(f"/proc/self/fd/{source}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "dup2", dup2)
    before = len(os.listdir("/proc/self/fd"))
    program._detach(tmp_path / "soakd.log")
    log = str(tmp_path / "soakd.log")
    assert moved == {0: "/dev/null", 1: log, 2: log}
    assert Path.cwd() == Path("/")
    assert len(os.listdir("/proc/self/fd")) == before
    assert (tmp_path / "soakd.log").stat().st_mode & 0o777 == 0o640
