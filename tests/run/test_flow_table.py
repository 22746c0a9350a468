"""The outcomes of a run by flow, as they are sent."""

from __future__ import annotations

from soakd.core.stats import Counters
from soakd.flow_table import MAX_ROWS, flow_rows
from soakd.wire.frames import Decoder, encode_response


def test_the_table_of_any_run_fits_into_a_frame() -> None:
    """A self-test of 50 nodes has 4950 flows: the rest is one row, and every round is counted."""
    names = [f"n{index:02}".ljust(16, "x") for index in range(50)]
    flows = {
        f"{kind}:{one}>{other}": Counters(hit=1_000_000)
        for kind in ("source", "keyword")
        for one in names
        for other in names
        if kind == "keyword" or one != other
    }
    rows = flow_rows(flows)
    assert [row["flow"] for row in rows[: MAX_ROWS + 1]] == [*list(flows)[:MAX_ROWS], "other"]
    assert sum(row["rounds"]["total"] for row in rows) == len(flows) * 1_000_000
    assert len(Decoder().feed(encode_response(1, None, {"id": "r7", "flows": rows}))) == 1
