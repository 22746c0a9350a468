"""What a soakd that was away believes of the journal of a shim that is gone."""

from __future__ import annotations

import json
from pathlib import Path

from soakd.edge.shim_client import LastWords, NodeEnd, last_words, read_last_words


def _lines(*events: dict[str, object]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def test_ends_before_the_ladder_are_the_nodes_own() -> None:
    """Those behind it were asked for; the reason is the shim's."""
    journal = _lines(
        {"event": "begun"},
        {"event": "node_exited", "node": "a", "pid": 11, "code": 7},
        {"event": "orphan", "alone_s": 1.0},
        {"event": "stopping", "reason": "orphan"},
        {"event": "node_exited", "node": "b", "pid": 12, "signal": 9},
    )
    assert last_words(journal) == LastWords(
        (NodeEnd("a", 11, 7, None, asked=False), NodeEnd("b", 12, None, 9, asked=True)), "orphan"
    )


def test_only_the_last_shim_of_a_run_counts() -> None:
    """An earlier one was given up while it staged."""
    journal = _lines(
        {"event": "begun"}, {"event": "stopping", "reason": "SIGTERM"}, {"event": "begun"}
    )
    assert last_words(journal) == LastWords()


def test_what_is_malformed_says_nothing() -> None:
    """A user's process has written it."""
    strange = _lines(
        {"event": "node_exited", "node": 3, "pid": 11, "code": 7},
        {"event": "node_exited", "node": "a", "pid": "x"},
        {"event": "stopping", "reason": 4},
        {"event": "node_exited", "node": "a", "pid": 11, "code": "0", "signal": -4},
    )
    journal = b"x\n[1]\n" + strange + b'{"event":"node_exited","node":"b","pid":1'
    assert last_words(journal) == LastWords((NodeEnd("a", 11, None, None, asked=False),), None)


def test_a_journal_without_end_is_read_from_its_end(tmp_path: Path) -> None:
    """In bounded memory; a missing one has nothing to say."""
    path = tmp_path / "shim.ndjson"
    assert read_last_words(path) == LastWords()
    end = _lines({"event": "node_exited", "node": "a", "pid": 11, "code": 0})
    begin = _lines({"event": "stopping", "reason": "lost"})
    path.write_bytes(begin + b"x" * (1 << 21) + b"\n" + end)
    assert read_last_words(path) == LastWords((NodeEnd("a", 11, 0, None, asked=False),), None)
