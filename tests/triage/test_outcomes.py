"""Outcomes, intervals, first sight and measured time, confirmed by SQL and by hand."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from soakd.triage.triage import triage
from tests.triage import kit


def _run(folder: Path, records: list[dict[str, Any]]) -> Path:
    kit.write_lines(folder / "logs" / "rounds.ndjson", records)
    return folder


def _sql(path: Path, query: str) -> Any:
    return kit.rounds_table(path).execute(query).fetchall()


def test_outcomes_stand_apart_as_sql_counts_them(tmp_path: Path) -> None:
    """By type, prestored, cold; errors by step."""
    folder = _run(tmp_path, kit.dealt_rounds(500))
    outcomes = triage(str(folder))["outcomes"]
    path = folder / "logs" / "rounds.ndjson"
    group = "select json_extract(body, '$.outcome'), count(*) from lines {} group by 1"
    counts = dict(_sql(path, group.format("")))
    assert set(counts) == {"hit", "late", "miss", "error", "skipped"}
    assert {name: outcomes[name] for name in counts} == counts
    assert outcomes["total"] == 500
    prestored = dict(_sql(path, group.format("where json_extract(body, '$.prestored')")))
    assert {k: v for k, v in outcomes["prestored_by_outcome"].items() if v} == prestored
    assert outcomes["prestored"] == sum(prestored.values())
    cold = dict(_sql(path, group.format("where json_extract(body, '$.cold')")))
    assert {k: v for k, v in outcomes["cold"].items() if v} == cold | {"total": 10}
    assert outcomes["errors_by_step"] == {"search": counts["error"]}
    assert outcomes["from"] == "logs/rounds.ndjson"


def test_the_interval_is_wilsons_at_the_effective_number(tmp_path: Path) -> None:
    """The textbook's formulas over the outcomes, two passes and no accumulator."""
    records = kit.dealt_rounds(400)
    rate = triage(str(_run(tmp_path, records)))["hit_rate"]
    # Cold rounds are counted apart.
    warm = [record for record in records if not record["cold"]]
    values = [r["outcome"] != "miss" for r in warm if r["outcome"] in ("hit", "late", "miss")]
    n, mean = len(values), sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values)
    pairs = pairwise(values)
    rho = sum((one - mean) * (two - mean) for one, two in pairs) / spread
    worth = min(n, n * (1 - rho) / (1 + rho))
    z = 1.959963984540054
    middle = (mean + z * z / (2 * worth)) / (1 + z * z / worth)
    root = math.sqrt(mean * (1 - mean) / worth + z * z / (4 * worth * worth))
    half = z / (1 + z * z / worth) * root
    assert rho > 0.2
    assert (rate["value"], rate["n"]) == (mean, n)
    assert rate["rho"] == pytest.approx(rho)
    assert rate["effective_n"] == pytest.approx(worth)
    assert (rate["low"], rate["high"]) == pytest.approx((middle - half, middle + half))


def test_first_sight_takes_misses_as_censored(tmp_path: Path) -> None:
    """Ten sights and ten misses watched for 50 s: the median is known, the 95 % are not."""
    records = [kit.round_record(n, "hit", first_seen_s=float(n)) for n in range(1, 11)]
    for number in range(11, 21):
        miss = kit.round_record(number, "miss")
        miss["publish_at"] = miss["publish_at"].replace(".000Z", "Z")
        records.append(
            miss | {"publish_at": "2026-11-01T00:00:00Z", "ended_at": "2026-11-01T00:00:50Z"}
        )
    sight = triage(str(_run(tmp_path, records)))["first_sight"]
    assert (sight["n"], sight["censored"], sight["median_s"], sight["p95_s"]) == (
        20,
        10,
        10.0,
        None,
    )
    some = [*records[:10], *(r | {"ended_at": "2026-11-01T00:00:05.5Z"} for r in records[10:])]
    early = triage(str(_run(tmp_path / "early", some)))["first_sight"]
    # Product limit by hand: five seen of twenty, then five of the five that are left.
    survival, left, median = 1.0, 20, None
    for second in range(1, 11):
        left = 5 if second == 6 else left
        survival *= 1 - 1 / left
        left -= 1
        median = second if survival <= 0.5 + 1e-9 and median is None else median
    assert early["median_s"] == median


def test_a_scripts_rounds_are_told_apart_by_its_files(tmp_path: Path) -> None:
    """Late by the log, miss by the empty list, error by anything else, skipped without a row."""
    folder = kit.script_folder(tmp_path / "soak", 300)
    tsv, log = folder / "logs" / "rounds.tsv", folder / "logs" / "runner.log"
    rows = tsv.read_text().splitlines()
    rows[10:13] = ["\t".join([*row.split("\t")[:5], ""]) for row in rows[10:13]]
    tsv.write_text("\n".join(rows) + "\n")
    with log.open("a") as file:
        file.write(f"2026-02-24T20:00:00+0100 round=301 file={'0' * 32} size=1\n")
    outcomes = triage(str(folder))["outcomes"]
    finals = [row.split("\t")[5] for row in rows]
    late = log.read_text().count(" miss_recheck_hit ")
    assert late > 0
    assert outcomes["late"] == late
    assert outcomes["hit"] == sum('"sources":[{' in final for final in finals) - late
    assert outcomes["miss"] == sum('"sources":[]' in final for final in finals)
    assert (outcomes["error"], outcomes["skipped"], outcomes["prestored"]) == (3, 1, None)


