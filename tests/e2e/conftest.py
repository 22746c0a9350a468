"""The box of an end-to-end test, which is empty afterwards whatever happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.box import Box
from tests.e2e.pairs import served


@pytest.fixture(scope="module")
def shared_box(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Box]:
    """Yield a box with a soakd that the tests of one file share, for `box`."""
    with served(Box(tmp_path_factory.mktemp("shared"))) as box:
        yield box


@pytest.fixture
def box(shared_box: Box) -> Iterator[Box]:
    """Yield a box with an idle soakd, and two new nodes that always hit."""
    box = shared_box
    box.renew()
    box.install(outcomes=["hit"])
    said = box.log().stat().st_size
    try:
        yield box
    finally:
        try:
            box.settle()
        finally:
            # Shown by pytest when the test has failed.
            print(box.log().read_bytes()[said:][-4000:].decode())  # noqa: T201
    assert box.leftovers() == []


@pytest.fixture
def bare_box(tmp_path: Path) -> Iterator[Box]:
    """Yield a box of the test's own, in which nothing runs yet."""
    box = Box(tmp_path)
    try:
        yield box
    finally:
        try:
            box.close()
        finally:
            print(box.log().read_text()[-4000:] if box.log().exists() else "no log")  # noqa: T201
    if (box.state / "soakd.db").exists():
        assert box.leftovers() == []


@pytest.fixture
def own_box(bare_box: Box) -> Box:
    """Return a box of the test's own, with a serving soakd that has had no run yet."""
    bare_box.install(outcomes=["hit"])
    bare_box.serve()
    return bare_box
