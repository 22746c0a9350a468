"""What soakd may ask for: one method per verb, named as on the wire.

The verbs act on the run's folders and nodes; what concerns the loop (begin's timers, stop, end,
the sliced copy) is reported back to the `Host`.
"""

from __future__ import annotations

import binascii
import os
from typing import NamedTuple, Protocol

from soakd.shim import files, output, params, protocol, roots
from soakd.shim import launch as launching
from soakd.shim.copying import Order, TreeCopy
from soakd.shim.errors import VerbError, from_os
from soakd.shim.jobs import Job, Result
from soakd.shim.params import Params
from soakd.shim.processes import Node, Processes
from soakd.shim.sweep import Sweep, order_from


class Times(NamedTuple):
    """The times of `begin`: an instant of the boot clock, and two durations."""

    latest_end_s: float
    orphan_grace_s: float
    stop_grace_s: float


class Host(Protocol):
    """What the verbs need of the main loop."""

    run: str
    out: dict[str, int]
    processes: Processes

    @property
    def stopping(self) -> bool:
        """Whether the ladder has begun."""

    def fact(self, event: str, facts: dict[str, object]) -> None:
        """Journal a fact, then tell soakd."""

    def begun(self, times: Times, out_max_bytes: int) -> None:
        """From now on the run exists."""

    def watch_stderr(self, node: Node) -> None:
        """Read a node's stderr from now on."""

    def move_latest_end(self, boot_s: float) -> None:
        """Set another latest end."""

    def stop(self, reason: str) -> None:
        """Begin the ladder."""

    def end(self) -> None:
        """Leave the loop after the reply."""


