"""The first call."""

from __future__ import annotations

import pytest

from soakd.wire.messages import PROTOCOL_MAJOR, PROTOCOL_MINOR
from tests.handlers.calls import call, fail
from tests.handlers.fakes import STRANGER, Caller


async def test_hello_says_who_answers_and_what_one_may_do() -> None:
    """A stranger learns that it is no member."""
    result = await call(Caller(peer=STRANGER), "hello", client="t", protocol=PROTOCOL_MAJOR)
    assert result == {
        "server": "soakd 0.1.0",
        "protocol": PROTOCOL_MAJOR,
        "minor": PROTOCOL_MINOR,
        "mode": "system",
        "uid": STRANGER.uid,
        "member": False,
        "admin": False,
    }


@pytest.mark.parametrize("major", [0, PROTOCOL_MAJOR + 1])
async def test_another_major_gets_the_remedy(major: int) -> None:
    """Neither older nor newer clients are served."""
    error = await fail(Caller(), "hello", client="t", protocol=major)
    assert error["code"] == "version"
    assert "use the soakctl installed with that soakd" in error["message"]
    assert error["details"] == {"protocol": PROTOCOL_MAJOR, "minor": PROTOCOL_MINOR}
