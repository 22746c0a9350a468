"""The main loop: who is woken by what, and the timers that hold when soakd is away."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
import traceback

from soakd.shim import link as links
from soakd.shim import protocol, system
from soakd.shim.errors import VerbError
from soakd.shim.jobs import Jobs, Result
from soakd.shim.journal import Journal
from soakd.shim.ladder import Ladder
from soakd.shim.output import Outputs
from soakd.shim.processes import LAST_READS, Node, Processes
from soakd.shim.spec import Spec
from soakd.shim.stderr import Line
from soakd.shim.verbs import Times, Verbs

TICK_S = 1.0
"""Suspend does not count for select(), and signals may coalesce: look again this often."""
ASKED = {signal.SIGINT: "SIGINT", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}


class Shim:
    """The process's one object; see `soakd.shim.verbs.Host` for what verbs use of it."""

    def __init__(self, spec: Spec) -> None:
        self.run = spec.run
        self.out = spec.out
        self.processes = Processes(self._node_exited)
        self._spec = spec
        self._selector = selectors.DefaultSelector()
        self._journal = Journal(spec.journal)
        self._verbs = Verbs(self)
        self._ladder = Ladder(self.processes, 0.0, self.fact)
        self._ladder_due_s: float | None = None
        self._link: links.Link | None = None
        self._jobs = Jobs()
        self._outputs: Outputs | None = None
        self._asked: str | None = None
        self._has_begun = False
        self._latest_end_s = 0.0
        self._orphan_grace_s = 0.0
        self._alone_since_s: float | None = None
        self._ends_itself = False
        self._status: int | None = None
        self._listen()
        self._catch_signals()
        self._selector.register(0, selectors.EVENT_READ, self._stdin)

    # What the verbs use.

    @property
    def stopping(self) -> bool:
        """Whether the ladder has begun."""
        return self._ladder.reason is not None

    def fact(self, event: str, facts: dict[str, object]) -> None:
        """Journal a fact, then tell soakd."""
        self._tell(self._journal.record(event, facts))

    def begun(self, times: Times, out_max_bytes: int) -> None:
        """From now on the run exists, and stdin says nothing any more."""
        self._has_begun = True
        self._latest_end_s = times.latest_end_s
        self._orphan_grace_s = times.orphan_grace_s
        self._ladder = Ladder(self.processes, times.stop_grace_s, self.fact)
        self._outputs = Outputs(self.out, out_max_bytes, self.fact)
        self._selector.unregister(0)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.close(null)

    def watch_stderr(self, node: Node) -> None:
        """Read a node's stderr from now on."""
        if node.stderr is not None:
            self._selector.register(node.stderr, selectors.EVENT_READ, lambda _: self._stderr(node))

    def move_latest_end(self, boot_s: float) -> None:
        """Set another latest end."""
        self._latest_end_s = boot_s

    def stop(self, reason: str) -> None:
        """Begin the ladder; a copy under way is given up."""
        if not self.stopping:
            self.fact("stopping", {"reason": reason})
            self._ladder.start(reason, system.boot_now())
            self._jobs.drop("stopping", "the run is being stopped")

    def end(self) -> None:
        """Leave the loop; what is queued for soakd is still sent."""
        self._status = 0

    # The loop.

    def serve(self) -> int:
        """Work until the end; the exit status."""
        failures = 0
        while self._status is None:
            try:
                for key, mask in self._selector.select(self._patience()):
                    key.data(mask)
                self._tick()
            except Exception:  # noqa: BLE001 - the holder of the nodes must not die of a bug
                system.complain(traceback.format_exc())
                failures += 1
                if failures > 3:
                    self._status = 1
                else:
                    self.stop("internal error of the shim, see runner.out")
        self._say_goodbye()
        return self._status

    def _say_goodbye(self) -> None:
        if self._status != 0:
            self.processes.kill_groups()
            self.processes.kill_children()
        if self._outputs is not None:
            self._outputs.tell_all(system.boot_now())
        if self._has_begun:
            self.fact("ended", {"status": self._status})
        if self._link is not None:
            self._link.flush_and_close()

    def _patience(self) -> float | None:
        if self._jobs.busy:
            return 0.0
        if self._outputs is None:
            return None
        due_s = self._outputs.due_s
        if self._ladder_due_s is not None:
            due_s = min(due_s, self._ladder_due_s)
        return min(TICK_S, max(0.0, due_s - system.boot_now()))

    def _tick(self) -> None:
        if self._outputs is None:
            self._status = 0 if self._asked else self._status
        else:
            self._outputs.look(system.boot_now())
            self.processes.collect()
            self._hold()
        self._jobs.work()

    def _hold(self) -> None:
        if self._asked and not self._ends_itself:
            self._ends_itself = True
            self.stop(self._asked)
        self._check_timers()
        if self.stopping:
            self._ladder_due_s = self._ladder.step(system.boot_now())
        if self._ends_itself and self._ladder.clear:
            self._status = 0

    def _check_timers(self) -> None:
        now_s = time.monotonic()
        if self._link is None and self._alone_since_s is None:
            self._alone_since_s = now_s
        alone_s = 0.0 if self._alone_since_s is None else now_s - self._alone_since_s
        if self._alone_since_s is not None and alone_s >= self._orphan_grace_s:
            if not self._ends_itself:
                self._ends_itself = True
                self.fact("orphan", {"alone_s": round(alone_s, 1)})
                self.stop("orphan")
        elif system.boot_now() >= self._latest_end_s:
            self.stop("latest_end")

    # Sources of events.

    def _listen(self) -> None:
        self._listener = socket.socket(fileno=self._spec.socket)
        self._listener.setblocking(False)
        self._listener.listen(4)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _catch_signals(self) -> None:
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._selector.register(read, selectors.EVENT_READ, lambda _: os.read(read, 4096))
        # The wake-up pipe only works for signals that have a Python handler.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in ASKED:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: object) -> None:
        self._asked = ASKED[signal.Signals(number)]

    def _stdin(self, _mask: int) -> None:
        if os.read(0, 64) == b"":
            self._status = 0

    def _accept(self, _mask: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if links.peer_uid(sock) not in (0, self._spec.soakd_uid):
            sock.close()
            return
        if self._link is not None:
            self._lost(self._link)
        self._alone_since_s = None
        self._link = links.Link(sock, self._selector, self._request, self._lost)
        self._tell(self._hello())

    def _lost(self, link: links.Link) -> None:
        link.close()
        if link is self._link:
            self._link = None
            self._jobs.drop("lost", "the connection is gone")

    def _hello(self) -> Result:
        left = self._ladder.left
        return {
            "event": "hello",
            "protocol": protocol.PROTOCOL,
            "run": self.run,
            "nonce": self._spec.nonce,
            "pid": os.getpid(),
            "ticks": system.start_ticks("self"),
            "begun": self._has_begun,
            "latest_end_boot_s": self._latest_end_s,
            "nodes": {name: node.describe() for name, node in self.processes.nodes.items()},
            "stopping": self._ladder.rung,
            "stopped": None if left is None else {"left": left, "reason": self._ladder.reason},
            "journal_seq": self._journal.seq,
        }

    # Requests.

    def _request(self, message: Result) -> None:
        link = self._link
        if link is None:
            return
        request_id, verb = message.get("id"), message.get("verb")
        try:
            result = self._verbs.handle(verb if isinstance(verb, str) else "", message)
            if isinstance(result, dict):
                link.send({"id": request_id, "ok": result})
                return
            self._jobs.start(request_id, link, str(verb), result)
        except VerbError as exc:
            link.refuse(request_id, exc)
        except protocol.FrameError as exc:
            link.refuse(request_id, VerbError("too_big", str(exc)))
        except Exception as exc:  # noqa: BLE001 - answered and written down; the nodes go on
            system.complain(traceback.format_exc())
            link.refuse(request_id, VerbError("internal", f"cannot {verb}: {exc!r}"))

    # What nodes do.

    def _node_exited(self, node: Node) -> None:
        # "Error: …" is on stderr before the exit: soakd should read them in that order.
        for _ in range(LAST_READS):
            if not self._stderr(node):
                break
        if self._outputs is not None:
            self._outputs.tell_all(system.boot_now())
        self.fact("node_exited", {"node": node.name, "pid": node.pid, **(node.ended or {})})

    def _stderr(self, node: Node) -> bool:
        """Read once; whether there may be more."""
        if node.stderr is None:
            return False
        try:
            lines = node.read_stderr()
        except BlockingIOError:
            return False
        if lines is None:
            self._selector.unregister(node.stderr)
            self._tell_lines(node, node.close_stderr())
            return False
        self._tell_lines(node, lines)
        return True

    def _tell_lines(self, node: Node, lines: list[Line]) -> None:
        for line in lines:
            if self._link is None or self._link.slow:
                return
            message: Result = {"event": "stderr", "node": node.name, "line": line.text}
            extra = {"cut": True} if line.cut else {}
            self._tell(message | extra | ({"dropped": line.dropped} if line.dropped else {}))

    def _tell(self, message: Result) -> None:
        if self._link is not None:
            self._link.send(message)