class Verbs:
    """The verbs of one run."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._root: roots.Root | None = None
        self._folders: dict[str, str] = {}
        self._token_files: dict[str, str] = {}
        self._replacement = files.Replacement()

    def handle(self, verb: str, request: Params) -> Result | Job:
        """The result of a verb, or for `stage` and `sweep` the work to be driven in slices.

        Raises:
            VerbError: it was refused or failed.
        """
        if verb not in protocol.VERBS:
            raise VerbError("unknown_verb", f"cannot do {verb!r}: this shim has no such verb")
        if self._root is None and verb not in ("begin", "end", "sweep"):
            raise VerbError("not_begun", f"cannot {verb}: begin was not sent")
        if self._host.stopping and verb in ("begin", "stage", "launch"):
            raise VerbError("stopping", f"cannot {verb}: the run is being stopped")
        method = getattr(self, f"_do_{verb}")
        result: Result | Job = method(request)
        return result

    def _do_begin(self, request: Params) -> Result:
        if self._root is not None:
            raise VerbError("begun", "cannot begin: it has begun already")
        names = ("latest_end_boot_s", "orphan_grace_s", "stop_grace_s")
        times = Times(*(params.number(request, name) for name in names))
        out_max_bytes = output.DEFAULT_BYTES
        if request.get("out_max_bytes") is not None:
            out_max_bytes = max(output.MIN_BYTES, params.whole(request, "out_max_bytes"))
        if "token_files" in request:
            named = params.table(request, "token_files")
            self._token_files = {node: _absolute(path) for node, path in named.items()}
        if "run_root" in request:
            folder = params.text(request, "run_folder")
            path = _absolute(params.text(request, "run_root"))
            self._root = roots.open_run_root(path, self._host.run, folder)
        else:
            self._root = roots.open_nodes_root(_absolute(params.text(request, "nodes_root")))
        self._host.begun(times, out_max_bytes)
        self._host.fact(
            "begun",
            {"shim": os.getpid(), "root": self._root.path, "latest_end_boot_s": times.latest_end_s},
        )
        return {"root": self._root.path}

    def _do_stage(self, request: Params) -> Job:
        name = params.text(request, "node")
        if name not in self._host.out:
            raise VerbError("no_such_node", f"cannot stage {name}: no output was given for it")
        node = self._host.processes.nodes.get(name)
        if node is not None and (node.running or node.zombie):
            raise VerbError("busy", f"cannot stage {name}: its process {node.pid} still lives")
        folder = params.text(request, "dir")
        if len(files.split(folder)) != 1 or folder.startswith("."):
            raise VerbError("bad_path", f"cannot stage into {folder!r}: one plain name is wanted")
        if self._folders.setdefault(folder, name) != name:
            raise VerbError("busy", f"cannot stage {name}: {folder} is another node's")
        order = Order(
            source=_absolute(params.text(request, "source")),
            exclude=frozenset(params.texts(request, "exclude")),
            by_content=frozenset(params.texts(request, "by_content")),
            max_bytes=params.whole(request, "max_bytes"),
        )
        return self._stage(name, folder, order)

    def _stage(self, name: str, folder: str, order: Order) -> Job:
        root = self._need_root()
        old = self._host.processes.nodes.pop(name, None)
        if old is not None:
            os.close(old.folder)
        files.remove(root.fd, folder)
        try:
            os.mkdir(folder, 0o700, dir_fd=root.fd)
            fd = os.open(folder, files.FOLDER, dir_fd=root.fd)
        except OSError as exc:
            raise from_os(exc, f"make {root.path}/{folder}") from None
        try:
            copy = TreeCopy(order, fd)
            yield from copy.run()
        except BaseException:
            os.close(fd)
            raise
        self._host.processes.nodes[name] = Node(name, fd, self._host.out[name])
        return {"bytes": copy.bytes, "files": copy.files, "sha256": copy.sha256}

    def _do_read(self, request: Params) -> Result:
        node = self._node(request)
        offset, length = params.whole(request, "offset"), params.whole(request, "length")
        return files.read(node.folder, params.text(request, "path"), offset, length)

    def _do_read_token(self, request: Params) -> Result:
        name = params.text(request, "node")
        if name not in self._token_files:
            raise VerbError("no_such_node", f"cannot read a token of {name!r}: begin named none")
        return files.read_token(self._token_files[name])

    def _do_replace(self, request: Params) -> Result:
        node, path = self._node(request), params.text(request, "path")
        total, mode = params.whole(request, "total"), params.whole(request, "mode")
        try:
            piece = binascii.a2b_base64(params.text(request, "data"), strict_mode=True)
        except ValueError:
            raise VerbError("bad_params", "cannot read parameter data: it is not base64") from None
        key, offset = (node.name, path, total), params.whole(request, "offset")
        data = self._replacement.add(key, offset, piece)
        if data is not None:
            files.replace(node.folder, path, data, mode)
        return {"done": data is not None}

    def _do_remove(self, request: Params) -> Result:
        return {"removed": files.remove(self._node(request).folder, params.text(request, "path"))}

    def _do_list(self, request: Params) -> Result:
        node, path = self._node(request), params.text(request, "path")
        return files.list_folder(node.folder, path, params.text(request, "after", ""))

    def _do_launch(self, request: Params) -> Result:
        node = self._node(request)
        if node.running or node.zombie:
            raise VerbError("busy", f"cannot launch {node.name}: process {node.pid} still lives")
        argv = params.texts(request, "argv")
        if not argv or not argv[0].startswith("./"):
            raise VerbError("bad_params", "cannot launch: argv must begin with ./<program>")
        program, script = launching.program_facts(node.folder, argv[0][2:])
        limits = launching.limits_from(params.limits(request, "rlimits"))
        env = params.table(request, "env")
        launched = launching.launch(launching.Launch(node.folder, node.out, argv, env, limits))
        node.started(launched)
        node.program, node.script = program, script
        self._host.watch_stderr(node)
        facts: Result = {"node": node.name, "pid": node.pid, "ticks": node.ticks}
        # For a sweep, should this shim not live to see the end.
        identity = {"dev": program.st_dev, "ino": program.st_ino}
        self._host.fact("node_started", {**facts, "program": identity})
        proof = launching.evidence(launched.pid, node.folder, program)
        return {"pid": node.pid, "ticks": node.ticks, "script": script, **proof}

    def _do_inspect(self, request: Params) -> Result:
        node = self._node(request)
        if not node.running or node.pid is None or node.program is None:
            raise VerbError("not_running", f"cannot inspect {node.name}: it does not run")
        proof = launching.evidence(node.pid, node.folder, node.program)
        return {**launching.inspect(node.pid), "script": node.script, **proof}

    def _do_latest_end(self, request: Params) -> Result:
        boot_s = params.number(request, "boot_s")
        self._host.move_latest_end(boot_s)
        self._host.fact("latest_end", {"latest_end_boot_s": boot_s})
        return {}

    def _do_stop(self, request: Params) -> Result:
        self._host.stop(params.text(request, "reason"))
        return {}

    def _do_sweep(self, request: Params) -> Job:
        if self._root is not None:
            raise VerbError("begun", "cannot sweep: this shim holds a run of its own")
        return self._sweep(Sweep(order_from(request)))

    def _sweep(self, sweep: Sweep) -> Job:
        result = yield from sweep.run()
        self._host.fact("swept", result)
        return result

    def _do_end(self, _request: Params) -> Result:
        living = self._host.processes.living_children()
        if living:
            raise VerbError("busy", f"cannot end: processes {living[:20]} still live; stop first")
        self._host.end()
        return {}

    def _node(self, request: Params) -> Node:
        name = params.text(request, "node")
        try:
            return self._host.processes.nodes[name]
        except KeyError:
            raise VerbError("no_such_node", f"cannot use node {name!r}: it is not staged") from None

    def _need_root(self) -> roots.Root:
        if self._root is None:
            raise AssertionError("begin has not been handled")
        return self._root


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise VerbError("bad_params", f"cannot use path {path!r}: it must be absolute")
    return path
