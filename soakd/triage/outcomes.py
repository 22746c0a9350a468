"""What became of the rounds: from rounds.ndjson, or from what the scripts wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from soakd.core.estimates import LagOne
from soakd.core.series import RoundSums, Series
from soakd.core.stats import Counters
from soakd.triage.findings import Findings


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The rounds of one run.

    Attributes:
        source: the file that tells it; None without rounds.
        series: what gates are held against.
    """

    source: str | None
    series: Series

    @property
    def sums(self) -> RoundSums:
        """The rounds of the whole run."""
        return self.series.rounds


def outcomes_of(found: Findings) -> Outcomes:
    """Take rounds.ndjson if it has rounds, else rounds.tsv with the markers of runner.log."""
    if found.rounds is not None and found.series.rounds.counters.total:
        return Outcomes("logs/rounds.ndjson", found.series)
    if found.tsv is None:
        return Outcomes(None, found.series)
    series = found.tsv_series
    _fill(series.rounds, found)
    return Outcomes("logs/rounds.tsv", series)


def _fill(sums: RoundSums, found: Findings) -> None:
    """Let the sums be those of a script's rounds.

    A row whose answer has sources is a hit, late if the log says so; one whose answer has an empty
    list is a miss; any other row is an error. Rounds that the log begins and no row ends are
    skipped. Whether an id was stored before the search, nobody wrote down.
    """
    tsv, log = found.tsv, found.runner_log
    assert tsv is not None, "rounds of a script without rounds.tsv"
    late = min(tsv.successes, 0 if log is None else log.late)
    begun = 0 if log is None else log.begun
    sums.counters = Counters(
        hit=tsv.successes - late,
        late=late,
        miss=tsv.misses,
        error=tsv.errors,
        skipped=max(0, begun - tsv.rows),
    )
    sums.hits = tsv.hits
    sums.misses = tsv.miss_streak
    sums.first_at, sums.last_at = tsv.first_epoch, tsv.last_epoch


def interval_of(hits: LagOne) -> dict[str, Any]:
    """Return a rate with its interval at the effective number of rounds."""
    interval = hits.interval() if hits.n else None
    return {
        "value": hits.share,
        "n": hits.n,
        "effective_n": hits.effective_n if hits.n else 0.0,
        "rho": hits.rho if hits.n else None,
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
    }
