"""What the methods of the wire return, and what notifications carry.

These types are documentation that mypy checks: nothing validates results at run time, since a
client takes what its own soakd says. `StartRequest` and `HelloRequest` stand here too, so that the
shapes of a verb are in one place.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, TypedDict

EventKind: TypeAlias = Literal["state", "progress", "event", "rung", "gap", "end"]


class HelloRequest(TypedDict):
    """First call of a connection; `protocol` is the client's major version."""

    client: str
    protocol: int


class HelloResult(TypedDict):
    """Who answers, and what the caller may do here."""

    server: str
    protocol: int
    minor: int
    mode: Literal["system", "user"]
    uid: int
    member: bool
    admin: bool


class StartRequest(TypedDict, total=False):
    """`plan` as `core.plan.plan_to_dict` writes it; `sha256`: node name -> digest of program."""

    plan: dict[str, object]
    sha256: dict[str, str]


class StartResult(TypedDict):
    """What `start` knows when it returns; `expected_start` is UTC RFC 3339 or None."""

    id: str
    state: str
    position: int | None
    expected_start: str | None
    promised: bool
    reason: str | None


PlaceResult = StartResult
"""Where a queued run stands after `queue.hold`, `queue.release` and `queue.top`."""


class PublicRun(TypedDict):
    """What anyone in group soak may see of another's run: an allow-list."""

    id: str
    owner: str
    label: str | None
    state: str
    created_at: str
    started_at: str | None
    ended_at: str | None
    reason: str | None


class QueueEntry(PublicRun):
    """One run with a slot or in the queue, for anyone; no position: it has a slot."""

    position: int | None
    expected_start: str | None
    promised: bool
    ends_by: str | None
    soak_hours: float
    priority: int


class QueueResult(TypedDict):
    """Runs with a slot first, then the queue in order."""

    runs: list[QueueEntry]
    draining: bool


class DelayResult(TypedDict):
    """By how much an extension delays another run."""

    id: str
    delay_s: float


class ExtendResult(TypedDict):
    """What an extension does, or would do."""

    id: str
    by_s: float
    longest_s: float
    duration_s: float
    applied: bool
    effect: list[DelayResult]


class SoakResult(TypedDict):
    """Rounds on kept nodes that have been begun."""

    id: str
    measurement: int
    first_round: int
    rounds_wanted: int | None
    deadline_at: str | None
    notes: list[str]


class LabelResult(TypedDict):
    """The label that a run has now."""

    id: str
    label: str | None


class DrainResult(TypedDict):
    """Whether runs are started, and how many go on and wait."""

    draining: bool
    running: int
    queued: int


class CauseResult(TypedDict):
    """Why a run ended as it did."""

    code: str
    text: str
    node: str | None
    at: str | None


class RoundsResult(TypedDict):
    """Counted rounds; total is the sum of the five outcomes, some of which are also prestored."""

    total: int
    hit: int
    late: int
    miss: int
    error: int
    skipped: int
    prestored: int


class RateResult(TypedDict):
    """A share of `n` rounds; `value` is None when n is 0."""

    value: float | None
    n: int


class NodeExit(TypedDict, total=False):
    """How a node ended: one of the two is None, both if its end was not seen."""

    code: int | None
    signal: int | None


class NodeResult(TypedDict):
    """One node of a run; `trouble` has a sentence for each thing that is wrong with it now."""

    name: str
    pid: int | None
    state: str
    exit: NodeExit | None
    trouble: list[str]


GapResult = TypedDict("GapResult", {"from": str, "to": str, "s": float, "why": str})
"""A time without measurement (functional syntax, since `from` is a keyword)."""


class RungResult(TypedDict):
    """The rung of the stop ladder that is under way, and whom it concerns."""

    rung: str
    pids: list[int]


class StatusResult(PublicRun, total=False):
    """What the owner sees of a run; keys of the command line's `--json` first."""

    phase: str | None
    link: Literal["connected", "lost", "unknown"]
    verdict: str | None
    cause: CauseResult | None
    remaining_s: float | None
    rounds: RoundsResult
    nodes: list[NodeResult]
    gaps: list[GapResult]
    edits: list[str]
    why: str | None
    result: str | None
    hit_rate: RateResult
    search_hit_rate: RateResult
    position: int | None
    expected_start: str | None
    promised: bool
    scenario: str
    simulation: bool
    rung: RungResult | None
    round: int | None
    flow: str | None
    kept: bool
    soak: dict[str, object] | None
    soaks: list[dict[str, object]]
    run_tag: str
    duration_s: float | None
    rounds_wanted: int | None
    deadline_at: str | None
    notes: list[str]


class RunEvent(TypedDict):
    """Params of `run.event`; data of progress, state and end is a StatusResult."""

    run: str
    seq: int
    kind: EventKind
    data: dict[str, object]


class DataPiece(TypedDict):
    """Params of `run.log` and `run.chunk`; seq counts from 1."""

    seq: int
    data: bytes


class WatchResult(TypedDict):
    """End of a watch: the number to resume after."""

    run: str
    last_seq: int


class LogsResult(TypedDict):
    """End of a log stream."""

    run: str
    bytes: int


class CollectResult(TypedDict):
    """End of a bundle: its suggested file name, length and SHA-256 in hex."""

    name: str
    bytes: int
    sha256: str


class ForgetResult(TypedDict):
    """The processes that are left of the run; they hold nothing any more."""

    id: str
    pids: list[int]


class PlanResult(TypedDict):
    """What a run was asked to do; `sha256` as its submitter sent it."""

    id: str
    state: str
    created_at: str
    plan: dict[str, object]
    sha256: dict[str, str]


class FlowRow(TypedDict):
    """What came of one flow, such as `source:a>b`."""

    flow: str
    kind: str
    publisher: str
    searcher: str
    rounds: RoundsResult
    hit_rate: RateResult
    search_hit_rate: RateResult


class FlowsResult(TypedDict):
    """The outcomes of a run by flow, in the order of the flows' first rounds."""

    id: str
    flows: list[FlowRow]


class ListResult(TypedDict):
    """Runs, newest first; others' runs as PublicRun."""

    runs: list[StatusResult]
    truncated: bool


class DaemonInfo(TypedDict, total=False):
    """The daemon itself."""

    version: str
    protocol: int
    minor: int
    mode: str
    pid: int
    started_at: str
    uptime_s: float
    socket: str
    state: str
    running: int
    queued: int
    draining: bool
