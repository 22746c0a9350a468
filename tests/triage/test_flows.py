"""Outcomes by flow, confirmed by SQL; the worst are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from soakd.triage import text
from soakd.triage.triage import triage
from tests.triage import kit

_NAMES = ("source:a>b", "source:b>a", "keyword:a>b")


def _many_flows(folder: Path, flows: list[str], rounds: int = 300) -> list[dict[str, Any]]:
    """Deal rounds to flows: the n-th flow misses most of what it would hit if n is large."""
    records = []
    for number, record in enumerate(kit.dealt_rounds(rounds)):
        place = number % len(flows)
        changes: dict[str, Any] = {"flow": flows[place], "measurement": str(1 + number % 3)}
        if record["outcome"] == "hit" and number % 100 < place:
            changes |= {"outcome": "miss", "first_seen_s": None}
        records.append(record | changes)
    kit.write_lines(folder / "logs" / "rounds.ndjson", records)
    return records


def test_every_flow_is_counted_as_sql_counts_it(tmp_path: Path) -> None:
    """All outcomes and the rate; the whole run's rate stays over all flows."""
    _many_flows(tmp_path, list(_NAMES))
    document = triage(str(tmp_path))
    store = kit.rounds_table(tmp_path / "logs" / "rounds.ndjson")
    rows = store.execute(
        """
        select json_extract(body, '$.flow'), count(*),
            sum(json_extract(body, '$.outcome') = 'hit'),
            sum(json_extract(body, '$.outcome') = 'late'),
            sum(json_extract(body, '$.outcome') = 'miss') as misses,
            sum(json_extract(body, '$.outcome') = 'error') as errors,
            sum(json_extract(body, '$.outcome') = 'skipped'),
            sum(json_extract(body, '$.prestored')),
            1.0 * sum(json_extract(body, '$.outcome') in ('hit', 'late'))
                / sum(json_extract(body, '$.outcome') in ('hit', 'late', 'miss'))
        from lines group by 1 order by misses desc, errors desc, 1
        """
    ).fetchall()
    keys = (
        "flow", "total", "hit", "late", "miss", "error", "skipped", "prestored", "hit_rate",
    )  # fmt: skip
    assert [tuple(flow[key] for key in keys) for flow in document["flows"]] == rows
    assert len(rows) == 3
    assert all(flow.keys() == set(keys) for flow in document["flows"])
    warm = store.execute(
        """
        select count(*) from lines where not json_extract(body, '$.cold')
            and json_extract(body, '$.outcome') in ('hit', 'late', 'miss')
        """
    ).fetchone()
    assert document["hit_rate"]["n"] == warm[0]


def test_the_text_shows_twenty_flows_and_how_many_more(tmp_path: Path) -> None:
    """The worst first; one flow alone is the run itself and not shown again."""
    _many_flows(tmp_path, [f"source:a>n{n}" for n in range(25)], rounds=1000)
    document = triage(str(tmp_path))
    lines = [line for line in text.lines(document) if " % of 40: " in line]
    assert len(document["flows"]) == 25
    assert len(lines) == 20
    assert [line.split()[0] for line in lines] == [flow["flow"] for flow in document["flows"][:20]]
    assert any(line.strip() == "and 5 more, see --json" for line in text.lines(document))
    misses = [flow["miss"] for flow in document["flows"]]
    assert misses == sorted(misses, reverse=True)
    assert misses[0] > misses[-1]
    _many_flows(tmp_path, ["source:a>b"])
    assert not any(line.startswith("  flows") for line in text.lines(triage(str(tmp_path))))


def test_flows_of_others_are_bounded_and_harmless(tmp_path: Path) -> None:
    """A flow without a classified round has no rate; a name cannot move the cursor or grow."""
    records = [
        kit.round_record(1, "hit", flow="x" * 5000),
        kit.round_record(2, "error", flow="\x1b[2J"),
    ]
    kit.write_lines(
        tmp_path / "logs" / "rounds.ndjson", [*records, kit.round_record(3, "hit", flow=None)]
    )
    document = triage(str(tmp_path))
    assert max(len(flow["flow"]) for flow in document["flows"]) == 200
    assert [flow["hit_rate"] for flow in document["flows"]].count(None) == 1
    assert "\x1b" not in "\n".join(text.lines(document))


def test_a_scripts_rounds_have_no_flows(tmp_path: Path) -> None:
    """Publisher and searcher stand in none of its files."""
    assert triage(str(kit.script_folder(tmp_path / "soak", 20)))["flows"] == []
