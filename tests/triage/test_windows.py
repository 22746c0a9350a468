"""Window counters, lifetime totals and restarts, confirmed by SQL over the same lines."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from soakd.simnode import status as simulated
from soakd.triage import fields, status_batch
from soakd.triage.status import Status
from soakd.triage.triage import triage
from tests.triage import kit

# A snapshot is new if its uptime is not that of the line before.
_SNAPSHOTS = """
    with readings as (
        select n, json_extract(body, '$.uptime_secs') as uptime, body from lines
        where node = :node
    ), marked as (
        select *, lag(uptime) over (order by n) as before from readings
    )
"""


def test_the_tables_are_those_of_the_contract() -> None:
    """The simulated node was built from the same page, independently."""
    assert frozenset(simulated.GAUGES) == fields.GAUGES
    assert frozenset(simulated.WINDOW) == fields.WINDOW
    assert frozenset(simulated.LIFETIME) == fields.LIFETIME
    assert set(fields.OLD_COUNTERS) <= fields.GAUGES | fields.WINDOW


@pytest.mark.slow
def test_window_counters_are_summed_once_per_snapshot(tmp_path: Path) -> None:
    """The same snapshot in two rounds counts once; checked by SQL for every counter."""
    folder = kit.script_folder(tmp_path / "soak", 600)
    nodes = triage(str(folder))["nodes"]
    store = kit.status_table(folder / "logs" / "status.ndjson")
    for node in "ab":
        fresh = f"{_SNAPSHOTS} select * from marked where before is not uptime"
        rows = store.execute(fresh, {"node": node.upper()}).fetchall()
        bodies = [json.loads(row[2]) for row in rows]
        assert nodes[node]["snapshots"] == len(rows) < nodes[node]["lines"] == 600
        assert nodes[node]["windows"] == {
            key: sum(body[key] for body in bodies) for key in sorted(fields.WINDOW)
        }
        _check_in_sql(store, node, nodes[node])


def _check_in_sql(store: sqlite3.Connection, node: str, found: dict[str, Any]) -> None:
    for key in ("timeouts", "new_sources", "source_probe_search_latency_ms_total"):
        query = f"""{_SNAPSHOTS} select sum(json_extract(body, '$.{key}')) from marked
            where before is not uptime"""
        (value,) = store.execute(query, {"node": node.upper()}).fetchone()
        assert found["windows"][key] == value


@pytest.mark.slow
def test_lifetime_totals_are_rates_across_restarts(tmp_path: Path) -> None:
    """A process that begins anew counts from 0; a new session goes on; SQL adds up the same."""
    lines = _lives(
        [
            (0, 100), (60, 110), (120, 125), (180, 125),
            # A new session: the uptime begins anew, the total goes on.
            (5, 130), (65, 150),
            # A new process.
            (10, 3), (70, 20), (130, 21),
            # A new process that has overtaken the old uptime.
            (300, 4), (360, 9),
        ]
    )  # fmt: skip
    path = tmp_path / "status.ndjson"
    path.write_text("".join(lines))
    status = _read(path)
    lives = status.nodes["A"].lives
    (grown, uptime_s) = (
        kit.status_table(path)
        .execute(
            """
        with readings as (
            select n, json_extract(body, '$.uptime_secs') as uptime,
                json_extract(body, '$.sent_reqs_total') as total from lines
        ), pairs as (
            select *, lag(uptime) over (order by n) as up0, lag(total) over (order by n) as total0
            from readings
        )
        select sum(total - case when total < total0 then 0 else total0 end),
            sum(uptime - case when uptime < up0 or total < total0 then 0 else up0 end)
        from pairs where up0 is not null
        """
        )
        .fetchone()
    )
    assert (lives.grown["sent_reqs_total"], lives.uptime_s) == (grown, uptime_s) == (80, 735)
    assert [(restart.kind, restart.uptime_s) for restart in lives.restarts] == [
        ("session", 5), ("process", 10), ("process", 300),
    ]  # fmt: skip
    assert (lives.processes, lives.sessions) == (2, 1)


def test_a_file_in_parts_comes_to_the_same_as_the_whole(tmp_path: Path) -> None:
    """Wherever it is cut: between two equal snapshots, at a restart."""
    pairs = [(0, 5), (0, 5), (60, 9), (60, 9), (3, 12), (63, 14), (1, 2), (61, 8), (61, 8)]
    lines = [line.encode().rstrip(b"\n") for line in _lives(pairs)]
    whole = _status(lines)
    for cut in range(len(lines) + 1):
        early, late = _status(lines[:cut]), _status(lines[cut:])
        early.join(Status.load(json.loads(json.dumps(late.dump()))))
        assert _told(early) == _told(whole)


def test_a_field_of_a_later_version_is_named_and_not_summed() -> None:
    """Nobody knows whether it counts a window or a life."""
    lines = [
        b'2026-11-22T17:00:00+0000\tA\t{"uptime_secs":%d,"timeouts":2,"brand_new_total":7}' % n
        for n in range(3)
    ]
    node = _status(lines).nodes["A"]
    assert node.sums == {"timeouts": 6}
    assert node.unknown == {"brand_new_total"}


def test_without_orjson_the_numbers_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only slower."""
    folder = kit.script_folder(tmp_path / "soak", 200, wild=True)
    fast = triage(str(folder))
    monkeypatch.setitem(sys.modules, "orjson", None)
    status_batch.parser.cache_clear()
    try:
        assert status_batch.parser() is json.loads
        assert triage(str(folder)) == fast
    finally:
        status_batch.parser.cache_clear()


