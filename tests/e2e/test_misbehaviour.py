"""Nodes that die, hang or lie in mid-run: what each fault becomes, side by side in one soakd.

Every fault has a soak of its own in the fixture `campaign`; the tests look at what came of it. Two
waves, since some faults take a minute to run into their time-outs and others a second. By default
the faults of `SHORT_FORM`, each way to fail by one or two; all of them with `-m campaign`.
"""

from __future__ import annotations

import faulthandler
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.e2e.box import Box
from tests.e2e.misbehaviour import (
    FORMS,
    MANY,
    PROMPT_S,
    SETTINGS,
    WHOLE,
    Campaign,
    Case,
    Soak,
    in_forms,
)
from tests.e2e.records import check_events, check_rounds, epoch, tsv

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.safety]

GROWTH_MB = 25.0
NOTICED_S = 30.0
"""An order is an event after a look at the file, a round's way to the call, and its time-out."""
LONGER_S = 12.0
"""A node is up for longer than it is again when it is looked at after the loss of its session."""
_RAISED = re.compile(r"errors is \d+\.\d%, wanted errors <= 5%; (\d+) of (\d+) failed because of ")


def _prompt(name: str, *orders: str) -> Case:
    return Case(name, orders, fault_s=PROMPT_S)


class Lie(NamedTuple):
    """What a fault of a living node's API is called, and words of its evidence."""

    case: Case
    kind: str
    phrase: str
    evidence: str


_HANGS = "its API hangs"
_DEAD = "its API is dead while its process lives"
_HANGS_UP = "its API hangs up before its answer is whole"
_ERRORS = "its API answers with errors"
_GARBAGE = "its API answers with garbage"
LIES = [
    Lie(Case("hang", ("hang",)), "api_hangs", _HANGS, "no whole answer within 12 s"),
    Lie(Case("hang-of-the-publisher", ("hang",), "a"), "api_hangs", _HANGS, "within 12 s"),
    Lie(Case("hang-on-one-route", ("hang:/kad/sources",)), "api_hangs", _HANGS, "GET /api/v1/kad/"),
    Lie(Case("drip", ("drip",)), "api_hangs", _HANGS, "no whole answer within 12 s"),
    Lie(Case("drip-head", ("drip-head",)), "api_hangs", _HANGS, "no whole answer within 12 s"),
    Lie(Case("stop", ("stop",)), "api_hangs", _HANGS, "no whole answer within 12 s"),
    Lie(_prompt("hang-up", "hang-up"), "api_hangs_up", _HANGS_UP, "unanswered"),
    Lie(Case("cut", ("cut",)), "api_hangs_up", _HANGS_UP, "without sending complete message"),
    Lie(_prompt("api-closed", "api-closed"), "api_dead", _DEAD, ""),
    Lie(_prompt("http-500", "http:500"), "api_errors", _ERRORS, "HTTP 500"),
    Lie(Case("http-404", ("http:404:/kad",)), "api_errors", _ERRORS, "HTTP 404"),
    Lie(Case("redirect", ("redirect",), "a"), "api_errors", _ERRORS, "HTTP 302"),
    Lie(_prompt("garbage", "garbage"), "api_garbage", _GARBAGE, "this is not what you asked for"),
    Lie(Case("empty", ("empty",)), "api_garbage", _GARBAGE, "'' is not JSON"),
    Lie(Case("wrong-json", ("wrong-json",), "a"), "api_garbage", _GARBAGE, "surprise"),
    Lie(Case("deep-json", ("deep-json",)), "api_garbage", _GARBAGE, "[[[["),
    Lie(Case("truncated-json", ("truncated-json",)), "api_garbage", _GARBAGE, "is not JSON"),
    Lie(Case("endless-headers", ("endless-headers",)), "api_garbage", _GARBAGE, "have no end"),
    Lie(Case("endless-body", ("endless-body",)), "api_garbage", _GARBAGE, "more than 1048576"),
    Lie(Case("gzip-bomb", ("gzip-bomb",)), "api_garbage", _GARBAGE, "gzip"),
    Lie(Case("big-body", ("big-body",)), "api_garbage", _GARBAGE, "more than 1048576"),
]


