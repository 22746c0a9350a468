"""Nodes that misbehave before they are ready: the wait for them ends in time and says why."""

from __future__ import annotations

import faulthandler
import re
from collections.abc import Iterator

import pytest

from tests.e2e.box import Box
from tests.e2e.misbehaviour import FORMS, SETTINGS, WHOLE, Campaign, Case, in_forms

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.safety]

READY_S = 30.0
"""Two calls to their ends, under load: then a node that hangs is known, and how the other is."""
PROMPT_READY_S = 12.0
"""Where no call lasts: some of them to their ends, under load."""
# What the last answer was, in words of the evidence.
FAULTS = {
    "hang": "no whole answer within 12 s",
    "hang-up": "unanswered",
    "http:500": "HTTP 500",
    "http:404": "HTTP 404",
    "http:503": "503",
    "garbage": "this is not what you asked for",
    "empty": "is not JSON",
    "wrong-json": "surprise",
    "deep-json": "[[[[",
    "truncated-json": "is not JSON",
    "cut": "complete message",
    "endless-headers": "the headers have no end within 16384 bytes",
    "endless-body": "more than 1048576 bytes",
    "gzip-bomb": "gzip",
    "big-body": "more than 1048576",
    "drip": "no whole answer within 12 s",
    "drip-head": "no whole answer within 12 s",
    "redirect": "HTTP 302",
    "listener-closed": "nobody listens",
    "stop": "nobody listens",
}
LASTING = {"hang", "drip", "drip-head", "gzip-bomb", "big-body"}
"""Calls to these may last until they are given up."""
SHORT_FORM = {"hang", "http:500", "http:503", "garbage", "endless-body", "listener-closed", "stop"}


def _order(fault: str) -> str:
    kind, _, argument = fault.partition(":")
    return f"{kind}@start" + (f":{argument}" if argument else "")


def _ready_s(fault: str) -> float:
    return READY_S if fault in LASTING else PROMPT_READY_S


@pytest.fixture(scope="module", params=FORMS)
def campaign(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Campaign]:
    """Yield a soak of each fault of a form, ended."""
    faulthandler.cancel_dump_traceback_later()
    box = Box(tmp_path_factory.mktemp("early"))
    (box.folder / "soakd.toml").write_text(SETTINGS)
    try:
        box.serve()
        campaign = Campaign(box)
        faults = FAULTS if request.param == WHOLE else SHORT_FORM
        wave = []
        for ready_s in (READY_S, PROMPT_READY_S):
            cases = [
                Case(fault, (_order(fault),), from_start=True)
                for fault in faults
                if _ready_s(fault) == ready_s
            ]
            wave += campaign.start(cases, ready_s)
        campaign.finish(wave)
        assert len(campaign.soaks) == len(faults)
        yield campaign
    finally:
        box.close()


@in_forms("fault", list(FAULTS), str, SHORT_FORM)
def test_a_node_that_misbehaves_from_its_start_is_never_ready(
    campaign: Campaign, fault: str
) -> None:
    """Failed in time, by the node's fault, with its last answer; never a crash of the run."""
    soak = campaign.soaks[fault]
    final = soak.final
    assert (final["result"], final["verdict"]) == ("failed", "failed"), final["why"]
    assert final["cause"]["code"] == "ready_timeout"
    assert f"not ready after {_ready_s(fault):g} s" in final["cause"]["text"]
    # The word for a is its own last one: it may have got ready since.
    text = final["cause"]["text"]
    told = re.search(r"; the last answers: a: (?:ready|503, it warms up), b: (.+)", text)
    assert told is not None, text
    assert FAULTS[fault] in told[1]
    assert final["rounds"]["total"] == 0


def test_nothing_is_left_of_nodes_that_never_got_ready(campaign: Campaign) -> None:
    """And soakd has not crashed in any of them."""
    assert campaign.left() == []
    assert "Traceback" not in campaign.box.log().read_text()
