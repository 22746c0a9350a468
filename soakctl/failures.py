"""What a command may end with besides success, and which exit status that is.

Commands raise, only `soakctl.main` prints and turns the code into an exit status.
"""

from __future__ import annotations

from soakd.wire.errors import VERDICT_EXIT_STATUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# What to do next, by error code.
ADVICE: dict[str, str] = {
    "no_such_run": "see which runs there are: soakctl list",
    "internal": "this is a fault of soakd, not of your soak; its log has the traceback",
    "version": "upgrade the older of soakctl and soakd, then restart soakd",
    "timeout": "soakd is alive but slow; try again",
}
# What a shell shows for a program that SIGPIPE ended.
BROKEN_PIPE = 141


class Failure(Exception):
    """A command cannot be done.

    Attributes:
        code: one of the wire's error codes; decides the exit status.
        problems: one line each, where more than one thing is wrong at once.
        advice: what to do next, one line each, most useful first.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        problems: Iterable[str] = (),
        advice: Iterable[str] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.problems = tuple(problems)
        self.advice = tuple(advice)


class ConnectionLost(Failure):
    """soakd went away in the middle; the soak itself is held by its shim and goes on."""

    def __init__(self, message: str) -> None:
        super().__init__(
            "no_daemon",
            message,
            advice=[
                "a running soak goes on without soakd for a while; start it: soakd --background"
            ],
        )


class Detached(Exception):
    """Ctrl-C in a command that only waits; the text says what goes on and how to come back."""


def failure_of(error: dict[str, Any]) -> Failure:
    """Turns an error answer of soakd into what `soakctl.main` prints."""
    code = str(error.get("code", "internal"))
    details = error.get("details")
    details = details if isinstance(details, dict) else {}
    problems = details.get("problems")
    message = str(error.get("message", "cannot say why: soakd sent no message"))
    if isinstance(problems, list) and len(problems) == 1 and str(problems[0]) in message:
        problems = None
    # soakd often names the command itself.
    advice = None if "soakctl " in message else ADVICE.get(code)
    return Failure(
        code,
        message,
        problems=[str(problem) for problem in problems] if isinstance(problems, list) else (),
        advice=[advice] if advice else (),
    )


def exit_of_verdict(verdict: object) -> int:
    """Gives the exit status of a finished run; an unknown verdict counts as a harness error."""
    return VERDICT_EXIT_STATUS.get(str(verdict), VERDICT_EXIT_STATUS["harness_error"])
