from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from soakd.core.errors import HostError
from soakd.edge.schema import MEMORY
from soakd.edge.store import (
    GapRow,
    LeaseRow,
    LeaseTaken,
    NewRun,
    NodeRow,
    StaleState,
    Store,
)


def new_run(owner_uid: int = 1000, **changes: object) -> NewRun:
    """A run as `submit` would store it."""
    values: dict[str, object] = {
        "owner_uid": owner_uid, "owner_name": "alice", "label": None, "created_at": 10.0,
        "state": "queued", "state_json": "{}", "plan_json": '{"plan":1}', "sha256_json": "{}",
    }  # fmt: skip
    return NewRun(**{**values, **changes})  # type: ignore[arg-type]


def move(store: Store, run_id: int, old: str, new: str) -> None:
    """A transition whose other facts do not matter."""
    store.transition(run_id, old, new, f'{{"state":"{new}"}}', None, "test", at=1.0)


@pytest.fixture
def store() -> Iterator[Store]:
    """An empty store in memory."""
    store = Store(MEMORY)
    yield store
    store.close()


def test_a_new_run_comes_back_as_it_was_given(store: Store) -> None:
    """What the submitter said is stored whole; the rest is empty."""
    row = store.get_run(store.create_run(new_run(label="night")))
    assert row is not None
    assert (row.owner_uid, row.owner_name, row.label) == (1000, "alice", "night")
    assert (row.state, row.plan_json, row.created_at) == ("queued", '{"plan":1}', 10.0)
    assert (row.nonce, row.shim_pid, row.cgroup, row.counters_json) == (None, None, None, None)
    assert (row.edits_json, row.rounds_offset, row.last_round, row.shim_n) == ("[]", 0, 0, 0)


def test_an_unknown_run_is_none(store: Store) -> None:
    """The caller decides what that means."""
    assert store.get_run(7) is None
    assert store.latest_run_of(1000) is None


def test_a_transition_writes_state_columns_and_audit_together(store: Store) -> None:
    """One transaction carries everything that happened."""
    run_id = store.create_run(new_run())
    store.transition(
        run_id, "queued", "staging", '{"until_s":5}', 0, "slot granted", at=12.5,
        started_at=12.5, label="x",
    )  # fmt: skip
    row = store.get_run(run_id)
    assert row is not None
    assert (row.state, row.state_json, row.started_at, row.label) == (
        "staging", '{"until_s":5}', 12.5, "x",
    )  # fmt: skip
    assert [(a.at, a.uid, a.what) for a in store.audit(run_id)] == [
        (10.0, 1000, "created as queued"),
        (12.5, 0, "queued -> staging: slot granted"),
    ]


def test_a_transition_from_another_state_writes_nothing(store: Store) -> None:
    """Whoever comes second learns what the run is now."""
    run_id = store.create_run(new_run())
    move(store, run_id, "queued", "finished")
    with pytest.raises(StaleState, match="it is finished, not queued") as caught:
        store.transition(run_id, "queued", "staging", "{}", None, "slot", at=1.0, nonce="n")
    assert (caught.value.expected, caught.value.found) == ("queued", "finished")
    row = store.get_run(run_id)
    assert row is not None
    assert row.nonce is None
    assert len(store.audit(run_id)) == 2


def test_a_transition_of_an_unknown_run_is_stale(store: Store) -> None:
    """There is nothing to move."""
    with pytest.raises(StaleState, match="it is unknown"):
        move(store, 99, "queued", "staging")


@pytest.mark.parametrize("column", ["id", "created_at", "owner_uid", "no_such", "label = 1, why"])
def test_only_listed_columns_can_be_written(store: Store, column: str) -> None:
    """Column names become SQL: they come from a list."""
    run_id = store.create_run(new_run())
    columns: dict[str, Any] = {column: 1}
    with pytest.raises(AssertionError, match="not columns"):
        store.set_columns(run_id, **columns)
    with pytest.raises(AssertionError, match="not columns"):
        store.transition(run_id, "queued", "staging", "{}", None, "w", at=1.0, **columns)
    row = store.get_run(run_id)
    assert row is not None
    assert row.state == "queued"


