"""docs/protocol.md says what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from soakd.core.plan import parse_plan
from soakd.wire import results
from soakd.wire.errors import EXIT_STATUS
from soakd.wire.frames import Decoder, Notification, Request, Response
from soakd.wire.messages import METHODS, NOTIFICATIONS, check_params
from soakd.wire.results import EventKind

DOC = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")

TYPE_NAMES: dict[type, str] = {str: "text", int: "integer", bool: "boolean", dict: "map"}

RESULTS: dict[str, Any] = {
    "hello": results.HelloResult,
    "run.start": results.StartResult,
    "run.list": results.ListResult,
    "run.status": results.StatusResult,
    "run.stop": None,
    "run.watch": results.WatchResult,
    "run.logs": results.LogsResult,
    "run.collect": results.CollectResult,
    "run.plan": results.PlanResult,
    "run.flows": results.FlowsResult,
    "run.soak": results.SoakResult,
    "run.extend": results.ExtendResult,
    "run.label": results.LabelResult,
    "run.forget": results.ForgetResult,
    "queue.list": results.QueueResult,
    "queue.hold": results.PlaceResult,
    "queue.release": results.PlaceResult,
    "queue.top": results.PlaceResult,
    "daemon.info": results.DaemonInfo,
    "daemon.drain": results.DrainResult,
    "daemon.resume": results.DrainResult,
    "daemon.shutdown": None,
}


def section(name: str) -> str:
    """Return the text below the heading of a method or notification."""
    found = re.search(rf"^### `{re.escape(name)}`\n(.*?)(?=^##|\Z)", DOC, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{name} is not documented"
    return found[1]


def frames(text: str) -> list[bytes]:
    """Return the frames shown in hex."""
    return [bytes.fromhex(block) for block in re.findall(r"```hex\n(.*?)```", text, re.DOTALL)]


def test_every_method_and_notification_is_documented_and_no_other() -> None:
    """A new row in the table needs its section, and a removed one loses it."""
    assert re.findall(r"^### `(.*)`$", DOC, re.MULTILINE) == [*METHODS, *NOTIFICATIONS]


@pytest.mark.parametrize("name", METHODS)
def test_access_is_the_tables(name: str) -> None:
    """The right to call, and whether it streams."""
    method = METHODS[name]
    line = f"Access: {method.access}" + (", streaming" if method.stream else "")
    assert f"\n{line}\n" in section(name)


@pytest.mark.parametrize("name", METHODS)
def test_parameters_are_the_tables(name: str) -> None:
    """Names, types and whether they are required, in order."""
    row = r"^\| `(\w+)` \| (\w+) \| (yes|no) \|"
    assert re.findall(row, section(name), re.MULTILINE) == [
        (key, TYPE_NAMES[param.types[0]], "yes" if param.required else "no")
        for key, param in METHODS[name].params.items()
    ]


@pytest.mark.parametrize("name", METHODS)
def test_results_name_every_key(name: str) -> None:
    """Whatever the result type has is explained."""
    assert "Result" in section(name)
    result = RESULTS[name]
    if result is not None:
        keys: set[str] = result.__required_keys__ | result.__optional_keys__
        assert [key for key in sorted(keys) if f"`{key}`" not in section(name)] == []


@pytest.mark.parametrize("name", METHODS)
def test_the_example_frame_of_a_method_is_a_right_request(name: str) -> None:
    """Somebody may paste it into a socket."""
    (frame,) = frames(section(name))
    (message,) = Decoder().feed(frame)
    assert isinstance(message, Request)
    assert message.method == name
    assert message.problem is None
    check_params(name, message.params)
    if name == "run.start":
        plan = message.params["plan"]
        assert isinstance(plan, dict)
        parse_plan(plan)


@pytest.mark.parametrize("name", NOTIFICATIONS)
def test_the_example_frame_of_a_notification_decodes(name: str) -> None:
    """With the params that its text names."""
    (frame,) = frames(section(name))
    (message,) = Decoder().feed(frame)
    assert isinstance(message, Notification)
    assert message.method == name
    assert [key for key in message.params if f"`{key}`" not in section(name)] == []


def test_errors_and_their_exit_statuses_are_the_tables() -> None:
    """Codes, statuses and order; the example is a response with an error."""
    text = DOC[DOC.index("## Errors") : DOC.index("## Access")]
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)
    assert {code: int(status) for code, status in rows} == EXIT_STATUS
    (message,) = Decoder().feed(frames(text)[0])
    assert isinstance(message, Response)
    assert message.error is not None
    assert message.error["code"] in EXIT_STATUS


def test_event_kinds_are_the_types() -> None:
    """Every kind of event is explained."""
    assert set(re.findall(r"^\| `(\w+)` \|", section("run.event"), re.MULTILINE)) == set(
        get_args(EventKind)
    )


def test_errors_named_by_methods_exist() -> None:
    """A code that nobody sends would mislead."""
    for name in METHODS:
        line = re.search(r"^Errors: (.*)$", section(name), re.MULTILINE)
        named = set() if line is None else set(re.findall(r"`(\w+)`", line[1]))
        assert named <= set(EXIT_STATUS)