PROMPT = [lie for lie in LIES if lie.kind != "api_hangs"]
"""Their calls fail at once."""


class End(NamedTuple):
    """How a node's process ends."""

    case: Case
    code: int | None
    number: int | None
    words: str


ENDS = [
    End(Case("exit-0", ("exit:0",)), 0, None, "exit status 0"),
    End(Case("exit-1", ("exit:1",), "a"), 1, None, "exit status 1"),
    End(Case("exit-7", ("exit:7",)), 7, None, "exit status 7"),
    End(Case("exit-101", ("exit:101",)), 101, None, "exit status 101"),
    End(Case("segv", ("die:SIGSEGV",)), None, 11, "SIGSEGV"),
    End(Case("kill", ("die:SIGKILL",), "a"), None, 9, "SIGKILL"),
    End(Case("term", ("die:SIGTERM",)), None, 15, "SIGTERM"),
    End(Case("panic", ("panic:out of luck",)), 101, None, "exit status 101"),
]
HARMLESS = [
    Case("hang-on-status", ("hang:/status",)),
    _prompt("rotate-token", "rotate-token", "rotate-token@2"),
    _prompt("listener-closed", "listener-closed"),
]
LOSSES = [
    Case("session-loss", ("session-loss",), fault_s=18.0, well_s=LONGER_S),
    Case("session-loss-of-the-publisher", ("session-loss",), "a", fault_s=18.0, well_s=LONGER_S),
]
STALLS = [
    Case("stall", ("loop-stall:20",), fault_s=27.0),
    Case("stall-of-the-publisher", ("loop-stall:20",), "a", fault_s=27.0),
]
HEALED = [
    Case("hang-heals", ("hang:/kad/search_sources", "heal@3")),
    _prompt("errors-heal", "http:500", "heal@4"),
    Case("garbage-heals", ("garbage", "heal@4"), "a"),
]
PANIC_THREAD = _prompt("panic-thread", "panic-thread:queue is full")
SLOW = [*(lie.case for lie in LIES), *STALLS]
QUICK = [PANIC_THREAD, *(end.case for end in ENDS), *HARMLESS, *LOSSES, *HEALED]
SHORT_FORM = {
    *("hang", "hang-of-the-publisher", "drip", "hang-up", "api-closed", "http-500"),
    *("garbage", "gzip-bomb", "stall"),
    *("panic-thread", "exit-1", "segv", "panic"),
    *("hang-on-status", "rotate-token", "listener-closed", "session-loss"),
    *("hang-heals", "errors-heal"),
}


def _of_forms(argument: str, told: list[Lie] | list[End]) -> pytest.MarkDecorator:
    return in_forms(argument, told, lambda one: one.case.name, SHORT_FORM)


def _cases_of_forms(cases: list[Case]) -> pytest.MarkDecorator:
    return in_forms("case", cases, lambda case: case.name, SHORT_FORM)


@pytest.fixture(scope="module", params=FORMS)
def campaign(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Campaign]:
    """Yield all soaks of a form, ended; a minute of time-outs and the starts."""
    faulthandler.cancel_dump_traceback_later()
    slow, quick = (
        [case for case in cases if request.param == WHOLE or case.name in SHORT_FORM]
        for cases in (SLOW, QUICK)
    )
    box = Box(tmp_path_factory.mktemp("mis"))
    (box.folder / "soakd.toml").write_text(SETTINGS)
    try:
        box.serve()
        campaign = Campaign(box)
        assert max(len(slow), len(quick)) <= MANY
        campaign.play(slow, failing=[lie.case for lie in LIES])
        campaign.play_each(quick)
        assert len(campaign.soaks) == len(slow) + len(quick)
        yield campaign
    finally:
        box.close()


