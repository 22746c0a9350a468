"""What all tests share: workers and coverage gates of a whole run, a folder with a short path."""

from __future__ import annotations

import faulthandler
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.remote import Producer

from tests.coverage_gates import FOLDER, CoverageGates
from tests.side_by_side import (
    ByFile,
    count_workers,
    load_own_share,
    longest_first,
    told_to_worker,
)

# The same cases every time: what a search found once becomes a test of its own.
hypothesis.settings.register_profile("soakd", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("soakd")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a whole run go without coverage, for debuggers and timing; let tests run repeatedly."""
    parser.addoption("--no-gates", action="store_true", help="measure no coverage")
    parser.addoption(
        "--repeat",
        type=int,
        default=1,
        metavar="N",
        help="run all chosen tests N times, one pass after the other (workers may overlap them)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make the passes of `--repeat`: of session scope, so that each is a whole one."""
    passes = metafunc.config.option.repeat
    if passes > 1:
        metafunc.fixturenames.append("_pass")
        metafunc.parametrize(
            "_pass", range(passes), scope="session", ids=[f"pass{n + 1}" for n in range(passes)]
        )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Share the work of loading between the workers, and look for no garbage in what is loaded.

    Neither now nor later: all modules and tests stay to the end, and are many.
    """
    told = told_to_worker(session.config)
    gc.disable()
    try:
        if told is not None:
            load_own_share(told)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put long files first for workers, and leave campaigns out unless `-m` names them.

    The latter not by `addopts = -m ...`: with a marker expression the run would not count as a
    whole one, and the coverage gates would be off.
    """
    if told_to_worker(config) is not None:
        longest_first(items)
    if "campaign" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("campaign") is not None]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let campaigns be as long as they are: pytest would print all stacks after a minute."""
    if item.get_closest_marker("campaign") is not None:
        faulthandler.cancel_dump_traceback_later()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Say what `-n auto` means; it stands in pyproject.toml."""
    return count_workers(config)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Share the tests out by file."""
    return ByFile(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Measure coverage when the whole suite runs; a chosen part of it says nothing."""
    _hear_signals()
    _keep_compiled_code()
    told = told_to_worker(config)
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    narrowed = config.option.keyword or config.option.markexpr or config.option.collectonly
    if told is not None:
        measured = FOLDER in told
    else:
        measured = whole and not (narrowed or config.option.no_gates)
    if measured:
        gates = CoverageGates(
            config.rootpath, (told or {}).get(FOLDER), has_workers=config.option.dist != "no"
        )
        config.pluginmanager.register(gates, "soakd-coverage-gates")


def _hear_signals() -> None:
    """Undo what `nohup` or a shell's `&` did: children would inherit it, and Ctrl-C be nothing."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            python_s_own = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, python_s_own)


def _keep_compiled_code() -> None:
    """Undo what the environment may say: the tests start hundreds of programs of ours.

    Each would compile soakd anew, and each worker all tests.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture
def child_env(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return an environment for children that run our own code.

    In a whole run it makes coverage measure them too, but for tests that are `unmeasured`. Not for
    tests that look at a child's start-up time or at the modules it loads.
    """
    return _env_of_children(request)


@pytest.fixture(scope="module")
def shared_child_env(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the same for a child that several tests of a module use."""
    return _env_of_children(request)


def _env_of_children(request: pytest.FixtureRequest) -> dict[str, str]:
    gates = request.config.pluginmanager.get_plugin("soakd-coverage-gates")
    is_measured = request.node.get_closest_marker("unmeasured") is None
    extra = gates.child_env() if is_measured and isinstance(gates, CoverageGates) else {}
    return {**os.environ, **extra}


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """Return a new folder whose path leaves room for a socket name (at most 107 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="soakd-t-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
