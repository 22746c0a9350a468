from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests import side_by_side
from tests.side_by_side import ByFile, count_workers, own_share

SOURCE = pytest.Config.ArgsSource


def test_every_long_file_is_there() -> None:
    """A name in the list that means no file would put nothing first."""
    tests = Path(__file__).parent
    assert [name for name in side_by_side.LONGEST_FIRST if not (tests / name).is_file()] == []


@pytest.mark.parametrize(
    ("source", "keyword", "capture", "is_shared"),
    [
        (SOURCE.TESTPATHS, "", "fd", True),
        (SOURCE.ARGS, "", "fd", False),
        (SOURCE.TESTPATHS, "start", "fd", False),
        (SOURCE.TESTPATHS, "", "no", False),
    ],
)
def test_only_a_whole_run_is_worth_workers(
    source: SOURCE, keyword: str, capture: str, *, is_shared: bool
) -> None:
    """Whoever names files or tests, or wants to see what they print, has them in one process."""
    option = SimpleNamespace(keyword=keyword, capture=capture)
    config = cast("pytest.Config", SimpleNamespace(args_source=source, option=option))
    assert (count_workers(config) > 0) == is_shared


def test_a_file_is_one_piece_of_work_in_each_pass() -> None:
    """Its tests share a box; a pass of `--repeat` has one of its own."""
    option = SimpleNamespace(loadscopereorder=True, tx=["popen"], dist="load")
    config: Any = SimpleNamespace(option=option, getvalue=vars(option).get)
    scopes = {
        ByFile(config)._split_scope(name)
        for name in (
            "tests/test_x.py::test_one",
            "tests/test_x.py::TestClass::test_two[pass_exam]",
            "tests/test_x.py::test_one[pass1]",
            "tests/test_x.py::test_one[pass2-auto]",
            "tests/test_x.py::test_two[auto-pass2]",
        )
    }
    assert scopes == {"tests/test_x.py 1", "tests/test_x.py 2"}


def test_workers_share_all_test_files_under_the_names_that_pytest_gives_them() -> None:
    """Each is one worker's; under another name it would be rewritten for nobody."""
    files = list(Path(__file__).parent.rglob("test_*.py"))
    shares = [own_share(place, 3) for place in range(3)]
    names = [name for share in shares for name in share]
    assert len(names) == len(set(names)) == len(files)
    assert __name__ in names
