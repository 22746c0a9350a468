"""Error codes on the wire and the exit statuses soakctl makes of them.

The wire speaks codes, not sentences. This table is the only place where a code or a verdict becomes
an exit status; core keeps its own list of codes (it must not import wire) and a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping

EXIT_DONE = 0
EXIT_DETACHED = 130

EXIT_STATUS: Mapping[str, int] = {
    "usage": 2,
    "bad_params": 2,
    "internal": 5,
    "version": 5,
    "bad_frame": 5,
    "unknown_method": 5,
    "no_such_run": 66,
    "no_daemon": 69,
    "refused": 75,
    "not_allowed": 77,
    "bad_plan": 78,
    "timeout": 124,
}

VERDICT_EXIT_STATUS: Mapping[str, int] = {
    "passed": EXIT_DONE,
    "failed": 1,
    "inconclusive": 3,
    "aborted": 4,
    "harness_error": 5,
}


def exit_status(code: str) -> int:
    """Return soakctl's exit status for an error code; one of a newer soakd counts as `internal`."""
    return EXIT_STATUS.get(code, EXIT_STATUS["internal"])


class WireError(Exception):
    """A failure as it travels: `code`, a human `message`, machine-readable `details`."""

    def __init__(
        self, code: str, message: str, details: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details: dict[str, object] = dict(details) if details is not None else {}

    def to_map(self) -> dict[str, object]:
        """Return the map that stands in the error place of a response."""
        return {"code": self.code, "message": self.message, "details": self.details}

    @classmethod
    def from_map(cls, error: Mapping[str, object]) -> WireError:
        """Build the error from the map of a response (`frames` has checked its types)."""
        details = error.get("details")
        return cls(
            str(error.get("code", "internal")),
            str(error.get("message", "")),
            details if isinstance(details, dict) else None,
        )

    @property
    def exit_status(self) -> int:
        """The exit status soakctl ends with when this error is the end of its work."""
        return exit_status(self.code)
