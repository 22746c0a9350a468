"""docs/sharing.md shows what users of a shared box really see."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.accounts import why_not
from tests.e2e.sharing import SETTING, comparable, played

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "sharing.md"


def test_the_transcript_is_what_happens() -> None:
    """Line by line, but for times, pids and how many rounds there were."""
    text = DOCUMENT.read_text()
    assert "\n".join(SETTING) in text
    shown = text.rstrip().removesuffix("```").rpartition("```\n")[2]
    assert comparable(list(played())) == [*comparable(shown.splitlines()), ""]
