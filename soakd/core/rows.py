"""The lines of the record files, byte for byte what readers of the scripts' files expect.

Pure text: who calls passes the time as text, encodes and writes. Every function returns one
line; those for files end it, markers do not, since `log_line` does that for all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, get_args

from soakd.core.errors import HostError
from soakd.core.model import Outcome
from soakd.core.round_types import RoundResult
from soakd.core.stats import Counters, add

_BLANKS = str.maketrans("\t\n\r", "   ")


def tsv_row(
    time_text: str,
    number: int,
    file_id: str,
    publish_body: str,
    search_body: str,
    final_body: str,
) -> str:
    """Return a row of rounds.tsv; bodies stand as they came, empty where there was none."""
    bodies = (_one_line(body) for body in (publish_body, search_body, final_body))
    return "\t".join((time_text, str(number), file_id, *bodies)) + "\n"


def status_row(time_text: str, letter: str, body: str) -> str:
    """Return a row of status.ndjson; the letter is `A` or `B`."""
    return f"{time_text}\t{letter}\t{_one_line(body)}\n"


def record_json(record: Mapping[str, Any]) -> str:
    """Return a record as one line of compact JSON.

    Raises:
        ValueError: NaN or infinity is in it: not JSON, and a bug of ours.
    """
    # ASCII only: ids from a node may hold lone surrogates, which no encoder would take.
    return json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n"


def round_record(
    result: RoundResult,
    *,
    started_at: str,
    publish_at: str | None,
    ended_at: str,
    publisher_id: str | None,
) -> dict[str, Any]:
    """Return the rich record of a round, a line of rounds.ndjson.

    Args:
        result: What came of the round.
        started_at: UTC, RFC 3339, as are the other two.
        publish_at: When publish was answered, None if it was not.
        ended_at: When the record was complete.
        publisher_id: The publisher's own id, None if unknown; `publisher_listed` is then
            null.
    """
    spec = result.spec
    return {
        "round": spec.number,
        "measurement": spec.measurement,
        "publisher": spec.publisher,
        "searcher": spec.searcher,
        "flow": spec.flow,
        "file_id": spec.file_id,
        "file_size": spec.file_size,
        "outcome": result.outcome,
        "cause": result.cause,
        "cold": spec.cold,
        "prestored": result.prestored,
        "source_ids": list(result.source_ids),
        "publisher_listed": None if publisher_id is None else publisher_id in result.source_ids,
        "first_seen_s": _milli(result.first_seen_s),
        "rechecks": result.rechecks,
        "error": None if result.error is None else _step(result.error),
        "notes": [_step(note) for note in result.notes],
        "started_at": started_at,
        "publish_at": publish_at,
        "ended_at": ended_at,
        "duration_s": _milli(result.ended_at_s - result.started_at_s),
    }


def counters_from_lines(lines: Iterable[str | bytes]) -> tuple[Counters, int]:
    """Count the records of rounds.ndjson; return the counters and the last round's number.

    Raises:
        HostError: A line is no record; the message says which.
    """
    counters, last = Counters(), 0
    for place, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            outcome, prestored, last = record["outcome"], record["prestored"], record["round"]
            if outcome not in get_args(Outcome):
                raise ValueError(outcome)
        except (ValueError, KeyError, TypeError) as error:
            message = f"cannot read line {place} of rounds.ndjson: {error!r}"
            raise HostError("internal", message) from error
        counters = add(counters, outcome, prestored)
    return counters, last


def log_line(time_text: str, text: str) -> str:
    """Return a line of runner.log; the text is a marker or any one sentence."""
    return f"{time_text} {_one_line(text)}\n"


def soak_start(duration_s: float | None, deadline_epoch: float | None) -> str:
    """Return the marker of the beginning; without a deadline both values read `none`."""
    return f"soak-start duration_secs={_secs(duration_s)} deadline_epoch={_whole(deadline_epoch)}"


def run_tag(tag: str, sessions: Mapping[str, str], *, fresh_identity: bool) -> str:
    """Return the marker of the run's names; `sessions` is by node name."""
    names = " ".join(f"session_{node}={session}" for node, session in sessions.items())
    return f"run-tag={tag} {names} fresh_identity={int(fresh_identity)}"


def attached(urls: Mapping[str, str]) -> str:
    """Return the marker of nodes that somebody else runs."""
    return "attached " + " ".join(f"{node.upper()} url={url}" for node, url in urls.items())


def started(pids: Mapping[str, int]) -> str:
    """Return the marker of the launch; `pids` is by node name."""
    return "started " + " ".join(f"{node.upper()} pid={pid}" for node, pid in pids.items())