def check_common(soak: Soak) -> None:
    """What holds whatever a node does: rounds in time, none a miss, all sums, nothing left."""
    assert [r["outcome"] for r in soak.rounds_before()] == ["hit"] * len(soak.rounds_before())
    outcomes = Counter(r["outcome"] for r in soak.rounds())
    assert outcomes["miss"] == outcomes["skipped"] == 0, outcomes
    longest_s = soak.longest_round_s()
    assert max(r["duration_s"] for r in soak.rounds()) <= longest_s
    for event in soak.events():
        assert epoch(event["at"]) > 0
    assert soak.final["nodes"][0]["pid"] is None
    assert soak.final["nodes"][1]["pid"] is None
    rounds = {key: soak.final["rounds"][key] for key in ("hit", "late", "miss", "error", "skipped")}
    assert rounds == {key: outcomes[key] for key in rounds}


def first_event(soak: Soak, kind: str, having: str = "") -> dict[str, object]:
    """The first event of a kind: of the node that was told, and soon after it was told.

    `having` chooses between events of one kind that come from calls (`text`) and logs (`line`).
    """
    events = [event for event in soak.events(kind) if not having or having in event["data"]]
    assert events, f"no {kind} among {Counter(event['kind'] for event in soak.events())}"
    event = events[0]
    assert event["node"] == soak.case.node
    assert -0.1 <= epoch(event["at"]) - soak.ordered_at <= NOTICED_S
    data: dict[str, object] = event["data"]
    return data


@_of_forms("lie", LIES)
def test_a_lying_api_is_told_and_its_rounds_are_errors(campaign: Campaign, lie: Lie) -> None:
    """An event with evidence, errors with the step, a failed verdict that names the cause."""
    soak = campaign.soaks[lie.case.name]
    check_common(soak)
    assert lie.evidence in str(first_event(soak, lie.kind, having="text")["text"])
    assert [r["outcome"] for r in soak.rounds_after()] == ["error"] * len(soak.rounds_after())
    assert {r["outcome"] for r in soak.rounds_since_order()} <= {"hit", "error"}
    errors = [r for r in soak.rounds() if r["outcome"] == "error"]
    assert errors
    for record in errors:
        assert record["error"]["step"] in {"publish", "search", "read", "recheck"}
        assert record["error"]["text"].startswith("cannot ")
        assert record["cause"] is None
    final = soak.final
    assert (final["result"], final["verdict"], final["cause"]) == ("completed", "failed", None)
    raised = _RAISED.match(final["why"])
    assert raised is not None, final["why"]
    assert int(raised[2]) == len(errors)
    assert f"node {soak.case.node}: {lie.phrase} (" in final["why"]
    # The whole story stood in `status` while it happened.
    assert any(f"node {soak.case.node}: {lie.phrase} since " in text for text in soak.troubles)
    assert soak.is_shown


@_of_forms("lie", PROMPT)
def test_trouble_is_told_once_and_not_with_every_call(campaign: Campaign, lie: Lie) -> None:
    """Ten seconds of failing calls are as many events as there are routes."""
    soak = campaign.soaks[lie.case.name]
    routes = [event["data"].get("route") for event in soak.events(lie.kind)]
    told = [route for route in routes if route is not None]
    assert 1 <= len(told) <= 4
    assert len(set(told)) == len(told)


@_of_forms("end", ENDS)
def test_a_node_that_ends_is_told_with_its_exit(campaign: Campaign, end: End) -> None:
    """Event, exit in `status`, and a cause in one sentence; the round under way is an error."""
    soak = campaign.soaks[end.case.name]
    check_common(soak)
    data = first_event(soak, "node_exited")
    pid = data["pid"]
    assert data == {"pid": pid, "code": end.code, "signal": end.number}
    final, name = soak.final, soak.case.node
    assert (final["result"], final["verdict"]) == ("failed", "failed")
    assert (final["cause"]["code"], final["cause"]["node"]) == ("node_exited", name)
    assert f"node {name} (pid {pid}) ended by itself: " in final["why"]
    assert end.words in final["why"]
    [shown] = [node for node in final["nodes"] if node["name"] == name]
    assert (shown["exit"]["code"], shown["exit"]["signal"]) == (end.code, end.number)
    assert soak.finished_at - soak.ordered_at < NOTICED_S
    for record in soak.rounds_since_order():
        if record["outcome"] == "error":
            assert record["cause"] in {f"node_down:{name}", None}
    # One under way, and one that began while the shim waited for a core to tell the news.
    assert len([r for r in soak.rounds() if r["outcome"] == "error"]) <= 2
    check_rounds(tsv(campaign.box, soak.run), soak.rounds())
    check_events(campaign.box, soak.run)


