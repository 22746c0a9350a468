from __future__ import annotations

from typing import Any, cast

import pytest

from soakd.simnode import keyword_jobs, keywords
from soakd.simnode.config import Config, fill
from soakd.simnode.contacts import Contact
from soakd.simnode.fate import Dice
from soakd.simnode.identity import Identity
from soakd.simnode.keyword_jobs import JOB_LIFE_S
from soakd.simnode.keywords import SHOWN_HITS, Keywords
from soakd.simnode.knobs import Sim
from soakd.simnode.loop import Loop
from soakd.simnode.network import Network, Parts, Tracked
from soakd.simnode.status import Counters
from soakd.simnode.tracing import OFF, Tracing

KEYWORD = "f0" * 16
SILENT = Sim(latency_min_secs=0.0, latency_max_secs=0.0)


class Clock:
    """A clock that the tests set."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Wire:
    """Stands for the network: notes what is sent, and lets the test answer."""

    def __init__(self) -> None:
        self.peers: list[Contact] = []
        self.sent: list[tuple[str, str, dict[str, Any]]] = []
        self.handlers: dict[str, Any] = {}
        self.lost = 0

    def on(self, kind: str, handler: object) -> None:
        self.handlers[kind] = handler

    def live(self) -> list[Contact]:
        return list(self.peers)

    def lose(self) -> int:
        self.lost += 1
        return 0

    def track(self, _peer: str, _kind: str, _context: object) -> int:
        return len(self.sent)

    def match(
        self, _peer: Contact, kind: str, message: dict[str, Any], *, more: bool = False
    ) -> Tracked:
        assert more is bool(message.get("more"))
        return Tracked("", kind, 0.0, KEYWORD)

    def send(self, peer: Contact, kind: str, **fields: object) -> None:
        self.sent.append((peer.kad_id[:2], kind, fields))

    def send_later(self, _delay_s: float, peer: Contact, kind: str, **fields: object) -> None:
        self.send(peer, kind, **fields)

    def taken(self, kind: str) -> list[str]:
        """Return who was sent this kind since the last call."""
        names = [name for name, sent_kind, _ in self.sent if sent_kind == kind]
        self.sent.clear()
        return names


class Box:
    """The keywords of one node, its clock, counters and wire."""

    def __init__(self, loop: Loop, sim: Sim = SILENT, **kad: object) -> None:
        config = Config(fill({"kad": kad}), sim, {})
        tracing = Tracing(stdout_level=OFF, file_level=OFF, colour=False, file=None)
        self.counters = Counters()
        identity = Identity("00" * 16, "x")
        parts = Parts(config, loop, tracing, self.counters, Dice(1), identity)
        self.wire = Wire()
        self.keywords = Keywords(parts, cast("Network", self.wire))
        self.keywords.storing = True

    def add_peers(self, *firsts: int) -> None:
        """Add running nodes with these first bytes of their ids."""
        for first in firsts:
            self.wire.peers.append(Contact(f"{first:02x}" * 16, "x", version=8, verified=True))

    def receive(self, kind: str, **message: object) -> None:
        """Receive a message of the first peer."""
        self.wire.handlers[kind](self.wire.peers[0], message)


def hit(number: int = 1) -> dict[str, Any]:
    """Return a hit of a numbered file."""
    return {"file_id_hex": f"{number:032x}", "filename": "x", "file_size": 3}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of jobs and tables."""
    made = Clock()
    for module in (keywords, keyword_jobs):
        monkeypatch.setattr(module, "now", made)
    return made


@pytest.fixture
def box(loop: Loop, clock: Clock) -> Box:
    """A node, under a clock that stands."""
    assert clock.now_s
    return Box(loop)


def test_a_batch_asks_the_five_nearest_and_the_next_one_others(box: Box, clock: Clock) -> None:
    """Each peer once, 45 s apart; of many nodes publisher and searcher meet at the same ones."""
    box.add_peers(1, 2, 0xF3, 0xF1, 0xF4, 0xF2, 0xE0)
    box.keywords.search(KEYWORD)
    assert box.wire.taken("search_key") == ["f1", "f2", "f3", "f4", "e0"]
    clock.now_s += 44
    box.keywords.maintain()
    assert box.wire.taken("search_key") == []
    clock.now_s += 2
    box.keywords.maintain()
    assert sorted(box.wire.taken("search_key")) == ["01", "02"]
    clock.now_s += 46
    box.keywords.maintain()
    assert box.wire.taken("search_key") == []
    box.keywords.search(KEYWORD)
    assert len(box.wire.taken("search_key")) == 5


def test_publishing_stops_at_the_first_acknowledgement(box: Box, clock: Clock) -> None:
    """And is complete then; searching goes on."""
    box.add_peers(*range(1, 12))
    box.keywords.publish(KEYWORD, hit())
    assert len(box.wire.taken("publish_key")) == 5
    clock.now_s += 46
    box.keywords.maintain()
    assert len(box.wire.taken("publish_key")) == 5
    box.receive("publish_key_res", r=1)
    clock.now_s += 46
    box.keywords.maintain()
    assert box.wire.taken("publish_key") == []
    (job,) = box.keywords.jobs()
    assert (job["state"], job["got_publish_ack"], job["publish_enabled"]) == (
        *("complete", True, True),
    )


