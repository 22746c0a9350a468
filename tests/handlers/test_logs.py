"""Logs, as they are and as they grow; real files, real inotify, real clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from tests.handlers.calls import call, fail
from tests.handlers.fakes import Caller, FakeScheduler


def caller_in(folder: Path) -> Caller:
    """Return a caller whose run keeps its logs in the folder."""
    return Caller(scheduler=FakeScheduler(folder))


def text_of(caller: Caller) -> bytes:
    """Return everything sent, after checking the numbers."""
    assert [params["seq"] for _method, params in caller.heard] == list(
        range(1, len(caller.heard) + 1)
    )
    assert {method for method, _params in caller.heard} <= {"run.log"}
    return b"".join(params["data"] for _method, params in caller.heard)


async def test_the_log_as_it_is(tmp_path: Path) -> None:
    """Without `follow` the end of the file is the end."""
    (tmp_path / "a.out").write_bytes(b"one\ntwo\n")
    caller = caller_in(tmp_path)
    assert await call(caller, "run.logs", node="a") == {"run": "r7", "bytes": 8}
    assert text_of(caller) == b"one\ntwo\n"


async def test_the_last_lines(tmp_path: Path) -> None:
    """`tail` as the command of that name; 0 is nothing of the past."""
    (tmp_path / "runner.log").write_bytes(b"one\ntwo\n")
    caller = caller_in(tmp_path)
    assert (await call(caller, "run.logs", tail=1))["bytes"] == 4
    assert (await call(caller, "run.logs", tail=0))["bytes"] == 0


async def test_the_raw_answers_of_a_self_test(tmp_path: Path) -> None:
    """A file of their own, beside the log."""
    (tmp_path / "answers.ndjson").write_bytes(b"{}\n")
    caller = caller_in(tmp_path)
    assert (await call(caller, "run.logs", answers=True))["bytes"] == 3


async def test_a_log_that_does_not_exist_is_refused_for_now(tmp_path: Path) -> None:
    """The run may be queued still."""
    error = await fail(caller_in(tmp_path), "run.logs", node="a")
    assert error["code"] == "refused"
    assert "a.out does not exist (yet); `soakctl status r7` names its nodes" in error["message"]


async def follow(caller: Caller, results: list[Any]) -> None:
    """Follow in the background and keep the answer."""
    results.append(await call(caller, "run.logs", node="a", follow=True))


async def test_following_waits_for_the_file_sends_growth_and_ends_with_the_run(
    tmp_path: Path,
) -> None:
    """From before the file exists until after the last line."""
    path = tmp_path / "a.out"
    caller = caller_in(tmp_path)
    results: list[Any] = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, caller, results)
            await caller.scheduler.watching.wait()
            feed = caller.scheduler.feed
            assert feed is not None
            await feed.send({"seq": 1, "kind": "state", "data": {}})
            await trio.testing.wait_all_tasks_blocked()
            path.write_bytes(b"one\n")
            await feed.send({"seq": 2, "kind": "state", "data": {}})
            await caller.wait_heard(1)
            with path.open("ab", buffering=0) as writer:
                writer.write(b"two\n")
                await caller.wait_heard(2)
                writer.write(b"three\n")
                caller.scheduler.end()  # the last line and the end come together
    assert text_of(caller) == b"one\ntwo\nthree\n"
    assert results == [{"run": "r7", "bytes": 14}]
    assert caller.scheduler.unwatched.is_set()


async def test_following_a_run_that_ends_without_a_log(tmp_path: Path) -> None:
    """A cancelled queued run never writes: the follower is told instead of waiting for ever."""
    caller = caller_in(tmp_path)
    errors: list[dict[str, Any]] = []

    async def follow_nothing() -> None:
        errors.append(await fail(caller, "run.logs", node="a", follow=True))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow_nothing)
            await caller.scheduler.watching.wait()
            caller.scheduler.end()
    assert errors[0]["code"] == "refused"


async def test_following_a_finished_run_is_reading_it(tmp_path: Path) -> None:
    """Nothing will be written any more, so nothing is waited for."""
    (tmp_path / "a.out").write_bytes(b"all\n")
    caller = caller_in(tmp_path)
    caller.scheduler.finished = True
    with trio.fail_after(10):
        await call(caller, "run.logs", node="a", follow=True)
    assert text_of(caller) == b"all\n"
    assert caller.scheduler.calls == []


async def test_the_end_of_the_run_ends_a_follower_that_waits_for_growth(tmp_path: Path) -> None:
    """No byte comes any more: the event of the run's end is what wakes it."""
    (tmp_path / "a.out").write_bytes(b"one\n")
    caller = caller_in(tmp_path)
    results: list[Any] = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, caller, results)
            await caller.wait_heard(1)
            await trio.testing.wait_all_tasks_blocked(0.02)
            caller.scheduler.end()
    assert results == [{"run": "r7", "bytes": 4}]