def test_a_panic_of_the_main_thread_is_told_before_the_end(campaign: Campaign) -> None:
    """With the line of stderr, and where it stands."""
    soak = campaign.soaks["panic"]
    data = first_event(soak, "panic")
    assert "thread 'main'" in str(data["line"])
    assert "panicked at src/kad/service.rs:612:33" in str(data["line"])
    kinds = [event["kind"] for event in soak.events("panic", "node_exited")]
    assert kinds.index("panic") < kinds.index("node_exited")
    assert "out of luck" in campaign.box.read(soak.run, f"logs/{soak.case.node}.out")


def test_a_panic_of_a_worker_is_told_though_the_process_lives(campaign: Campaign) -> None:
    """Its API is dead from then on; the gate of panics fails as well."""
    soak = campaign.soaks[PANIC_THREAD.name]
    check_common(soak)
    assert "thread 'tokio-runtime-worker'" in str(first_event(soak, "panic")["line"])
    first_event(soak, "api_dead")
    assert soak.events("node_exited")[0]["at"] > soak.rounds()[-1]["ended_at"]
    assert {r["outcome"] for r in soak.rounds_after()} == {"error"}
    assert (soak.final["result"], soak.final["verdict"]) == ("completed", "failed")
    assert "panics is 1" in soak.final["why"]
    assert f"node b: {_DEAD} (" in soak.final["why"]


def test_a_closed_api_is_heard_of_in_the_nodes_own_words_too(campaign: Campaign) -> None:
    """The one ERROR line of its log, with its place in the output."""
    events = campaign.soaks["api-closed"].events("api_dead")
    lines = [event["data"] for event in events if "line" in event["data"]]
    assert len(lines) == 1
    assert "api server stopped" in lines[0]["line"]
    out = campaign.box.read(campaign.soaks["api-closed"].run, "logs/b.out").encode()
    assert lines[0]["line"].encode() in out[: lines[0]["at_byte"]].splitlines()[-1]


def test_a_status_that_hangs_costs_no_round(campaign: Campaign) -> None:
    """Snapshots decide nothing: trouble is told, rounds are hits, the verdict stands."""
    soak = campaign.soaks["hang-on-status"]
    check_common(soak)
    assert first_event(soak, "api_hangs")["route"] == "/status"
    assert {r["outcome"] for r in soak.rounds()} == {"hit"}
    assert any("status" in text for r in soak.rounds_after() for _, text in map(pair, r["notes"]))
    assert soak.final["verdict"] == "passed"


def pair(note: object) -> tuple[str, str]:
    """Step and text of a note, however it is written."""
    if isinstance(note, dict):
        return str(note["step"]), str(note["text"])
    assert isinstance(note, list)
    return str(note[0]), str(note[1])


def test_a_replaced_token_is_read_again_and_rounds_go_on(campaign: Campaign) -> None:
    """Told, without the value; not a round is lost."""
    soak = campaign.soaks["rotate-token"]
    check_common(soak)
    first_event(soak, "token_replaced")
    assert len(soak.events("token_replaced")) == 2
    assert {r["outcome"] for r in soak.rounds()} == {"hit"}
    assert len(soak.rounds_after()) >= 3
    assert (soak.final["result"], soak.final["verdict"]) == ("completed", "passed")
    token = (campaign.box.node(soak.run, "b") / "data" / "api.token").read_text()
    for name in ("logs/events.ndjson", "logs/runner.log", "logs/soak.log", "run.json"):
        assert token not in campaign.box.read(soak.run, name)


def test_a_closed_listener_is_no_trouble_while_the_connection_lives(campaign: Campaign) -> None:
    """soakd keeps its connections: it needs no new one."""
    soak = campaign.soaks["listener-closed"]
    check_common(soak)
    assert {r["outcome"] for r in soak.rounds()} == {"hit"}
    assert (soak.final["result"], soak.final["verdict"]) == ("completed", "passed")


