"""What must be done in the end, however long the store or the disk refuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from soakd.log import get_logger

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0

_log = get_logger()


async def insist(
    act: Callable[[], Awaitable[None]], refused: Callable[[Exception], None] | None = None
) -> None:
    """Does it again and again, with longer and longer pauses, until it succeeds.

    Args:
        act: what must be done; cancelled, it is not tried again.
        refused: told what stood in the way.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return await act()
        except Exception as refusal:  # noqa: BLE001 - tried again below
            _log.error("tried_again", text=str(refusal), again_in_s=pause_s)
            if refused is not None:
                refused(refusal)
        await trio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
