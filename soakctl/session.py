"""What every command is given: how to reach soakd, and the three ways to say something.

Results go to stdout (as text, or with `--json` as one JSON value per line), the rest to stderr.
"""

from __future__ import annotations

import os
import sys

from soakctl import streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TextIO

    from soakctl.client import Client


class Session:
    """One invocation of soakctl.

    Attributes:
        json: the user wants JSON on stdout, and nothing else there.
        environ: the environment of the command.
    """

    def __init__(
        self,
        *,
        socket: str | None,
        json: bool,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.socket = socket
        self.json = json
        self.environ = environ
        for stream in (sys.stdout, sys.stderr):
            _never_fail_to_encode(stream)

    def connect(self) -> Client:
        """Opens a new connection that has said hello; use it as a context manager.

        Raises:
            Failure: no soakd, not allowed, another version.
        """
        # Verbs without a daemon do without the 15 ms that this takes to load.
        from soakctl import sockets
        from soakctl.client import Client

        uid = os.geteuid()
        choice = sockets.choose(self.socket, self.environ, uid=uid)
        client = Client(sockets.connect(choice, uid=uid, environ=self.environ))
        try:
            client.hello()
        except BaseException:
            client.close()
            raise
        return client

    def say(self, text: str) -> None:
        """Prints a result for people."""
        print(text, file=sys.stdout, flush=True)

    def emit(self, value: Any) -> None:
        """Prints a result for programs: one line of JSON."""
        import json

        print(json.dumps(value, ensure_ascii=False), file=sys.stdout, flush=True)

    def note(self, text: str) -> None:
        """Prints what is not the result: hints, warnings, progress."""
        streams.tell(text)

    def is_live(self) -> bool:
        """Whether stdout is a terminal that can redraw a line."""
        return not self.json and sys.stdout.isatty() and self.environ.get("TERM", "dumb") != "dumb"

    def colours(self) -> bool:
        """Whether results may be coloured: on a terminal, unless NO_COLOR is set to anything."""
        return self.is_live() and not self.environ.get("NO_COLOR")


def _never_fail_to_encode(stream: TextIO) -> None:
    # A label or path that the locale cannot show must not end a command.
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
