"""Everything a run writes about itself, in the order that makes it trustworthy.

`rounds.ndjson` is the truth about rounds: a round is reported (counted, shown, checkpointed) only
after its line is on the disk. The other files follow it. One `Records` per live run; it owns the
counters and the numbering of events. Called by `run` and `measure`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from soakd.core import rows
from soakd.core.errors import HostError
from soakd.core.rounds import RoundResult
from soakd.core.series import Series
from soakd.core.stats import Counters
from soakd.core.trouble import RoundErrors
from soakd.drivers.driver import NodeConfig
from soakd.edge.clock import boot_now, rfc3339, script_time, wall_now
from soakd.edge.journal import RunFolder

RUNNER_LOG = "logs/runner.log"
SOAK_LOG = "logs/soak.log"
ROUNDS = "logs/rounds.ndjson"
ROUNDS_TSV = "logs/rounds.tsv"
STATUS = "logs/status.ndjson"
SAMPLES = "logs/status_samples.ndjson"
EVENTS = "logs/events.ndjson"
RESOURCES = "logs/resources.ndjson"
ANSWERS = "logs/answers.ndjson"
RUNNER_STATE = "runner.state"
MAX_SOAKS = 250
"""A status names each with the gates that it broke, and must fit into a frame."""
BLOCK_BYTES = 512
"""Unit of `st_blocks`, whatever the file system."""


class Records:
    """The records of one run; every method but `round` returns without waiting for the disk."""

    def __init__(self, folder: RunFolder, windows_s: Iterable[float] = ()) -> None:
        """Continues what stands in the folder: counters, round numbers and event numbers go on.

        Args:
            folder: the run's folder, open for writing.
            windows_s: lengths of the windows that gates will ask for.
        """
        self.folder = folder
        self.series = Series(windows_s)
        self.on_news: Callable[[], None] | None = None
        """Called after each round and each sample of a process, once it is part of `series`."""
        # A row without its record was never reported: the crash came in between.
        _keep_lines(folder, ROUNDS_TSV, sum(1 for _ in folder.read_lines(ROUNDS)))
        counted = rows.counters_from_lines(
            line.decode("utf-8", "replace") for line in folder.read_lines(ROUNDS)
        )
        _, self.last_round = counted
        for line in folder.read_lines(ROUNDS):
            self.series.round(json.loads(line.decode("utf-8", "replace")))
        for sample in _maps(folder, RESOURCES):
            self.series.resources(sample)
        self.part: Series | None = None
        """The sums of the soak under way on kept nodes."""
        self.soaks: list[dict[str, Any]] = []
        """The soaks on kept nodes that have ended."""
        self.begun_soak = 0
        """Number of the soak on kept nodes that began last."""
        self.is_cold = False
        """The nodes did not get warm for it."""
        self.panics = 0
        self.errors = RoundErrors()
        self._events = 0
        self._told: dict[tuple[str, bool], int] = {}
        for line in folder.read_lines(EVENTS):
            self._take(json.loads(line))

    @property
    def counters(self) -> Counters:
        """All rounds by outcome."""
        return self.series.rounds.counters

    async def begin_part(self, number: int, windows_s: Iterable[float], *, is_new: bool) -> None:
        """Sums up the rounds of a soak on kept nodes apart, those that are recorded already too.

        Args:
            number: the soak's, `measurement` in its rounds.
            windows_s: lengths of the windows that its gates will ask for.
            is_new: nothing of it is recorded; the rounds of all soaks need not be read.
        """
        if is_new:
            self.part = Series(windows_s)
        else:
            await trio.to_thread.run_sync(self.resume_part, number, windows_s)

    def resume_part(self, number: int, windows_s: Iterable[float]) -> None:
        """Sums up what is recorded of a soak; reads the rounds of all soaks for that."""
        part = Series(windows_s)
        for line in self.folder.read_lines(ROUNDS):
            record = json.loads(line.decode("utf-8", "replace"))
            if record.get("measurement") == str(number):
                part.round(record)
        self.part = part

    def marker(self, text: str) -> None:
        """One line of `runner.log`, with its time as the scripts wrote it."""
        self.folder.append(RUNNER_LOG, _bytes(rows.log_line(script_time(wall_now()), text)))

    def soak_log(self, text: str) -> None:
        """One line of `soak.log`; the triage of the scripts looks for `stop requested` there."""
        self.folder.append(SOAK_LOG, _bytes(rows.log_line(script_time(wall_now()), text)))

    def event(self, kind: str, node: str | None, data: Mapping[str, Any]) -> dict[str, Any]:
        """Appends a numbered event and returns it as written."""
        event = {
            "n": self._events + 1,
            "at": rfc3339(wall_now()),
            "boot_s": round(boot_now(), 3),
            "kind": kind,
            "node": node,
            "data": dict(data),
        }
        self.folder.append(EVENTS, _line(event))
        self._take(event)
        return event

    def told_until(self, node: str, *, panics: bool) -> int:
        """Up to which byte of a node's output its panics, or its other lines, are events."""
        return self._told.get((node, panics), 0)

    def status_sample(self, node: str, body: str) -> None:
        """A status snapshot that the sampler saw for the first time."""
        self.folder.append(
            SAMPLES, rows.status_row(script_time(wall_now()), node.upper(), body).encode()
        )

    def round_status(self, node: str, body: str) -> None:
        """The status of a node at the end of a round."""
        self.folder.append(
            STATUS, rows.status_row(script_time(wall_now()), node.upper(), body).encode()
        )

    def answer(self, node: str, step: str, number: int | None, body: str) -> None:
        """A raw answer of a self-test; `number` is the round's, None before the first."""
        record = {"at": rfc3339(wall_now()), "round": number, "node": node, "step": step}
        self.folder.append(ANSWERS, _line({**record, "body": body}))

    def resources(self, node: str, sample: Mapping[str, Any]) -> None:
        """A sample of a node's process."""
        record = {"at": rfc3339(wall_now()), "node": node, **sample}
        self.folder.append(RESOURCES, _line(record))
        self.series.resources(record)
        if self.part is not None:
            self.part.resources(record)
        self._tell()

    async def round(self, result: RoundResult, publisher_id: str | None) -> None:
        """Records a round durably, then counts it; shielded, so that a stop cannot lose it.

        Raises:
            HostError: the disk refuses; the round is not counted.
        """
        now_s, now_wall = boot_now(), wall_now()

        def wall(boot_s: float) -> str:
            return rfc3339(now_wall - (now_s - boot_s))

        record = rows.round_record(
            result,
            started_at=wall(result.started_at_s),
            publish_at=None if result.publish_at_s is None else wall(result.publish_at_s),
            ended_at=wall(result.ended_at_s),
            publisher_id=publisher_id,
        )
        row = rows.tsv_row(
            script_time(now_wall),
            result.spec.number,
            result.spec.file_id,
            result.publish_body,
            result.search_body,
            result.final_body,
        )
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(
                self._write_round, rows.record_json(record).encode(), _bytes(row)
            )
        self._count(record)

    def staged_config(self, node: str) -> NodeConfig:
        """What `plan.json` says of a staged node.

        Raises:
            HostError: it says nothing of it.
        """
        try:
            plan = json.loads((self.folder.path / "plan.json").read_text())
            return NodeConfig.from_dict(plan["staged"][node])
        except (OSError, ValueError, KeyError, TypeError) as error:
            text = f"cannot read plan.json of the run for node {node}: {error!r}"
            raise HostError("internal", text) from error

    async def skip_cut_round(self, columns: Callable[[int], rows.Pair], cause: str) -> None:
        """Records the round that soakd left under way, if there was one, as skipped.

        Args:
            columns: gives the columns of a round by its number.
            cause: such as `gap`.
        """
        begun = rows.last_round_begun(
            line.decode("utf-8", "replace") for line in self.folder.read_lines(RUNNER_LOG)
        )
        if begun is None or begun.number <= self.last_round:
            return
        now = wall_now()
        record = rows.skipped_record(begun, columns(begun.number), cause, rfc3339(now))
        row = rows.tsv_row(script_time(now), begun.number, begun.file_id, "", "", "")
        line = rows.record_json(record).encode()
        await trio.to_thread.run_sync(self._write_round, line, _bytes(row))
        self._count(record)

    def used_bytes(self) -> int:
        """Size of all records and outputs; the node folders are their user's affair."""
        # Blocks, not lengths: the middle of a node's output may have been punched out.
        blocks = 0
        for path in (self.folder.path / "logs").iterdir():
            with suppress(FileNotFoundError):
                blocks += path.lstat().st_blocks
        return blocks * BLOCK_BYTES

    @property
    def rounds_bytes(self) -> int:
        """Length of rounds.ndjson: the counters count up to there."""
        return self.folder.size(ROUNDS)

    def head(self, name: str, count: int) -> bytes:
        """The first bytes of a file of the run folder; empty if there is none."""
        try:
            fd = self.folder.open_file(name)
        except FileNotFoundError:
            return b""
        try:
            return os.pread(fd, count, 0)
        finally:
            os.close(fd)

    async def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Replaces a whole file such as `run.json` durably."""
        await self.write(name, json.dumps(data, indent=2) + "\n")

    async def write(self, name: str, text: str) -> None:
        """Replaces a whole file durably.

        Raises:
            HostError: the disk refuses; the old content stands.
        """
        await trio.to_thread.run_sync(self.folder.write_atomic, name, text.encode())

    async def state_file(self, word: str) -> None:
        """`runner.state` as the scripts wrote it: running, completed, failed or stopped."""
        await self.write(RUNNER_STATE, f"{word}\n")

    def _write_round(self, record: bytes, row: bytes) -> None:
        # The row first: a crash in between leaves a row too many, which the next open cuts off; a
        # missing one could not be made again.
        self.folder.append(ROUNDS_TSV, row)
        self.folder.sync(ROUNDS_TSV)
        self.folder.append(ROUNDS, record)
        self.folder.sync(ROUNDS)

    def _take(self, event: Mapping[str, Any]) -> None:
        """Counts an event, new or of an earlier soakd."""
        self._events += 1
        kind, node, data = event.get("kind"), event.get("node"), event.get("data") or {}
        if kind == "soak_begun":
            self.begun_soak, self.is_cold = data["number"], False
        if kind == "not_warm":
            self.is_cold = True
        if kind == "soak_ended" and len(self.soaks) < MAX_SOAKS:
            self.soaks.append(dict(data))
        is_panic = kind == "panic"
        if is_panic:
            self.panics += 1 + data.get("untold", 0)
        if kind == "round_error":
            self.errors.add(node, data.get("trouble"), data.get("text", ""))
        if node is not None and "at_byte" in data:
            self._told[node, is_panic] = max(
                self.told_until(node, panics=is_panic), data["at_byte"]
            )

    def _count(self, record: Mapping[str, Any]) -> None:
        self.series.round(record)
        if self.part is not None:
            self.part.round(record)
        self.last_round = record["round"]
        self._tell()

    def _tell(self) -> None:
        if self.on_news is not None:
            self.on_news()


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def _maps(folder: RunFolder, name: str) -> Iterator[dict[str, Any]]:
    """The objects of a file of lines; what is none, such as a line of a full disk, is left out."""
    for line in folder.read_lines(name):
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                yield found


def last_sign_of_life(folder: Path) -> float:
    """When a run was last measured, as far as its files know (epoch seconds).

    To be asked before anything is opened for writing, which may touch the files.
    """
    names = (RUNNER_LOG, ROUNDS, SAMPLES, EVENTS)
    times = [(folder / name).stat().st_mtime for name in names if (folder / name).exists()]
    return max(times, default=folder.stat().st_mtime)


def _keep_lines(folder: RunFolder, name: str, wanted: int) -> None:
    """Cuts a file of lines off behind its `wanted` first ones."""
    length = 0
    for number, line in enumerate(folder.read_lines(name), 1):
        if number > wanted:
            os.truncate(folder.path / name, length)
            return
        length += len(line) + 1


def _bytes(text: str) -> bytes:
    """UTF-8, with what UTF-8 cannot hold (names on disk, a node's odd answers) as escapes."""
    return text.encode("utf-8", "backslashreplace")