def test_numbers_beyond_what_a_parser_keeps_whole_are_read_one_by_one() -> None:
    """Twenty digits and more are no floats here."""
    lines = [b'T\tA\t{"uptime_secs":%d,"timeouts":%d}' % (n, 10**25 + n) for n in range(1, 4)]
    node = _status([b'T\tA\t{"uptime_secs":0,"timeouts":5}', *lines]).nodes["A"]
    assert node.sums == {"timeouts": 3 * 10**25 + 11}
    assert node.old_counters()["timeouts"] == {"max": 10**25 + 3, "last": 10**25 + 3}


def test_two_programs_in_one_file_are_each_read_by_their_own_fields() -> None:
    """An older node has fewer fields; its lines alternate with those of a newer one."""
    lines = []
    for number in range(300):
        more = b',"new_sources":3' if number % 2 else b""
        lines.append(b'T\tA\t{"uptime_secs":%d,"timeouts":1%b}' % (number, more))
    node = _status(lines).nodes["A"]
    assert node.sums == {"timeouts": 300, "new_sources": 450}
    assert (node.lines, node.snapshots, node.unreadable) == (300, 300, 0)


def _lives(pairs: list[tuple[int, int]]) -> list[str]:
    return [
        f"2026-11-22T17:{n:02d}:00+0000\tA\t"
        f'{{"uptime_secs":{uptime},"timeouts":1,"sent_reqs_total":{total}}}\n'
        for n, (uptime, total) in enumerate(pairs)
    ]


def _status(lines: list[bytes]) -> Status:
    status = Status()
    status.add(b"\n".join(lines))
    status.finish()
    return status


def _read(path: Path) -> Status:
    return _status(path.read_bytes().splitlines())


def _told(status: Status) -> Any:
    if "A" not in status.nodes:
        return None
    node = status.nodes["A"]
    lives = node.lives
    facts = (node.lines, node.repeated, node.snapshots, node.sums, node.largest, node.last)
    ended = (lives.grown, lives.uptime_s, lives.restarts, node.first_at, node.last_at)
    # A repetition across the cut is not known as one, but counts as little.
    return (facts[0], *facts[2:], *ended)
