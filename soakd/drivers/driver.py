"""What a driver is: everything that soakd asks of one kind of node program.

Types only. A driver is a `Driver`; what it says of files and of printed words is data (`Files`,
`Words`), what it does is text in and text out (`edit_config`) and the calls of its `Api`. The shim
touches the files, `soakd.node` proves whose listener is spoken to. How to write one:
`docs/drivers.md`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar, NamedTuple, Protocol

from soakd.core import readiness
from soakd.core.errors import NodeError
from soakd.core.plan import CALL_TIMEOUT_S, NodePlan, Plan

MAX_FOLDER_BYTES = 20 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The files of the program's folder, by name.

    Attributes:
        program: the executable at the top of the folder; run as `./program`.
        config: its configuration, at the top too; made where there is none.
        program_advice: what to do where there is no program, for people.
        exclude: paths of the folder that are not copied.
        max_folder_bytes: a larger folder is refused.
        locks: files of the data dir that a copy must not have.
        secrets: files of the data dir whose values no bundle may hold.
        keys: the one of them that is the node's identity; None: identities are not leased.
        token: the file of the data dir with the API's token; None: the API asks for none.
    """

    program: str
    config: str
    program_advice: str = "build the program"
    exclude: tuple[str, ...] = ()
    max_folder_bytes: int = MAX_FOLDER_BYTES
    locks: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    keys: str | None = None
    token: str | None = None

    @property
    def by_content(self) -> tuple[str, ...]:
        """What is copied by content where it is a link: it must not change under a run."""
        return self.program, self.config


def _never(_line: str) -> bool:
    return False