def test_a_checkpoint_keeps_counters_and_offset(store: Store) -> None:
    """The offset says up to where the counters count."""
    run_id = store.create_run(new_run())
    store.checkpoint(run_id, '{"hit":3}', 4096, 3)
    row = store.get_run(run_id)
    assert row is not None
    assert (row.counters_json, row.rounds_offset, row.last_round) == ('{"hit":3}', 4096, 3)


def test_an_intended_shim_forgets_the_process_of_the_one_before(store: Store) -> None:
    """Between intent and process only the nonce may find anything."""
    run_id = store.create_run(new_run())
    store.set_shim(run_id, n=1, nonce="first")
    store.set_shim(run_id, n=1, nonce="first", pid=4711, ticks=99, boot_id="b", cgroup="/c")
    row = store.get_run(run_id)
    assert row is not None
    assert (row.nonce, row.shim_n, row.shim_pid, row.shim_ticks, row.boot_id, row.cgroup) == (
        "first", 1, 4711, 99, "b", "/c",
    )  # fmt: skip
    store.set_shim(run_id, n=2, nonce="second")
    row = store.get_run(run_id)
    assert row is not None
    assert (row.nonce, row.shim_n, row.shim_pid, row.cgroup) == ("second", 2, None, None)


def test_lists_are_by_owner_and_newest_first(store: Store) -> None:
    """None lists everyone's."""
    ids = [store.create_run(new_run(uid)) for uid in (1, 2, 1)]
    assert [r.id for r in store.list_runs()] == ids[::-1]
    assert [r.id for r in store.list_runs(1)] == [ids[2], ids[0]]
    assert [r.id for r in store.list_runs(limit=1)] == [ids[2]]
    assert store.list_runs(3) == []


def test_unfinished_runs_come_oldest_first(store: Store) -> None:
    """That is the order of reconciling and of the queue."""
    ids = [store.create_run(new_run()) for _ in range(3)]
    move(store, ids[1], "queued", "finished")
    assert [r.id for r in store.unfinished_runs()] == [ids[0], ids[2]]


def test_my_latest_run_is_the_executing_one_then_queued_then_finished(store: Store) -> None:
    """A queued newcomer does not hide the soak that runs."""
    first, second, third = (store.create_run(new_run()) for _ in range(3))
    store.create_run(new_run(2000))

    def latest() -> int | None:
        row = store.latest_run_of(1000)
        return None if row is None else row.id

    assert latest() == third
    move(store, first, "queued", "running")
    assert latest() == first
    for run_id, old in ((first, "running"), (second, "queued"), (third, "queued")):
        move(store, run_id, old, "finished")
    assert latest() == third


def test_nodes_remember_their_latest_life(store: Store) -> None:
    """A relaunch forgets the exit; an exit without launch is kept too."""
    run_id = store.create_run(new_run())
    store.put_node(run_id, "b", 11, 12)
    store.put_node(run_id, "a", 1, 2)
    store.node_exited(run_id, "a", '{"code":1}')
    assert store.nodes(run_id) == [
        NodeRow(run_id, "a", 1, 2, '{"code":1}'),
        NodeRow(run_id, "b", 11, 12, None),
    ]
    store.put_node(run_id, "a", 3, 4)
    assert store.nodes(run_id)[0] == NodeRow(run_id, "a", 3, 4, None)
    store.node_exited(run_id, "c", '{"signal":9}')
    assert store.nodes(run_id)[2] == NodeRow(run_id, "c", None, None, '{"signal":9}')


def test_a_lease_has_one_holder_until_it_is_released(store: Store) -> None:
    """Asking again for one's own is no conflict."""
    one, two = store.create_run(new_run()), store.create_run(new_run())
    assert store.lease("port", "17835", one) is None
    assert store.lease("port", "17835", one) is None
    assert store.lease("port", "17835", two) == one
    assert store.lease("session", "17835", two) is None
    store.release(one)
    assert store.lease("port", "17835", two) is None
    assert [(row.kind, row.run_id) for row in store.leases()] == [("port", two), ("session", two)]


