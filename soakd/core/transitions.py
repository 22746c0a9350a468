"""The one error that all machines of core share."""

from __future__ import annotations


class IllegalTransition(AssertionError):
    """An event came that cannot happen in this state: a bug of ours, never data.

    The machine is left as it was, since states are values.
    """

    def __init__(self, state: object, event: object) -> None:
        # Names only: a round carries answers of up to a MiB each.
        text = f"cannot take {type(event).__name__} in state {type(state).__name__}"
        super().__init__(text)
        self.state = state
        self.event = event
