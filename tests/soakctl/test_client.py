from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

import soakctl.client
from soakctl.client import Client
from soakctl.failures import ConnectionLost, Failure
from soakctl.sockets import Choice, connect
from soakd.wire import messages
from soakd.wire.errors import WireError
from soakd.wire.frames import encode_notification
from tests.soakctl.fake_soakd import FakeSoakd, Hangup, Notify, Params


@pytest.fixture
def client(soakd: FakeSoakd) -> Iterator[Client]:
    """Return a client that has said hello to the fake soakd."""
    with Client(connect(Choice(str(soakd.path), "flag"), uid=os.getuid())) as client:
        client.hello()
        yield client


def test_the_clients_version_is_the_wires() -> None:
    """The client keeps its own copy, since the module with the other is dear to import."""
    assert soakctl.client.PROTOCOL_MAJOR == messages.PROTOCOL_MAJOR


def test_an_error_answer_becomes_a_failure_with_its_problems(
    soakd: FakeSoakd, client: Client
) -> None:
    """Code, message and every problem arrive."""

    def refuse(*_: object) -> None:
        raise WireError("bad_plan", "cannot accept the plan", {"problems": ["one", "two"]})

    soakd.handlers["run.start"] = refuse
    with pytest.raises(Failure) as caught:
        client.call("run.start", {"plan": {}})
    assert (caught.value.code, caught.value.problems) == ("bad_plan", ("one", "two"))


def test_a_single_problem_that_the_message_has_is_not_told_twice(
    soakd: FakeSoakd, client: Client
) -> None:
    """A list of one line below the same line helps nobody."""

    def refuse(*_: object) -> None:
        raise WireError("bad_plan", "cannot use the plan: one", {"problems": ["one"]})

    soakd.handlers["run.start"] = refuse
    with pytest.raises(Failure) as caught:
        client.call("run.start", {"plan": {}})
    assert caught.value.problems == ()


def test_notifications_come_before_the_result_of_their_stream(
    soakd: FakeSoakd, client: Client
) -> None:
    """In order, and the answer is the stream's result."""

    def logs(_params: Params, notify: Notify) -> dict[str, object]:
        for seq in (1, 2, 3):
            notify("run.log", {"seq": seq, "data": b"x"})
        return {"run": "r7", "bytes": 3}

    soakd.handlers["run.logs"] = logs
    stream = client.stream("run.logs", {"run": "r7"})
    assert [piece["seq"] for piece in stream if piece] == [1, 2, 3]
    assert stream.result == {"run": "r7", "bytes": 3}


def test_a_call_within_a_stream_keeps_the_streams_notifications(
    soakd: FakeSoakd, client: Client
) -> None:
    """`stop` asks while its watch is open."""
    asked = threading.Event()

    def watch(_params: Params, notify: Notify) -> dict[str, object]:
        notify("run.event", {"seq": 1})
        notify("run.event", {"seq": 2})
        assert asked.wait(5)
        return {"run": "r7", "last_seq": 2}

    def stop(*_: object) -> dict[str, object]:
        asked.set()
        return {"id": "r7"}

    soakd.handlers |= {"run.watch": watch, "run.stop": stop}
    seen: list[int] = []
    for event in client.stream("run.watch", {"run": "r7"}):
        assert event is not None
        if not seen:
            assert client.call("run.stop", {"run": "r7"}) == {"id": "r7"}
        seen.append(event["seq"])
    assert seen == [1, 2]


def test_a_tick_is_none(soakd: FakeSoakd, client: Client) -> None:
    """Nothing came for `tick_s`: the follower may look at its clock."""
    ticked = threading.Event()

    def watch(*_: object) -> dict[str, object]:
        assert ticked.wait(5)
        return {}

    soakd.handlers["run.watch"] = watch
    for event in client.stream("run.watch", {}, tick_s=0.01):
        assert event is None
        ticked.set()


def test_a_stream_that_stays_silent_too_long_is_a_failure(soakd: FakeSoakd, client: Client) -> None:
    """`collect` does not wait for ever for a soakd that hangs."""
    end = threading.Event()
    soakd.handlers["run.collect"] = lambda *_: end.wait(5) and {}
    with pytest.raises(Failure, match="sent nothing for 0.01 s"):
        list(client.stream("run.collect", {}, idle_timeout_s=0.01))
    end.set()


def test_an_unanswered_call_is_a_time_out(soakd: FakeSoakd, client: Client) -> None:
    """124, with the method named."""
    end = threading.Event()
    soakd.handlers["daemon.info"] = lambda *_: end.wait(5) and {}
    with pytest.raises(Failure, match=r"cannot daemon\.info") as caught:
        client.call("daemon.info", timeout_s=0.01)
    assert caught.value.code == "timeout"
    end.set()


def test_a_soakd_that_hangs_up_is_a_lost_connection(soakd: FakeSoakd, client: Client) -> None:
    """Not a failure of the soak: its shim goes on."""

    def hang_up(*_: object) -> None:
        raise Hangup

    soakd.handlers["run.status"] = hang_up
    with pytest.raises(ConnectionLost, match="soakd closed the connection"):
        client.call("run.status")


def test_bye_says_why_soakd_ends_the_connection(soakd: FakeSoakd, client: Client) -> None:
    """Its code is the command's, not a lost connection."""

    def goodbye(_params: Params, notify: Notify) -> None:
        notify("bye", {"code": "refused", "message": "cannot serve more than 64 connections"})
        raise Hangup

    soakd.handlers["run.status"] = goodbye
    with pytest.raises(Failure, match="64 connections") as caught:
        client.call("run.status")
    assert caught.value.code == "refused"


def test_a_soakd_that_ends_is_a_lost_connection_too(soakd: FakeSoakd, client: Client) -> None:
    """It says goodbye before it restarts: whoever follows a run waits for it to come back."""

    def goodbye(_params: Params, notify: Notify) -> None:
        notify("bye", {"code": "no_daemon", "message": "cannot go on: this soakd is stopping"})
        raise Hangup

    soakd.handlers["run.status"] = goodbye
    with pytest.raises(ConnectionLost, match="this soakd is stopping"):
        client.call("run.status")


def test_garbage_from_the_server_is_explained() -> None:
    """Whoever listens there, it is not soakd."""
    ours, theirs = socket.socketpair()
    with Client(ours) as client, theirs:
        theirs.sendall(b"HTTP/1.1 400 Bad Request\r\n")
        with pytest.raises(Failure, match="cannot understand soakd"):
            client.call("hello", {})


def test_a_dead_server_may_have_said_why_before() -> None:
    """The request could not be sent, but the goodbye still lies in the socket."""
    ours, theirs = socket.socketpair()
    with Client(ours) as client:
        theirs.sendall(encode_notification("bye", {"code": "version", "message": "too old"}))
        theirs.close()
        with pytest.raises(Failure, match="too old"):
            client.call("hello", {})
