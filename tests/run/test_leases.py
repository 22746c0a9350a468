"""What a run takes from all others, in words and in keys."""

from __future__ import annotations

import hashlib

import pytest

from soakd import leases
from soakd.edge.store import LeaseRow, LeaseTaken
from tests.run.kit import make_plan


def test_a_run_needs_its_slot_its_ports_and_its_session_names() -> None:
    """Each node one of each; the names are those that its configuration gets."""
    plan = make_plan()
    a, b = plan.nodes
    assert leases.of_start(7, plan) == [
        ("slot", "r7"),
        ("port", str(a.port)),
        ("port", str(b.port)),
        ("session", "rust-mule-a-soak-t1-r7"),
        ("session", "rust-mule-b-soak-t1-r7"),
    ]


def test_an_identity_is_the_hash_of_its_key_file() -> None:
    """Never the key itself: the store is no place for it."""
    kind, key = leases.identity(b"PUB=x\nPRIV=y\n")
    assert (kind, key) == ("identity", hashlib.sha256(b"PUB=x\nPRIV=y\n").hexdigest())


def test_a_process_is_known_again_in_its_own_boot_only() -> None:
    """After another boot the same pid and ticks mean nothing."""
    key = leases.key_of((4711, 99), "e1d7-28e3")
    assert key == "e1d7-28e3:4711:99"
    assert leases.process_of(key, "e1d7-28e3") == (4711, 99)
    assert leases.process_of(key, "another") is None


@pytest.mark.parametrize(
    "key", ["", "4711", "b:4711", "b:x:99", "b:4711:", "b:-1:99", "b:4711:9.5"]
)
def test_a_key_that_is_none_names_no_process(key: str) -> None:
    """Nothing is waited for on a guess."""
    assert leases.process_of(key, "b") is None


def test_a_refusal_names_the_holder_and_what_to_do() -> None:
    """The first lease that is taken serves as the reason."""
    taken = LeaseTaken(8, [LeaseRow("port", "17835", 7), LeaseRow("port", "17836", 7)])
    assert leases.refusal(taken) == (
        "cannot start r8: port 17835 is leased by r7; wait for the end of r7, then submit again"
    )


def test_what_is_left_of_a_run_shows_in_its_status() -> None:
    """With the pids, what they keep, and the way out; other notes stay."""
    plan = make_plan()
    ports = f"{plan.nodes[0].port} {plan.nodes[1].port}"
    status = {"id": "r7", "notes": ["a note"], "rung": None, "why": "x"}
    assert leases.with_blocked(status, plan, []) is status
    note = (
        f"processes 4711 4712 could not be killed; slot and ports {ports} stay taken until they"
        " are gone or an admin says `soakctl forget r7`"
    )
    assert leases.with_blocked(status, plan, [4711, 4712]) == {
        "id": "r7",
        "why": "x",
        "rung": {"rung": "blocked", "pids": [4711, 4712]},
        "notes": ["a note", note],
    }
    [_, note] = leases.with_blocked(status, plan, [4711])["notes"]
    assert note.startswith("process 4711 could not be killed;")
    assert "until it is gone or" in note
    assert status["notes"] == ["a note"]
