"""docs/safety.md and the tests marked `safety` name each other."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "safety.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
COMMAND = ".venv/bin/python -m pytest --no-gates -m safety --repeat 3"


def _is_mark(node: ast.expr) -> bool:
    """Whether an expression is `pytest.mark.safety`, alone or in a list."""
    if isinstance(node, ast.List):
        return any(map(_is_mark, node.elts))
    return ast.unparse(node) == "pytest.mark.safety"


@cache
def _tests(path: Path) -> dict[str, bool]:
    """The tests of a file; whether each is marked, by itself or with its module."""
    body = ast.parse(path.read_text()).body
    whole = any(
        isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "pytestmark"
        and _is_mark(node.value)
        for node in body
    )
    return {
        node.name: whole or any(map(_is_mark, node.decorator_list))
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_each_test_that_the_page_names_is_one_of_the_safety_tests(path: str, name: str) -> None:
    """It exists, under this name, and the one command runs it."""
    tests = _tests(ROOT / path)
    assert name in tests, f"{path} has no test {name}"
    assert tests[name], f"{path}::{name} is not marked safety"


def test_the_page_names_every_file_with_safety_tests() -> None:
    """None is run without a line that says what it proves."""
    named = {path for path, _ in NAMED}
    marked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if path.relative_to(ROOT).parts[1] != "data" and any(_tests(path).values())
    }
    assert marked == named


def test_each_line_of_the_table_says_what_soakd_does_and_by_which_test() -> None:
    """Four cells; only what the scripts did may be unknown."""
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    assert len(rows) > 25
    for row in rows[1:]:
        assert len(row) == 4, row
        assert len(row[2]) > 10, row
        assert "::" in row[3], row


@pytest.mark.slow
def test_the_one_command_makes_whole_passes_without_campaigns() -> None:
    """`--repeat` runs all tests, then all of them again; what takes minutes is not among them."""
    assert f"\n{COMMAND}\n" in PAGE
    files = ("tests/core/test_readiness.py", "tests/e2e/test_safety_output.py")
    command = [sys.executable, *COMMAND.split()[1:], "--collect-only", "-q", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = [line for line in done.stdout.splitlines() if "::" in line]
    assert not [line for line in found if "10 GB on stderr" in line]
    passes = [re.findall(r"\bpass\d\b", line) for line in found]
    count = len(found) // 3
    assert count > 4
    assert passes == [["pass1"]] * count + [["pass2"]] * count + [["pass3"]] * count


def test_numbered_lines_are_all_there() -> None:
    """Eight lines of promises, each with a heading in the table."""
    assert re.findall(r"^\| \*\*(\d)\.", PAGE, re.MULTILINE) == list("12345678")