def test_several_leases_are_taken_together_or_not_at_all(store: Store) -> None:
    """Half of its ports would help no run, and block others."""
    one, two = store.create_run(new_run()), store.create_run(new_run())
    store.lease("port", "2", one)
    assert store.lease_all([("port", "1"), ("port", "2")], two) == [LeaseRow("port", "2", one)]
    assert store.leases() == [LeaseRow("port", "2", one)]
    assert store.lease_all([("port", "1"), ("port", "2")], one) == []
    assert len(store.leases()) == 2


def test_a_transition_takes_the_leases_of_its_state(store: Store) -> None:
    """Never a run that executes without them."""
    run_id = store.create_run(new_run())
    wanted = [("slot", "r1"), ("port", "17835")]
    store.transition(run_id, "queued", "staging", "{}", None, "slot", at=1.0, take=wanted)
    assert {(row.kind, row.key) for row in store.leases()} == set(wanted)


def test_a_transition_without_its_leases_writes_nothing(store: Store) -> None:
    """All of those in the way are named; the run stays where and what it was."""
    one, two = store.create_run(new_run()), store.create_run(new_run())
    store.lease_all([("port", "1"), ("port", "2")], one)
    wanted = [("slot", "r2"), ("port", "2"), ("port", "1")]
    with pytest.raises(LeaseTaken, match="port 2 is leased by r1, port 1 is leased by r1") as taken:
        store.transition(two, "queued", "staging", "{}", None, "s", at=1.0, take=wanted, label="x")
    assert (taken.value.run_id, [row.key for row in taken.value.blocking]) == (two, ["2", "1"])
    row = store.get_run(two)
    assert row is not None
    assert (row.state, row.label) == ("queued", None)
    assert {row.run_id for row in store.leases()} == {one}
    assert len(store.audit(two)) == 1


def test_the_end_of_a_run_ends_its_leases_unless_something_is_left(store: Store) -> None:
    """In the transaction of the end itself; a state before it changes nothing of them."""
    one, two = store.create_run(new_run()), store.create_run(new_run())
    for run_id in (one, two):
        store.lease("port", str(run_id), run_id)
        move(store, run_id, "queued", "running")
    assert len(store.leases()) == 2
    store.transition(one, "running", "finished", "{}", None, "done", at=1.0, left=[])
    store.transition(two, "running", "finished", "{}", None, "done", at=1.0, left=["b:4711:9"])
    assert store.leases() == [
        LeaseRow("blocked", "b:4711:9", two),
        LeaseRow("port", str(two), two),
    ]


def test_a_process_that_two_runs_name_blocks_the_first_of_them(store: Store) -> None:
    """A shim may lie; the end of its run must be written all the same."""
    one, two = store.create_run(new_run()), store.create_run(new_run())
    for run_id in (one, two):
        store.transition(run_id, "queued", "finished", "{}", None, "x", at=1.0, left=["b:4711:9"])
    assert store.leases() == [LeaseRow("blocked", "b:4711:9", one)]


def test_a_forgotten_run_holds_nothing(store: Store) -> None:
    """What is left of it stays known, and who wanted it stands in the audit log."""
    one, two = store.create_run(new_run()), store.create_run(new_run())
    store.lease_all([("slot", "r1"), ("port", "1"), ("blocked", "b:4711:9")], one)
    store.lease_all([("slot", "r2"), ("blocked", "b:4712:9")], two)
    store.forget(one, 7.0, 0, '{"pids": [4711]}')
    assert [row for row in store.leases() if row.run_id == one] == [
        LeaseRow("forgotten", "b:4711:9", one)
    ]
    assert len(store.leases()) == 3
    [_, entry] = store.audit(one)
    assert (entry.at, entry.uid, entry.what, entry.detail_json) == (
        7.0, 0, "forgot the blocked lease", '{"pids": [4711]}',
    )  # fmt: skip
    store.release(one)
    assert {row.run_id for row in store.leases()} == {two}


def test_secrets_are_kept_once_each(store: Store) -> None:
    """A token is reported again after every restart of soakd."""
    run_id = store.create_run(new_run())
    for value in ("t1", "t2", "t1"):
        store.add_secret(run_id, "token", value)
    store.add_secret(run_id, "priv", "t1")
    assert [(s.kind, s.value) for s in store.secrets(run_id)] == [
        ("priv", "t1"), ("token", "t1"), ("token", "t2"),
    ]  # fmt: skip