def ready_check(elapsed_s: float, answers: Mapping[str, str]) -> str:
    """Return the marker of one look at all nodes; `answers` is by node name."""
    codes = " ".join(f"{node.upper()}={answer}" for node, answer in answers.items())
    return f"ready-check elapsed={_whole(elapsed_s)}s {codes}"


def warmup(elapsed_s: float, seen: str, stable: int, wanted: int) -> str:
    """Return the marker of one sample of the warm-up."""
    return f"warmup elapsed={_whole(elapsed_s)}s {seen} stable={stable}/{wanted}"


def timer(remaining_s: float | None, number: int) -> str:
    """Return the marker before a round; `none` remains without a deadline."""
    return f"timer remaining_secs={_whole(remaining_s)} round={number}"


def round_begin(number: int, file_id: str, file_size: int) -> str:
    """Return the marker of a round's begin."""
    return f"round={number} file={file_id} size={file_size}"


def miss_recheck(number: int, attempt: int, delay_s: float, file_id: str) -> str:
    """Return the marker of a recheck that is about to be waited for."""
    return (
        f"round={number} miss_recheck attempt={attempt} delay_secs={_secs(delay_s)} file={file_id}"
    )


def miss_recheck_hit(number: int, attempt: int, file_id: str) -> str:
    """Return the marker of a recheck that found the file."""
    return f"round={number} miss_recheck_hit attempt={attempt} file={file_id}"


def deadline_reached() -> str:
    """Return the marker of the end of time."""
    return "deadline reached"


def stop_marker() -> str:
    """Return the marker of a stop noticed between rounds."""
    return "stop marker detected"


def node_stop_requested() -> str:
    """Return the marker of the ladder's begin."""
    return "node stop requested"


def soak_finished(rounds: int) -> str:
    """Return the marker of the end of measuring."""
    return f"soak-finished rounds={rounds}"


def runner_stop_requested() -> str:
    """Return the marker of a stop that was asked for."""
    return "runner stop requested"


def error(text: str) -> str:
    """Return an error for runner.log."""
    return f"ERROR: {text}"


def warn(text: str) -> str:
    """Return a warning for runner.log."""
    return f"WARN: {text}"


def _one_line(text: str) -> str:
    return text.translate(_BLANKS)


def _step(pair: tuple[str, str]) -> dict[str, str]:
    return {"step": pair[0], "text": pair[1]}


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _secs(seconds: float | None) -> str:
    """Return seconds as `sleep` would take them: whole if they are whole."""
    return "none" if seconds is None else f"{seconds:.3f}".rstrip("0").rstrip(".")


def _whole(seconds: float | None) -> str:
    return "none" if seconds is None else str(int(seconds))


class RoundBegun(NamedTuple):
    """What a `round=` marker of runner.log says of a round that was begun."""

    number: int
    file_id: str
    file_size: int


_BEGUN = re.compile(r" round=(\d{1,15}) file=([0-9a-f]{32}) size=(\d{1,15})$")


def last_round_begun(lines: Iterable[str]) -> RoundBegun | None:
    """Return the round of the last `round_begin` marker in runner.log, if there is one."""
    begun = None
    for line in lines:
        found = _BEGUN.search(line)
        if found is not None:
            begun = RoundBegun(int(found[1]), found[2], int(found[3]))
    return begun


class Pair(NamedTuple):
    """The columns of a round that do not come from the round itself."""

    measurement: str
    publisher: str
    searcher: str
    flow: str
    cold: bool


def skipped_record(begun: RoundBegun, pair: Pair, cause: str, ended_at: str) -> dict[str, Any]:
    """Return the record of a round that was begun and never classified: nobody was there.

    Args:
        begun: What the log knows of it.
        pair: Its columns that the plan knows.
        cause: Such as `gap`.
        ended_at: When it was found, UTC, RFC 3339.
    """
    unknown = ("publisher_listed", "first_seen_s", "error", "started_at", "publish_at")
    return {
        "round": begun.number,
        "measurement": pair.measurement,
        "publisher": pair.publisher,
        "searcher": pair.searcher,
        "flow": pair.flow,
        "file_id": begun.file_id,
        "file_size": begun.file_size,
        "outcome": "skipped",
        "cause": cause,
        "cold": pair.cold,
        "prestored": False,
        "source_ids": [],
        "rechecks": 0,
        "notes": [],
        "ended_at": ended_at,
        "duration_s": None,
        **dict.fromkeys(unknown),
    }
