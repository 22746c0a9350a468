"""Makes the records of a soak as the scripts left them, of any length, for tests and benchmarks.

`even` numbers are what nodes have: gauges that drift, windows of a minute with most counters 0,
the same snapshot in two rounds. `wild` ones are different in every line and every field: the
hardest case for a reader that counts on repetition.
"""

from __future__ import annotations

import json
import random
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from soakd.simnode.status import GAUGES, LIFETIME, WINDOW

ROUND_S = 45
MISSED_ROUND_S = 65
WINDOW_S = 60
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-~"
_BEGIN = datetime(2026, 2, 24, 10, 0, 0, tzinfo=timezone(timedelta(hours=1)))
# What a window of a quiet node counts; all others stay 0.
_BUSY = frozenset(
    """
    sent_reqs recv_req recv_ress recv_res res_contacts timeouts new_nodes recv_hello_reqs
    sent_hellos recv_hello_ress sent_search_source_reqs recv_search_ress search_results
    new_sources recv_search_source_reqs source_search_misses sent_publish_source_reqs
    recv_publish_ress source_search_batch_candidates source_search_batch_sent
    source_search_batch_send_fail source_publish_batch_candidates source_publish_batch_sent
    source_publish_batch_send_fail source_probe_first_search_responses
    source_probe_search_latency_ms_total tracked_out_matched outbound_shaper_delayed
    """.replace("\n", " ")
    .strip()
    .split(" ")
) - {""}


class Node:
    """One node's status, window after window."""

    def __init__(self, dice: random.Random, *, wild: bool) -> None:
        self._dice = dice
        self._wild = wild
        self._totals = dict.fromkeys(LIFETIME, 0)
        self._gauges = dict.fromkeys(GAUGES, 0) | {"routing": 137, "live": 3, "live_10m": 2}
        self._window = -1
        self._text = ""

    def status(self, uptime_s: int) -> str:
        """Return the last snapshot before this uptime."""
        window = uptime_s if self._wild else uptime_s // WINDOW_S
        if window != self._window:
            self._window = window
            self._text = json.dumps(self._snapshot(uptime_s), separators=(",", ":"))
        return self._text

    def _snapshot(self, uptime_s: int) -> dict[str, int]:
        dice = self._dice
        for key in self._gauges:
            if self._wild:
                self._gauges[key] = dice.randrange(100_000)
            elif dice.random() < 0.1:
                self._gauges[key] = max(0, self._gauges[key] + dice.choice((-1, 1, 1)))
        self._gauges["uptime_secs"] = uptime_s if self._wild else self._window * WINDOW_S
        counted = {key: self._count(key) for key in WINDOW}
        for key in self._totals:
            self._totals[key] += dice.randrange(50)
        return self._gauges | counted | self._totals

    def _count(self, key: str) -> int:
        if self._wild:
            return self._dice.randrange(100_000)
        return self._dice.randrange(40) if key in _BUSY and self._dice.random() < 0.6 else 0


def write(folder: Path, rounds: int, *, wild: bool = False, seed: int = 1) -> None:
    """Write the scripts' files of a soak of so many rounds below a folder."""
    dice = random.Random(seed)
    (folder / "logs").mkdir(parents=True)
    sources = [(_hex(dice, 32), "".join(dice.choices(_ALPHABET, k=516))) for _ in range(14)]
    nodes = {"A": Node(dice, wild=wild), "B": Node(dice, wild=wild)}
    logs = folder / "logs"
    with (
        (logs / "rounds.tsv").open("w") as tsv,
        (logs / "status.ndjson").open("w") as status,
        (logs / "runner.log").open("w") as runner,
        (logs / "a.out").open("w") as a_out,
        (logs / "b.out").open("w") as b_out,
    ):
        runner.write(f"{_time(0)} soak-start duration_secs={rounds * 60} deadline_epoch=0\n")
        passed_s = 0
        for number, (is_hit, is_late) in enumerate(_fates(dice, rounds), 1):
            file_id = _hex(dice, 32)
            runner.write(f"{_time(passed_s)} round={number} file={file_id} size=4096\n")
            passed_s += ROUND_S if is_hit and not is_late else MISSED_ROUND_S
            at = _time(passed_s)
            if is_late:
                runner.write(f"{at} round={number} miss_recheck_hit attempt=1 file={file_id}\n")
            found = ""
            if is_hit:
                found = '{{"source_id_hex":"{}","udp_dest_b64":"{}"}}'.format(*dice.choice(sources))
            body = f'{{"file_id_hex":"{file_id}","sources":[{found}]}}'
            queued = '{"queued":true}'
            tsv.write("\t".join((at, str(number), file_id, queued, queued, body)) + "\n")
            for letter, out in (("A", a_out), ("B", b_out)):
                status.write(f"{at}\t{letter}\t{nodes[letter].status(passed_s)}\n")
                out.write(_log_line(passed_s))
            if number % 997 == 0:
                b_out.write(_panic(number))
    (logs / "soak.log").write_text(f"{_time(passed_s)} stop requested\n")
    (folder / "runner.out").write_text("runner started pid=4711\nrunner terminated\n")
    (folder / "runner.state").write_text("completed\n")


def pack(folder: Path, target: Path) -> None:
    """Pack a folder as the scripts did."""
    with tarfile.open(target, "w:gz", compresslevel=6) as tarball:
        for path in sorted(folder.rglob("*")):
            tarball.add(path, path.relative_to(folder), recursive=False)


def _fates(dice: random.Random, rounds: int) -> Iterator[tuple[bool, bool]]:
    """Hit and late of each round; misses come in streaks."""
    is_hit = True
    for _ in range(rounds):
        if dice.random() < (0.1 if is_hit else 0.4):
            is_hit = not is_hit
        yield is_hit, is_hit and dice.random() < 0.1


def _time(passed_s: int) -> str:
    return (_BEGIN + timedelta(seconds=passed_s)).strftime("%Y-%m-%dT%H:%M:%S%z")


def _hex(dice: random.Random, digits: int) -> str:
    return f"{dice.getrandbits(4 * digits):0{digits}x}"


def _log_line(passed_s: int) -> str:
    at = (_BEGIN + timedelta(seconds=passed_s)).astimezone(UTC)
    return (
        f"{at:%Y-%m-%dT%H:%M:%S}.000000Z  INFO rust_mule::kad::service: kad status"
        ' event="kad_status" routing=137 live=3 live_10m=2 pending=0\n'
    )


def _panic(number: int) -> str:
    return (
        f"thread 'tokio-runtime-worker' ({number}) panicked at src/kad/service.rs:12:9:\n"
        f"index out of bounds: the len is 3 but the index is {number}\n"
        "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n"
    )
