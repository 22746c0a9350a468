"""The house in order: the linters' word is part of the one test command."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unmeasured

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy", "--no-error-summary")],
    ids=["ruff check", "ruff format", "mypy strict"],
)
def test_checker_has_no_complaint(command: tuple[str, ...]) -> None:
    """Each checker passes over the whole tree with the settings of pyproject.toml."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _sources() -> list[Path]:
    return [path for name in ("soakd", "soakctl") for path in sorted((ROOT / name).rglob("*.py"))]


def test_no_file_outgrows_its_reader() -> None:
    """Files of the programs have at most 400 lines (the norm is 300)."""
    lines = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in _sources()}
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_no_function_outgrows_its_reader() -> None:
    """Functions of the programs have at most 60 lines (the norm is 40)."""
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in _sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= 60
    ]
    assert long == []


def test_ci_runs_the_test_command_of_the_readme() -> None:
    """One command: what a newcomer types is what the gate runs."""
    command = next(
        line.strip()
        for line in (ROOT / ".ci" / "run").read_text().splitlines()
        if line.strip().endswith("-m pytest")
    )
    assert command in (ROOT / "README.md").read_text()


def test_every_test_says_what_it_is_about() -> None:
    """Each test has a docstring of its own."""
    silent = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and ast.get_docstring(node) is None
    ]
    assert silent == []


def test_no_promise_is_left_in_the_sources() -> None:
    """What is not done has an issue, not a mark in a comment."""
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X")
    found = [
        f"{path.relative_to(ROOT)}: {mark}"
        for path in [*_sources(), *sorted((ROOT / "tests").rglob("*.py"))]
        for mark in marks
        if mark in path.read_text()
    ]
    assert found == []
