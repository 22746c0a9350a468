"""What all tests share: the coverage gates of a whole run, and a folder with a short path."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.coverage_gates import CoverageGates

# The same cases every time: what a search found once becomes a test of its own.
hypothesis.settings.register_profile("soakd", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("soakd")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a whole run go without coverage, for debuggers and timing."""
    parser.addoption("--no-gates", action="store_true", help="measure no coverage")


def pytest_configure(config: pytest.Config) -> None:
    """Measure coverage when the whole suite runs; a chosen part of it says nothing."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    narrowed = config.option.keyword or config.option.markexpr or config.option.collectonly
    if whole and not narrowed and not config.option.no_gates:
        config.pluginmanager.register(CoverageGates(config.rootpath), "soakd-coverage-gates")


@pytest.fixture
def child_env(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return an environment for children that run our own code.

    In a whole run it makes coverage measure them too. Not for tests that look at a child's
    start-up time or at the modules it loads.
    """
    gates = request.config.pluginmanager.get_plugin("soakd-coverage-gates")
    extra = gates.child_env() if isinstance(gates, CoverageGates) else {}
    return {**os.environ, **extra}


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """Return a new folder whose path leaves room for a socket name (at most 107 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="soakd-t-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
