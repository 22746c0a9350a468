"""Following a run to its end: the one place that pumps `run.watch`.

`watch`, `wait`, `stop`, `start --wait` and `demo` differ only in what they show (a `Display`). A
soakd that goes away is waited for: the soak goes on without it, so following it should as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from soakctl.client import Client
from soakctl.failures import ConnectionLost, Detached, Failure
from soakctl.session import Session
from soakctl.shapes import Event, Params, Status

TICK_S = 1.0
RECONNECT_S = 60.0
_RETRY_EVERY_S = 1.0
_NOT_YET = ("no_daemon", "timeout")
# Events whose data are a whole status.
_WITH_STATUS = ("state", "progress", "end")


class Display(Protocol):
    """What a command shows while it follows a run."""

    def begin(self, status: Status) -> None:
        """Takes the status at the beginning, and again after a reconnection."""

    def show(self, event: Event) -> None:
        """Takes one event; its `end` is shown as well."""

    def tick(self) -> None:
        """Called about once a second while nothing happens."""

    def close(self) -> None:
        """Leaves the terminal as it was; called exactly once, whatever happened."""


class Silent:
    """Shows nothing: `wait`, and `--json` where only the end counts."""

    def begin(self, status: Status) -> None:
        """Shows nothing."""

    def show(self, event: Event) -> None:
        """Shows nothing."""

    def tick(self) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Has nothing to put back."""


class Follower:
    """Follows one run until it is finished.

    Args:
        session: how to connect.
        display: what to show.
        timeout_s: give up after so long (the run goes on).
        ask: called once, when the watch is known to be open: what `stop` asks for then.
        reconnect: wait for a soakd that went away.
        until: whether a status is what is waited for; a finished run always is.
    """

    def __init__(
        self,
        session: Session,
        display: Display,
        *,
        timeout_s: float | None = None,
        ask: Callable[[Client, str], None] | None = None,
        reconnect: bool = True,
        until: Callable[[Status], bool] | None = None,
    ) -> None:
        self._session = session
        self._display = display
        self._ask = ask
        self._reconnects = reconnect
        self._until = until
        self._timeout_s = timeout_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._run_id: str | None = None
        # soakd is away and the user was told.
        self._mourning = False

    def follow(self, run_id: str | None) -> Status:
        """Returns the final status of the run (None = my active or latest one).

        Raises:
            Detached: the user pressed Ctrl-C.
            Failure: soakd refused, stayed away, or `timeout_s` passed.
        """
        self._run_id = run_id
        try:
            return self._follow_through_restarts()
        except KeyboardInterrupt:
            raise Detached(detached_text(self._run_id)) from None
        finally:
            self._display.close()

    def _follow_through_restarts(self) -> Status:
        client = self._session.connect()
        while True:
            try:
                with client:
                    return self._follow_on(client)
            except ConnectionLost as lost:
                if self._run_id is None or not self._reconnects:
                    raise
                client = self._reconnect(lost)

    def _follow_on(self, client: Client) -> Status:
        status = client.call("run.status", {"run": self._run_id})
        self._run_id = str(status["id"])
        self._display.begin(status)
        if self._is_end(status):
            return status
        for event in client.stream("run.watch", {"run": self._run_id}, tick_s=TICK_S):
            # Whatever comes first, event or tick, the watch is open by then.
            self._ask_once(client)
            if event is None:
                self._display.tick()
                self._check_time()
                continue
            self._mourning = False
            self._display.show(event)
            if event.get("kind") in _WITH_STATUS and self._is_end(event.get("data") or {}):
                return dict(event.get("data") or {})
            self._check_time()
        status = client.call("run.status", {"run": self._run_id})
        if not self._is_end(status):
            # A soakd that leaves for a restart ends its watches, not its runs.
            raise ConnectionLost("cannot go on: soakd ended the watch")
        return status

    def _is_end(self, status: Status) -> bool:
        if status.get("state") == "finished":
            return True
        return self._until is not None and self._until(status)

    def _ask_once(self, client: Client) -> None:
        ask, self._ask = self._ask, None
        if ask is not None:
            ask(client, str(self._run_id))

    def _check_time(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            awaited = "finished" if self._until is None else "ready"
            raise Failure(
                "timeout",
                f"cannot wait longer: {self._run_id} is not {awaited} after {self._timeout_s:g} s",
                advice=[f"the soak goes on: soakctl watch {self._run_id}"],
            )

    def _reconnect(self, lost: ConnectionLost) -> Client:
        if not self._mourning:
            self._session.note(
                f"lost soakd; the soak goes on, trying again for {RECONNECT_S:.0f} s"
            )
        self._mourning = True
        give_up = time.monotonic() + RECONNECT_S
        while True:
            self._check_time()
            time.sleep(_RETRY_EVERY_S)  # noqa: TID251 - a blocking client; nothing says when soakd is back
            try:
                return self._session.connect()
            except Failure as failure:
                # One that takes its runs over listens already, and answers when that is done.
                if failure.code not in _NOT_YET or time.monotonic() >= give_up:
                    raise failure from lost


def detached_text(run_id: str | None) -> str:
    """Says what a Ctrl-C did not end, and how to come back to it."""
    return f"detached; the soak goes on: soakctl watch {run_id}" if run_id else "interrupted"


def submit(session: Session, method: str, params: Params) -> dict[str, Any]:
    """Asks soakd to begin something that goes on without us.

    Raises:
        Detached: the user pressed Ctrl-C before soakd had said what it did.
    """
    with session.connect() as client:
        try:
            return client.call(method, params)
        except KeyboardInterrupt:
            text = "interrupted; soakd may have begun it all the same: soakctl list"
            raise Detached(text) from None


@contextmanager
def detachable(run_id: str) -> Iterator[None]:
    """What stands between the start of a run and its following: Ctrl-C only detaches there too."""
    try:
        yield
    except KeyboardInterrupt:
        raise Detached(detached_text(run_id)) from None