def test_one_dead_contact_is_asked_in_vain_when_nobody_runs(box: Box) -> None:
    """Counted and tracked like any request."""
    box.keywords.publish(KEYWORD, hit())
    box.keywords.search(KEYWORD)
    status = box.counters.close_window({})
    assert (status["sent_publish_key_reqs"], status["sent_search_key_reqs"]) == (1, 1)
    assert box.wire.lost == 2


def test_a_job_ends_two_hours_after_its_last_start(box: Box, clock: Clock) -> None:
    """Expired jobs leave the list; the hits stay."""
    box.keywords.publish(KEYWORD, hit())
    clock.now_s += JOB_LIFE_S + 1
    box.keywords.maintain()
    assert box.keywords.jobs() == []
    assert box.keywords.job(KEYWORD) is None
    assert len(box.keywords.hits(KEYWORD)) == 1


def test_what_nobody_asks_for_is_forgotten_in_time(box: Box, clock: Clock) -> None:
    """A day of the own cache, two weeks of what is stored for others."""
    box.add_peers(1)
    box.keywords.publish(KEYWORD, hit())
    box.receive("publish_key", id=KEYWORD, hit=hit(2), fate="hit", r=1)
    clock.now_s += 86401
    box.keywords.maintain()
    assert box.keywords.gauges == {
        "keyword_keywords_tracked": 0,
        "keyword_hits_total": 0,
        "store_keyword_keywords": 1,
        "store_keyword_hits_total": 1,
    }
    clock.now_s += 1209600
    box.keywords.maintain()
    assert set(box.keywords.gauges.values()) == {0}
    status = box.counters.close_window({})
    assert (status["evicted_keyword_hits"], status["evicted_store_keyword_hits"]) == (1, 1)


def test_the_hits_shown_are_bounded(box: Box) -> None:
    """The latest ones, so that a round finds its own."""
    for number in range(SHOWN_HITS + 5):
        box.keywords.publish(KEYWORD, hit(number))
    shown = box.keywords.hits(KEYWORD)
    assert len(shown) == SHOWN_HITS
    assert shown[-1]["file_id_hex"] == hit(SHOWN_HITS + 4)["file_id_hex"]


def test_hits_of_keywords_nobody_here_asked_for_are_dropped(loop: Loop, clock: Clock) -> None:
    """Unless the configuration says otherwise."""
    assert clock.now_s
    for required in (True, False):
        box = Box(loop, service_keyword_require_interest=required)
        box.add_peers(1)
        box.receive("search_key_res", r=1, hits=[hit()], more=False)
        assert box.keywords.gauges["keyword_hits_total"] == (not required)
        assert box.counters.close_window({})["keyword_results"] == 1


@pytest.mark.parametrize(
    "message",
    [
        {"id": KEYWORD, "hit": hit(), "fate": "prestored"},
        {"id": KEYWORD, "hit": hit(), "fate": ["hit"]},
        {"id": KEYWORD, "hit": hit()},
        {"id": KEYWORD, "hit": hit() | {"filename": 1}, "fate": "hit"},
        {"id": KEYWORD, "hit": "x", "fate": "hit"},
        {"id": "x", "hit": hit(), "fate": "hit"},
        {"hit": hit(), "fate": "hit"},
    ],
)
def test_a_publish_that_makes_no_sense_is_counted_and_dropped(
    box: Box, message: dict[str, Any]
) -> None:
    """Anybody on the host can send one."""
    box.add_peers(1)
    box.receive("publish_key", **message)
    assert box.counters.close_window({})["recv_publish_key_decode_failures"] == 1
    assert box.keywords.gauges["store_keyword_hits_total"] == 0


def test_nothing_is_stored_or_answered_before_the_service_loop(box: Box) -> None:
    """A node in its bootstrap leaves keyword requests without an answer."""
    box.add_peers(1)
    box.keywords.storing = False
    box.receive("publish_key", id=KEYWORD, hit=hit(), fate="hit", r=1)
    box.receive("search_key", id=KEYWORD, r=1)
    assert box.wire.sent == []


def test_an_answer_bears_the_latest_hits_and_none_that_is_lost(box: Box) -> None:
    """At most 64, so that the latest round is among them."""
    box.add_peers(1)
    for number in range(70):
        box.receive("publish_key", id=KEYWORD, hit=hit(number), fate="hit", r=1)
    box.receive("publish_key", id=KEYWORD, hit=hit(70), fate="miss", r=1)
    box.wire.sent.clear()
    box.receive("search_key", id=KEYWORD.upper(), r=7)
    ((_, kind, fields),) = box.wire.sent
    assert (kind, fields["r"], fields["more"], len(fields["hits"])) == (
        *("search_key_res", 7, False, 64),
    )
    assert fields["hits"][-1] == hit(69)
