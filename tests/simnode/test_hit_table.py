from __future__ import annotations

from typing import Any

from soakd.simnode.config import DEFAULTS
from soakd.simnode.hit_table import Caps, Entry, HitTable, cache_caps, store_caps
from soakd.simnode.status import Counters

CAPS = Caps(keywords=2, total_hits=4, hits_per_keyword=3, idle_s=100.0, age_s=50.0)


def table(caps: Caps = CAPS) -> tuple[HitTable, Counters]:
    """Return an empty table of the own cache, and what it counts in."""
    counters = Counters()
    return HitTable(caps, counters, "keyword"), counters


def entry(number: int, put_at: float = 0.0) -> Entry:
    """Return a hit of a numbered file."""
    return Entry({"file_id_hex": str(number)}, "local", put_at)


def numbers(known: HitTable, keyword_id: str) -> list[str]:
    """Return the files of the hits of a keyword."""
    return [entry.hit["file_id_hex"] for entry in known.get(keyword_id)]


def evicted(counters: Counters) -> tuple[int, int]:
    """Return how many keywords and hits were evicted."""
    status = counters.close_window({})
    return status["evicted_keyword_keywords"], status["evicted_keyword_hits"]


def test_a_file_stands_once_and_the_latest_put_last() -> None:
    """A second hit of a file replaces the first, mark and all."""
    known, _ = table()
    known.touch("k", 0.0)
    assert known.put("k", entry(1))
    assert known.put("k", entry(2))
    assert not known.put("k", Entry({"file_id_hex": "1"}, "network", 1.0))
    assert numbers(known, "k") == ["2", "1"]
    assert known.get("k")[1].mark == "network"
    assert (len(known), known.total) == (1, 2)


def test_the_keyword_touched_longest_ago_goes_first() -> None:
    """With its hits, and both are counted."""
    known, counters = table()
    for keyword_id in ("a", "b"):
        known.touch(keyword_id, 0.0)
        known.put(keyword_id, entry(1))
    known.touch("a", 1.0)
    known.touch("c", 2.0)
    assert ["a" in known, "b" in known, "c" in known] == [True, False, True]
    assert evicted(counters) == (1, 1)
    assert known.total == 1


def test_a_keyword_keeps_its_latest_hits() -> None:
    """Up to the cap of one keyword."""
    known, counters = table()
    known.touch("k", 0.0)
    for number in range(5):
        known.put("k", entry(number))
    assert numbers(known, "k") == ["2", "3", "4"]
    assert evicted(counters) == (0, 2)


def test_all_keywords_together_have_a_cap_too() -> None:
    """The oldest hit of the keyword touched longest ago makes room."""
    known, counters = table()
    for keyword_id in ("a", "b"):
        known.touch(keyword_id, 0.0)
        for number in range(3):
            known.put(keyword_id, entry(number))
    assert (numbers(known, "a"), numbers(known, "b")) == (["2"], ["0", "1", "2"])
    assert known.total == 4
    assert evicted(counters) == (0, 2)


def test_what_is_too_old_goes() -> None:
    """A hit by its age, a keyword when nobody touched it."""
    known, counters = table()
    known.touch("a", 0.0)
    known.put("a", entry(1, 0.0))
    known.put("a", entry(2, 40.0))
    known.touch("b", 40.0)
    known.expire(60.0)
    assert numbers(known, "a") == ["2"]
    known.expire(101.0)
    assert ("a" in known, "b" in known) == (False, True)
    assert evicted(counters) == (1, 2)
    assert known.total == 0


def test_taking_out_is_no_eviction() -> None:
    """Of one hit or of a keyword, be they unknown."""
    known, counters = table()
    known.touch("a", 0.0)
    known.put("a", entry(1))
    known.put("a", entry(2))
    known.remove("a", "1")
    known.remove("a", "7")
    known.remove("z", "1")
    assert (known.forget("a"), known.forget("a"), known.total) == (1, 0, 0)
    assert evicted(counters) == (0, 0)


def test_the_caps_are_those_of_the_configuration_with_their_bounds() -> None:
    """Bounds are applied silently."""
    kad: dict[str, Any] = DEFAULTS["kad"]
    assert cache_caps(kad) == (64, 50000, 2000, 86400, 86400)
    assert store_caps(kad) == (1024, 200000, 200000, 1209600, 1209600)
    zero = dict.fromkeys(kad, 0)
    assert cache_caps(zero) == (1, 1, 1, 60, 60)
    assert store_caps(zero) == (1, 1, 1, 60, 60)