@_cases_of_forms(LOSSES)
def test_a_lost_session_is_told_and_the_run_goes_on(campaign: Campaign, case: Case) -> None:
    """By the node's line and by its uptime; hits again after it."""
    soak = campaign.soaks[case.name]
    data = first_event(soak, "sam_session_lost")
    assert "kad service lost SAM socket" in str(data["line"])
    [again] = soak.events("sam_session_recreated")
    assert again["data"]["uptime_s"] < again["data"]["uptime_before_s"]
    assert soak.final["result"] == "completed"
    assert soak.final["rounds"]["error"] <= 2
    assert {r["outcome"] for r in soak.rounds_after(9.0)} == {"hit"}


@_cases_of_forms(STALLS)
def test_a_stalled_loop_is_told_and_its_end_too(campaign: Campaign, case: Case) -> None:
    """When it is noticed and when it is over; hits again after it."""
    soak = campaign.soaks[case.name]
    data = first_event(soak, "loop_stalled")
    assert float(str(data["for_s"])) > 2
    [over] = [e for e in soak.events("trouble_over") if e["data"]["kind"] == "loop_stalled"]
    assert over["data"]["for_s"] == pytest.approx(20, abs=4)
    assert {r["outcome"] for r in soak.rounds_after(23.0)} == {"hit"}


def test_rounds_of_a_stalled_searcher_are_errors(campaign: Campaign) -> None:
    """Its reads are answered 504: the verdict says so."""
    soak = campaign.soaks["stall"]
    errors = [r for r in soak.rounds_since_order() if r["outcome"] == "error"]
    assert errors
    assert all("HTTP 504" in r["error"]["text"] for r in errors)
    assert soak.final["verdict"] == "failed"
    assert f"failed because of node b: {_ERRORS} (" in soak.final["why"]
    assert "HTTP 504" in soak.final["why"]


@_cases_of_forms(STALLS + LOSSES)
def test_rounds_of_a_node_without_a_loop_are_no_misses(campaign: Campaign, case: Case) -> None:
    """A node that does nothing says nothing about the network."""
    check_common(campaign.soaks[case.name])


@_cases_of_forms(HEALED)
def test_trouble_that_heals_is_over_and_rounds_are_hits_again(
    campaign: Campaign, case: Case
) -> None:
    """With how long it was and how many calls it cost."""
    soak = campaign.soaks[case.name]
    check_common(soak)
    began = [e for e in soak.events() if e["kind"].startswith("api_")]
    over = soak.events("trouble_over")
    assert [(e["kind"], e["data"]["route"]) for e in began] == [
        (e["data"]["kind"], e["data"]["route"])
        for begin in began
        for e in over
        if e["data"]["route"] == begin["data"]["route"]
    ]
    for event in over:
        assert event["node"] == case.node
        assert event["data"]["calls"] >= 1
        assert 0 <= event["data"]["for_s"] <= 20
    assert soak.rounds()[-1]["outcome"] == "hit"
    assert "error" in {r["outcome"] for r in soak.rounds()}


def test_memory_does_not_grow_with_what_nodes_send(campaign: Campaign) -> None:
    """soakd with all soaks at once, over what it had before the first fault; each shim too."""
    many = sum(case.name in campaign.soaks for case in SLOW)
    print(f"\nsoakd with {many} misbehaving nodes at once: {campaign.soakd}")  # noqa: T201
    most = max(campaign.shims, key=lambda shim: shim.grown_mb)
    print(f"the shim that grew most: {most}")  # noqa: T201
    assert campaign.soakd.grown_mb <= GROWTH_MB
    assert most.grown_mb <= 3.0


def test_nothing_of_all_these_soaks_is_left(campaign: Campaign) -> None:
    """No process, no port, no file, no lease; and soakd is well."""
    assert campaign.left() == []
    assert campaign.box.processes() == {}
    assert "Traceback" not in campaign.box.log().read_text()
    assert campaign.box.ctl("list").status == 0