def _nothing(_line: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What the lines mean that a node prints; each takes a line without its end.

    Attributes:
        marks: what to look for before a line is looked at: a line without any is passed over.
        is_panic: whether a line of stderr announces a panic; gates count these.
        is_fatal: whether the process ends after this line of stderr.
        explain_failure: helping words for a fatal line; None for an unknown one.
        log_trouble: the kind of event that a line of the log is; None for any other line.
        began_anew: the kind of event that it is when `Snapshot.uptime_s` falls in one process.
        simulation_mark: what a simulated node prints within its first 4 KiB.
    """

    marks: tuple[bytes, ...] = ()
    is_panic: Callable[[str], bool] = _never
    is_fatal: Callable[[str], bool] = _never
    explain_failure: Callable[[str], str | None] = _nothing
    log_trouble: Callable[[str], str | None] = _nothing
    began_anew: str = "loop_began_anew"
    simulation_mark: bytes | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a configuration; `old` is None if the key was absent."""

    node: str
    key: str
    old: str | int | bool | None
    new: str | int | bool

    @property
    def text(self) -> str:
        """For people: `a: api.port = 20001 (was 17835)`."""
        was = "" if self.old is None else f" (was {self.old!r})"
        return f"{self.node}: {self.key} = {self.new!r}{was}"

    def to_dict(self) -> dict[str, Any]:
        """The edit as `status`, `plan.json` and the wire carry it."""
        return {"node": self.node, "key": self.key, "old": self.old, "new": self.new}


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The edited configuration of one node.

    `data_dir` is relative to the node folder; `identity` are the files that make up the identity,
    relative to the node folder; `status_window_s` is how often the node makes its status anew.
    """

    text: str
    edits: tuple[Edit, ...]
    data_dir: str
    identity: tuple[str, ...]
    status_window_s: float

    def to_dict(self) -> dict[str, Any]:
        """What a later soakd needs of it, text and edits excepted."""
        return {
            "data_dir": self.data_dir,
            "identity": list(self.identity),
            "status_window_s": self.status_window_s,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NodeConfig:
        """Reads what `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: it did not write that.
        """
        window_s = float(data["status_window_s"])
        return cls("", (), str(data["data_dir"]), tuple(data["identity"]), window_s)

    def file(self, name: str) -> str:
        """Path of a file of the data dir, relative to the node folder."""
        return str(PurePosixPath(self.data_dir) / name)


class Answer(Protocol):
    """What a node answered: HTTP status and the whole body."""

    status: int
    body: bytes


class Http(Protocol):
    """Verified connections to one node (`soakd.edge.node_api.NodeApi`)."""

    async def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None,
        body: dict[str, Any] | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        aside: bool = False,
    ) -> Answer:
        """Sends one request and returns the answer, whatever its status."""


class Snapshot(NamedTuple):
    """A node's status: the raw body, and for how long its service loop has run.

    A number that stands still says that the loop does; one that falls, that it began anew.
    """

    body: str
    uptime_s: int


@dataclass(frozen=True, slots=True)
class Sources:
    """What a node knows of a file: the raw body and the source ids in it, in order."""

    body: str
    source_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeywordAnswer:
    """Answer of a keyword publish or search; `keyword_id` is None where the answer has none."""

    body: str
    keyword_id: str | None


@dataclass(frozen=True, slots=True)
class KeywordHits:
    """What a node knows of a keyword: the raw body, file id and origin of each hit."""

    body: str
    hits: tuple[tuple[str, str], ...]


ReadToken = Callable[[], Awaitable[str]]
OnToken = Callable[[str], Awaitable[None]]


class Api(ABC):
    """The calls that a soak makes on one node.

    Every method raises `NodeError` when the node's answer cannot be used, and lets the HTTP layer's
    own errors pass. A call that only some scenarios make may be left out by a driver that does not
    name those scenarios.

    Attributes:
        routes: by the name of a call what its trouble is booked under, such as `/status`; a call
            that is not named there is booked under its own name.
    """

    routes: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    async def readiness(self) -> readiness.Answer:
        """What the node says about being ready; asked until all nodes are."""

    @abstractmethod
    async def status_snapshot(self, *, aside: bool = False) -> Snapshot:
        """The status of a node that is ready.

        Args:
            aside: no round waits for it, so that it must not make one wait.
        """

    async def publish_source(self, file_id: str, size_bytes: int) -> str:
        """Makes the node a source of a file; returns the raw answer."""
        raise _lacks("publish_source", file_id, size_bytes)

    async def search_sources(self, file_id: str, size_bytes: int) -> str:
        """Makes the node search for sources; returns the raw answer."""
        raise _lacks("search_sources", file_id, size_bytes)

    async def sources(self, file_id: str) -> Sources:
        """The sources of a file that the node knows now."""
        raise _lacks("sources", file_id)

    async def publish_keyword(
        self, query: str, file_id: str, size_bytes: int, filename: str, file_type: str | None
    ) -> KeywordAnswer:
        """Publishes a file under a word."""
        raise _lacks("publish_keyword", query, file_id, size_bytes, filename, file_type)

    async def search_keyword(self, query: str, keyword_id: str | None) -> KeywordAnswer:
        """Makes the node search for a word, by its id if that is known."""
        raise _lacks("search_keyword", query, keyword_id)

    async def keyword_hits(self, keyword_id: str) -> KeywordHits:
        """What the node knows of a keyword; the origin `network` is what proves the network."""
        raise _lacks("keyword_hits", keyword_id)

    async def look(self, what: str) -> str:
        """The raw answer of a look of the self-test (`scenarios.dht_selftest`) by its name."""
        raise _lacks("look", what)


def _lacks(call: str, *parameters: object) -> NodeError:
    said = ", ".join(map(repr, parameters))
    return NodeError("bad_call", f"cannot call {call}({said}): the node's driver does not have it")


class Driver(Protocol):
    """One kind of node program; what are properties here may be plain attributes of a class."""

    @property
    def name(self) -> str:
        """What a plan calls it, `driver = "…"`."""

    @property
    def files(self) -> Files:
        """The program's files."""

    @property
    def words(self) -> Words:
        """What it prints."""

    @property
    def scenarios(self) -> frozenset[str]:
        """Those whose calls its `api` has."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that every node gets; a plan may override them."""

    def config_problem(self, data: bytes) -> str | None:
        """What is wrong with a source's configuration, after `cannot use <path>: `; None: nothing.

        Asked by soakctl, as the user, before a plan is submitted.
        """

    def edit_config(self, text: str | None, plan: Plan, node: NodePlan, run: str) -> NodeConfig:
        """Sets what a soak needs in a node's configuration, and checks that it reads back.

        Called in a thread: a user's text may take its time to parse.

        Args:
            text: the source's configuration; None where there is none.
            plan: the run's plan; with `keep_config` only what would collide with another node is
                set.
            node: the node the configuration is for: its API must listen on that host and port.
            run: the run's id, such as `r7`.

        Raises:
            NodeError: `bad_config`; the text makes no sense.
        """

    def session_name(self, plan: Plan, node: str, run: str) -> str | None:
        """A name outside of this host that no other node may have at the same time; None: none."""

    def api(self, http: Http, read_token: ReadToken, on_token: OnToken) -> Api:
        """The calls of one node.

        Args:
            http: connections that were verified to end at the node itself.
            read_token: reads the file `files.token` now; raises `NodeError` `no_token`.
            on_token: must hear of each new token before it is sent.
        """


def node_environment(
    added: Mapping[str, str], plan: Plan, *, nonce: str, user: Mapping[str, str]
) -> dict[str, str]:
    """The environment of a node, built rather than inherited.

    Args:
        added: the driver's.
        plan: its `node_env` adds to and overrides the built values, the user's own and the nonce
            excepted.
        nonce: the run's label in `/proc/<pid>/environ`.
        user: HOME, USER and LOGNAME of the submitter.
    """
    base = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC", "NO_COLOR": "1"}
    return {**base, **added, **dict(plan.node_env), **user, "SOAK_RUN_NONCE": nonce}
