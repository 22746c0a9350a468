"""Errors by who must act on them.

The code is for programs (it decides the exit status of soakctl), the message for people.
The table from code to exit status belongs to `soakd.wire.errors`, which core must not
import; a test keeps the two lists of codes equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

CODES: Final = frozenset(
    {
        "usage",
        "no_such_run",
        "no_daemon",
        "refused",
        "not_allowed",
        "bad_plan",
        "timeout",
        "internal",
        "version",
        "bad_frame",
        "unknown_method",
        "bad_params",
    }
)


class SoakError(Exception):
    """A failure with a code that travels over the wire.

    Args:
        code: One of `CODES`.
        message: `cannot <do X>: <cause>`, with the offending value and what to do next.
        details: Further facts for programs; must be plain data.
    """

    def __init__(
        self, code: str, message: str, details: Mapping[str, object] | None = None
    ) -> None:
        # All three go to args, so that the error survives pickling and copying.
        super().__init__(code, message, details)
        self.code = code
        self.message = message
        self.details: dict[str, object] = {} if details is None else dict(details)

    def __str__(self) -> str:
        """Return the message alone: that is what people and logs want to see."""
        return self.message


class UserError(SoakError):
    """The user can repair it: a bad plan, a run that does not exist, a missing right."""


class NodeError(SoakError):
    """A node under test misbehaved: data for the verdict, never a crash of ours."""


class HostError(SoakError):
    """The host stands in the way: a disk, a port, a permission."""


def first_known(error: BaseException) -> SoakError | None:
    """The first error that is meant for people, looking into the groups that nurseries make."""
    if isinstance(error, SoakError):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = [first_known(inner) for inner in error.exceptions]
        # A bug beside a known error must not be hidden by it.
        return found[0] if None not in found else None
    return None