def test_a_pause_in_a_scripts_rows_is_a_gap(tmp_path: Path) -> None:
    """An hour between two rows, less the usual interval."""
    folder = tmp_path / "soak"
    (folder / "logs").mkdir(parents=True)
    times = [f"2026-02-24T10:{n:02d}:00+0100" for n in range(30)]
    times += [f"2026-02-24T11:{n:02d}:00+0100" for n in range(29, 60)]
    rows = [f"{at}\t{n}\tid{n}\t\t\t" + '{"sources":[]}' for n, at in enumerate(times, 1)]
    (folder / "logs" / "rounds.tsv").write_text("\n".join(rows) + "\n")
    time = triage(str(folder))["time"]
    assert (time["whole_s"], time["gap_s"]) == (119 * 60, 3600 - 60)
    assert time["measured"] == pytest.approx(1 - 59 / 119)
    assert time["gaps"] == [
        {
            "from": "2026-02-24T10:29:00+0100",
            "to": "2026-02-24T11:29:00+0100",
            "s": 3540,
            "why": "no round was recorded",
        }
    ]


def test_gaps_that_soakd_booked_are_taken_from_the_time(tmp_path: Path) -> None:
    """By the events, within the time in which rounds were made."""
    records = kit.dealt_rounds(20)
    folder = _run(tmp_path, records)
    (folder / "logs" / "soak.log").write_text(
        "2026-11-01T00:00:00+0000 run state running\n2026-11-01T01:00:00+0000 run state stopping\n"
    )
    event = {"n": 1, "at": "2026-11-01T00:20:00Z", "boot_s": 1.0, "kind": "gap", "node": None}
    data = {"from": "2026-11-01T00:10:00Z", "to": "2026-11-01T00:19:00Z", "s": 540.0, "why": "x"}
    kit.write_lines(folder / "logs" / "events.ndjson", [event | {"data": data}])
    time = triage(str(folder))["time"]
    assert (time["whole_s"], time["gap_s"], time["gaps"]) == (3600.0, 540.0, [data])
    assert time["measured"] == pytest.approx(0.85)


def test_a_verdict_needs_what_its_gates_are_about(tmp_path: Path) -> None:
    """Without output and status nobody knows of panics and exits: inconclusive, not passed."""
    folder = tmp_path / "soak"
    (folder / "logs").mkdir(parents=True)
    row = '2026-02-24T10:0{}:00+0100\t{}\tid\t\t\t{{"sources":[{{}}]}}\n'
    (folder / "logs" / "rounds.tsv").write_text("".join(row.format(n, n) for n in range(9)))
    document = triage(str(folder))
    assert document["verdict"] == "inconclusive"
    unknown = {gate["gate"] for gate in document["gates"] if gate["status"] == "inconclusive"}
    assert unknown == {"node_exits == 0", "panics == 0"}


def test_a_node_that_answers_no_more_has_ended(tmp_path: Path) -> None:
    """Of a script's nodes: the last status line says whether it lived."""
    folder = kit.script_folder(tmp_path / "soak", 40)
    assert triage(str(folder), ["node_exits == 0"])["verdict"] == "passed"
    status = folder / "logs" / "status.ndjson"
    lines = status.read_text().splitlines()
    lines[-1] = lines[-1][:27]
    status.write_text("\n".join(lines) + "\n")
    assert triage(str(folder), ["node_exits == 0"])["verdict"] == "failed"


def test_gates_of_the_plan_with_windows_are_held_against_the_window(tmp_path: Path) -> None:
    """The plan may stand behind the rounds: they are read once more."""
    records = [kit.round_record(n, "miss") for n in range(1, 200)]
    records += [kit.round_record(n, "hit") for n in range(200, 400)]
    folder = _run(tmp_path, records)
    gates = ["hit_rate >= 90% over last 1h", "max_miss_streak <= 3 over last 1h"]
    (folder / "plan.json").write_text(json.dumps({"plan": {"gates": gates}}))
    document = triage(str(folder))
    by_gate = {gate["gate"]: gate for gate in document["gates"]}
    assert by_gate["hit_rate >= 90% over last 1h"]["value"] == 1.0
    assert by_gate["max_miss_streak <= 3 over last 1h"]["status"] == "passed"
    assert triage(str(folder), ["max_miss_streak <= 3"])["verdict"] == "failed"


def test_windows_of_a_script_are_made_of_its_rows(tmp_path: Path) -> None:
    """Rows have times too."""
    folder = kit.script_folder(tmp_path / "soak", 600)
    rows = (folder / "logs" / "rounds.tsv").read_text().splitlines()
    document = triage(str(folder), ["errors <= 5% over last 2h", "rounds >= 1 over last 2h"])
    counted = {gate["gate"]: gate["value"] for gate in document["gates"]}
    rounds = counted["rounds >= 1 over last 2h"]
    assert document["verdict"] == "passed"
    assert 7200 / 65 - 5 < rounds < 7200 / 45 < len(rows)