def test_gaps_come_in_order_of_time(store: Store) -> None:
    """Whatever the order in which they were found."""
    run_id = store.create_run(new_run())
    store.add_gap(run_id, from_at=20.0, to_at=25.0, s=5.0, why="soakd was away")
    store.add_gap(run_id, from_at=1.0, to_at=2.0, s=1.5, why="suspend")
    assert store.gaps(run_id) == [
        GapRow(run_id, 1.0, 2.0, 1.5, "suspend"),
        GapRow(run_id, 20.0, 25.0, 5.0, "soakd was away"),
    ]


def test_acts_that_are_no_transitions_are_audited(store: Store) -> None:
    """Also those about no run at all."""
    run_id = store.create_run(new_run())
    store.add_audit(3.0, run_id, 1000, "collect", '{"full":true}')
    store.add_audit(4.0, None, 0, "shutdown")
    assert [(a.what, a.detail_json) for a in store.audit(run_id)][1:] == [
        ("collect", '{"full":true}')
    ]


def test_rows_of_an_unknown_run_are_refused(store: Store) -> None:
    """Foreign keys are on."""
    with pytest.raises(sqlite3.IntegrityError):
        store.add_secret(99, "token", "t")


def test_a_failing_disk_is_a_host_error_and_writes_nothing(store: Store) -> None:
    """A full disk has a cause that the user can act on."""
    run_id = store.create_run(new_run())
    store._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(HostError, match=r"cannot write .*full"):
        store.set_columns(run_id, label="x" * 100_000)
    row = store.get_run(run_id)
    assert row is not None
    assert row.label is None


def test_a_store_may_be_used_from_another_thread(tmp_path: Path) -> None:
    """The daemon calls it in a worker thread, one at a time."""
    store = Store(tmp_path / "soakd.db")
    ids: list[int] = []
    thread = threading.Thread(target=lambda: ids.append(store.create_run(new_run())))
    thread.start()
    thread.join()
    assert store.get_run(ids[0]) is not None
    store.close()


def test_every_query_is_used_and_every_used_query_exists() -> None:
    """queries.sql has no dead statement."""
    source = Path(__file__).parents[2] / "soakd" / "edge"
    python = (source / "store.py").read_text()
    sql = (source / "queries.sql").read_text()
    names = [line.removeprefix("-- name: ") for line in sql.splitlines() if "-- name: " in line]
    names = [name for name in names if not name.startswith("--")]
    assert len(names) == len(set(names))
    assert all(f'"{name}"' in python for name in names)


def test_an_act_is_written_with_who_did_it_or_not_at_all(store: Store) -> None:
    """A run that has moved on meanwhile is left as it is."""
    run_id = store.create_run(new_run())
    store.amend(run_id, 5.0, 1000, "hold", '{"held": 1}', expect_state="queued", held=1)
    with pytest.raises(StaleState):
        store.amend(run_id, 6.0, 1000, "hold", expect_state="running", held=0)
    store.amend(run_id, 7.0, 0, "label", label="x")
    row = store.get_run(run_id)
    assert row is not None
    assert (row.held, row.priority, row.label) == (1, 0, "x")
    acts = [(act.at, act.uid, act.what, act.detail_json) for act in store.audit(run_id)]
    assert acts[1:] == [(5.0, 1000, "hold", '{"held": 1}'), (7.0, 0, "label", "{}")]


def test_facts_are_kept_by_name(store: Store) -> None:
    """The last word counts."""
    assert store.fact("drain") is None
    store.put_fact("drain", "true")
    store.put_fact("drain", "false")
    store.put_fact("promise", "null")
    assert (store.fact("drain"), store.fact("promise")) == ("false", "null")


def test_spells_are_those_runs_that_had_a_slot_lately(store: Store) -> None:
    """Not the queued one, nor what ended long ago."""
    ids = [store.create_run(new_run()) for _ in range(4)]
    store.set_columns(ids[1], started_at=10.0, ended_at=20.0)
    store.set_columns(ids[2], started_at=10.0, ended_at=40.0)
    store.set_columns(ids[3], started_at=35.0)
    found = [(row.id, row.started_at, row.ended_at) for row in store.spells(30.0)]
    assert found == [(ids[2], 10.0, 40.0), (ids[3], 35.0, None)]
