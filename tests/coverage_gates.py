"""Coverage as part of the one test command: measured in a whole run, judged at its end.

pytest-cov knows one threshold for everything; ours differ by package. Children are measured where
a test starts them with `child_env`, which end-to-end tests do not; workers (`tests.side_by_side`)
measure themselves, and what all have written is judged together. While tests are collected nothing
is measured, for all of ours is loaded before: tracing what pytest does would take longer.

Shim, bundle helper and simulated node run from zips under `-I -S`, where coverage cannot follow:
their tests run the sources in place while it measures.
"""

from __future__ import annotations

import importlib
import io
import pkgutil
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import coverage
import coverage.exceptions
import pytest
from xdist.workermanage import WorkerController

_NOT_MEASURED = ("unmeasured", "e2e")
"""Markers of tests; those that are end to end wait for children."""
FOLDER = "soakd_coverage"
"""In `workerinput`: where a worker's measurements go."""


class Gate(NamedTuple):
    """At least `percent` of lines and branches of the files that match."""

    name: str
    include: str
    percent: float
    omit: tuple[str, ...] = ()


GATES = (
    Gate("soakd/core", "*/soakd/core/*", 100.0),
    Gate("soakd/wire", "*/soakd/wire/*", 100.0),
    Gate("elsewhere", "*", 90.0, ("*/soakd/core/*", "*/soakd/wire/*")),
)


class CoverageGates:
    """The plugin: starts with the configuration, so before any of our modules is imported."""

    def __init__(
        self, root: Path, judge_s_folder: str | None = None, *, has_workers: bool = False
    ) -> None:
        """Measures from now on; in a worker, into the folder of the process that will judge.

        Where `has_workers`, they measure, and this process only judges.
        """
        self._settings = root / "pyproject.toml"
        self._is_judge = judge_s_folder is None
        self._folder = Path(judge_s_folder or tempfile.mkdtemp(prefix="soakd-coverage-"))
        self._coverage = coverage.Coverage(
            data_file=str(self._folder / "data"), config_file=str(self._settings)
        )
        self._lines: list[str] = []
        self._failed = False
        self._measures = not has_workers
        if self._measures:
            self._coverage.start()

    def child_env(self) -> dict[str, str]:
        """Return what makes coverage start in a child (by the .pth file it installs)."""
        return {
            "COVERAGE_PROCESS_START": str(self._settings),
            "COVERAGE_FILE": str(self._folder / "data"),
        }

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Iterator[None]:
        """Look away from the loading of tests, once all of ours is loaded."""
        if not self._measures:
            return (yield)
        for package in ("soakd", "soakctl"):
            _load_all(package)
        with self._looking_away():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Look away from what reaches next to nothing that others do not, and takes longer so."""
        if not any(map(item.get_closest_marker, _NOT_MEASURED)):
            return (yield)
        with self._looking_away():
            return (yield)

    def pytest_configure_node(self, node: WorkerController) -> None:
        """Let a worker measure too; called for each before it starts."""
        node.workerinput[FOLDER] = str(self._folder)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        """Judge after the last test, and let a missed gate fail the run."""
        if self._measures:
            self._coverage.stop()
            self._coverage.save()
        if not self._is_judge:
            return (yield)
        if session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
            with warnings.catch_warnings():
                # Of a child that was killed half a data file is left: no reason to fail.
                warnings.simplefilter("ignore", coverage.exceptions.CoverageWarning)
                self._judge()
        if self._failed and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        try:
            return (yield)
        finally:
            # Not before: after Ctrl-C it is now that workers end, and write what they have.
            shutil.rmtree(self._folder, ignore_errors=True)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print one line per gate, and the missing lines of a missed one."""
        if not self._lines:
            return
        terminalreporter.section("coverage gates")
        for line in self._lines:
            terminalreporter.write_line(line)

    @contextmanager
    def _looking_away(self) -> Iterator[None]:
        self._coverage.stop()
        try:
            yield
        finally:
            self._coverage.start()

    def _judge(self) -> None:
        self._coverage.combine()
        for gate in GATES:
            table = io.StringIO()
            # `show_missing` and `skip_covered` come from pyproject.toml.
            percent = self._coverage.report(
                file=table, include=[gate.include], omit=list(gate.omit)
            )
            passed = percent >= gate.percent
            verdict = "passed" if passed else "MISSED"
            self._lines.append(f"{gate.name}: {percent:.1f} % of {gate.percent:.0f} % {verdict}")
            if not passed:
                self._failed = True
                self._lines += table.getvalue().splitlines()


def _load_all(package: str) -> None:
    """Import every module of a package."""
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)
