"""Reads one bundle or run folder and gathers what stands in it; judges nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from soakd.bundle.reader import Bundle, Limits, Member, NotABundle
from soakd.core.series import Series
from soakd.triage import records, script_logs
from soakd.triage.lines import batches, text
from soakd.triage.output import Output
from soakd.triage.rounds_tsv import RoundsTsv
from soakd.triage.shares import ALL, Readers, joined, read_members
from soakd.triage.status import Status

_OUTPUTS = {"logs/a.out": "a", "logs/b.out": "b"}
_DOCUMENTS = ("run.json", "plan.json")


class Findings:
    """Everything that was read; what a bundle lacks stays as it is here.

    Attributes:
        files: records that were found, with their sizes.
        notes: what could not be read, in sentences.
        bad_lines: lines that are no record, by file.
        series: of rounds.ndjson and resources.ndjson; `tsv_series` has the rounds of rounds.tsv,
            only if there are windows.
        is_torn: something of the bundle lies beyond what could be read.
        tsv: None without rounds.tsv; likewise the others.
    """

    def __init__(self, path: str, windows_s: Iterable[float] = ()) -> None:
        self.path = path
        self.kind = ""
        self.files: dict[str, int] = {}
        self.notes: list[str] = []
        self.is_torn = False
        self.bad_lines: Counter[str] = Counter()
        self.windows_s = tuple(windows_s)
        self.series = Series(self.windows_s)
        self.tsv_series = Series(self.windows_s)
        self.tsv: RoundsTsv | None = None
        self.rounds: records.Rounds | None = None
        self.events: records.Events | None = None
        self.status: dict[str, Status] = {}
        self.outputs: dict[str, Output] = {}
        self.runner_log: script_logs.RunnerLog | None = None
        self.soak_log = script_logs.SoakLog()
        self.runner_out: list[str] = []
        self.runner_state = ""
        self.documents: dict[str, dict[str, Any]] = {}

    def close(self) -> None:
        """Give back what was put aside on disk."""
        if self.tsv is not None:
            self.tsv.close()

    def take(self, name: str, member: Member) -> None:
        """Read one record that is no status file."""
        pieces = member.pieces
        match name:
            case "logs/rounds.tsv":
                # A window needs the rounds one by one, otherwise the sums will do.
                self.tsv = RoundsTsv(self._hear if self.windows_s else None)
                self.tsv.read(pieces)
            case "logs/rounds.ndjson":
                self.rounds = records.Rounds(self.series)
                self.rounds.read(pieces, self.bad_lines)
            case "logs/events.ndjson":
                self.events = records.Events()
                self.events.read(pieces, self.bad_lines)
            case "logs/resources.ndjson":
                records.samples(pieces, self.bad_lines, name, self.series.resources)
            case "logs/soak.log":
                self.soak_log.read(pieces)
            case "logs/runner.log":
                self.runner_log = script_logs.RunnerLog()
                self.runner_log.read(pieces)
            case "runner.out":
                self.runner_out = script_logs.runner_out(pieces)
            case "runner.state":
                self.runner_state = next((text(b[0], 40) for b in batches(pieces)), "").strip()
            case _:
                self._take_other(name, pieces)

    def _take_other(self, name: str, pieces: Iterable[bytes]) -> None:
        if name in _OUTPUTS:
            output = self.outputs[_OUTPUTS[name]] = Output()
            output.read(pieces)
        elif name in _DOCUMENTS:
            document = records.document(pieces)
            if document is None:
                self.notes.append(f"{name} is no JSON document")
            else:
                self.documents[name] = document

    def _hear(self, outcome: str, time: str) -> None:
        self.tsv_series.round({"outcome": outcome, "ended_at": time})


def read(
    path: str,
    *,
    windows_s: Iterable[float] = (),
    limits: Limits | None = None,
    readers: Readers | None = None,
) -> Findings:
    """Read everything once.

    Args:
        path: a `.tar.gz`, a tarball, or a folder.
        windows_s: windows that gates will ask for.
        limits: bounds of what is read.
        readers: processes that have begun to read the other shares; None: there are none.

    Raises:
        NotABundle: the path is neither bundle nor run folder.
        ReaderLost: one of the processes did not bring its share.
    """
    found = Findings(path, windows_s)
    bundle = Bundle(path, limits)
    found.kind = bundle.kind
    try:
        own, found.files = read_members(bundle, ALL if readers is None else readers.own, found.take)
        parts = [own] if readers is None else [own, *readers.results()]
    except BaseException:
        found.close()
        raise
    if not found.files:
        why = "".join(f" ({note})" for note in bundle.notes[:1])
        text = f"cannot triage {path}: it is no run folder nor bundle, no record of a soak is in it"
        raise NotABundle(f"{text}{why}; wanted is what soakctl collect or the scripts made")
    for name in own:
        found.status[name] = joined(part.get(name, {}) for part in parts)
    found.notes += bundle.notes
    found.is_torn = bundle.is_torn
    return found
