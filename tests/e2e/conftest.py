"""The box of an end-to-end test, which is empty afterwards whatever happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.box import Box


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave campaigns out unless `-m` names them.

    Not `addopts = -m ...`: with a marker expression the run would not count as a whole one, and
    the coverage gates would be off.
    """
    if "campaign" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("campaign") is not None]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture
def bare_box(tmp_path: Path, child_env: dict[str, str]) -> Iterator[Box]:
    """Yield a box in which nothing runs yet."""
    box = Box(tmp_path, child_env)
    try:
        yield box
    finally:
        try:
            box.close()
        finally:
            # Shown by pytest when the test has failed.
            print(box.log().read_text()[-4000:] if box.log().exists() else "no log")  # noqa: T201
    if (box.state / "soakd.db").exists():
        assert box.leftovers() == []


@pytest.fixture
def box(bare_box: Box) -> Box:
    """Return a box with a serving soakd and two nodes that always hit."""
    bare_box.install(outcomes=["hit"])
    bare_box.serve()
    return bare_box
