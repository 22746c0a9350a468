"""The outcomes of a run by flow: of a live run from its sums, else counted from its records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import trio

from soakd.core.errors import HostError
from soakd.core.series import OTHER_FLOWS, FlowSums
from soakd.core.stats import Counters, joined
from soakd.edge.journal import RunFolder
from soakd.host import Host
from soakd.records import ROUNDS, Records
from soakd.view import rates

MAX_ROWS = 2500
"""All pairs of as many nodes as a plan may have; a frame has not room for twice as many."""


async def flow_table(host: Host, run_id: int, records: Records | None) -> list[dict[str, Any]]:
    """Returns a row for each flow, in the order of their first rounds.

    Args:
        host: what all runs share.
        run_id: the run.
        records: its records, if it is live.
    """
    if records is not None:
        return flow_rows(records.series.flows)
    return flow_rows(await trio.to_thread.run_sync(_recorded, host, run_id))


def flow_rows(flows: Mapping[str, Counters]) -> list[dict[str, Any]]:
    """Each flow with its parts, counts and rates; those beyond `MAX_ROWS` as one."""
    shown = dict(list(flows.items())[:MAX_ROWS])
    for counters in list(flows.values())[MAX_ROWS:]:
        shown[OTHER_FLOWS] = joined(shown.get(OTHER_FLOWS, Counters()), counters)
    rows = []
    for flow, counters in shown.items():
        kind, _, pair = flow.partition(":")
        publisher, _, searcher = pair.partition(">")
        parts = {"flow": flow, "kind": kind, "publisher": publisher, "searcher": searcher}
        rows.append({**parts, **rates(counters)})
    return rows


def _recorded(host: Host, run_id: int) -> Mapping[str, Counters]:
    sums = FlowSums()
    try:
        folder = RunFolder.open_for_reading(host.state_dir, run_id)
    except HostError:
        # Nothing of it was ever recorded.
        return sums.counters
    try:
        # A torn last line is no round: it was never reported.
        for line in folder.read_lines(ROUNDS):
            with suppress(ValueError, KeyError, TypeError):
                sums.add(json.loads(line))
    finally:
        folder.close()
    return sums.counters
