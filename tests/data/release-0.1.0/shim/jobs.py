"""A verb that takes long: driven in slices between everything else, one at a time."""

from __future__ import annotations

import time
import traceback
from collections.abc import Generator

from soakd.shim import system
from soakd.shim.errors import VerbError
from soakd.shim.link import Link

SLICE_S = 0.01

Result = dict[str, object]
Job = Generator[None, None, Result]


class Jobs:
    """The place of the one job under way."""

    def __init__(self) -> None:
        self._now: tuple[object, Link, str, Job] | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self._now is not None

    def start(self, request_id: object, link: Link, verb: str, job: Job) -> None:
        """Take on a job; `link` gets its answer.

        Raises:
            VerbError: another one is under way.
        """
        if self._now is not None:
            raise VerbError("busy", f"cannot {verb}: another copy or sweep is under way")
        self._now = (request_id, link, verb, job)

    def work(self) -> None:
        """Go on with the job for one slice, and answer when it is done."""
        if self._now is None:
            return
        request_id, link, verb, job = self._now
        until = time.monotonic() + SLICE_S
        try:
            while time.monotonic() < until:
                next(job)
        except StopIteration as done:
            self._now = None
            link.send({"id": request_id, "ok": done.value})
        except VerbError as exc:
            self._now = None
            link.refuse(request_id, exc)
        except Exception as exc:  # noqa: BLE001 - answered and written down; the nodes go on
            self._now = None
            system.complain(traceback.format_exc())
            link.refuse(request_id, VerbError("internal", f"cannot {verb}: {exc!r}"))

    def drop(self, code: str, cause: str) -> None:
        """Give up the job under way, if there is one; it is answered with the cause."""
        if self._now is not None:
            request_id, link, verb, job = self._now
            self._now = None
            job.close()
            link.refuse(request_id, VerbError(code, f"cannot {verb}: {cause}"))
