"""From plain data to a plan, with all problems at once. Import from `soakd.core.plan`.

soakctl calls it before it sends a plan and soakd again on what it received: a client is not
to be trusted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, cast

from soakd.core.errors import UserError
from soakd.core.gates import parse_gate
from soakd.core.plan_attached import check_attached, gate_problem
from soakd.core.plan_checks import Names, Problems, Reader, show
from soakd.core.plan_keys import KEYS, default, with_scenario
from soakd.core.plan_nodes import (
    MAX_WORD_CHARS,
    read_env,
    read_nodes,
    read_optional_text,
    read_path,
)
from soakd.core.plan_shape import DEFAULT_DURATION_S, DEFAULT_KEEP_S, NodePlan, Plan
from soakd.core.warmup import parse_condition

MAX_LABEL_CHARS: Final = 64
MAX_GATES: Final = 32
MAX_CONDITIONS: Final = 8
MIN_READ_EVERY_S: Final = 0.05
_RUN_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DRIVER = re.compile(r"[a-z][a-z0-9_]{0,31}")


def parse_plan(mapping: Mapping[str, object]) -> Plan:
    """Read a plan from plain data.

    Raises:
        UserError: With code `bad_plan` and all problems in `details["problems"]`.
    """
    return parse_named(mapping, {})


def parse_named(mapping: Mapping[str, object], names: Names) -> Plan:
    """Read a plan whose problems are reported under the names that the user knows.

    Raises:
        UserError: As `parse_plan`.
    """
    problems = Problems(names)
    plan = read_plan(mapping, problems)
    raise_problems(problems)
    return plan


def raise_problems(problems: Problems) -> None:
    """Raise `bad_plan` if there is any problem."""
    if not problems.found:
        return
    listed = problems.listed()
    more = f" (and {len(problems.found) - 1} more)" if len(problems.found) > 1 else ""
    message = f"cannot use the plan: {listed[0]}{more}"
    raise UserError("bad_plan", message, {"problems": listed})


def read_plan(mapping: Mapping[str, object], problems: Problems) -> Plan:
    """Read every field, noting problems; the plan is a stand-in if there are any."""
    reader = Reader(cast("Mapping[object, object]", with_scenario(mapping)), problems)
    reader.refuse_unknown(KEYS)
    duration_s, rounds = _extent(reader)
    plan = Plan(
        scenario=_choice(reader, "scenario"),
        driver=_driver(reader),
        nodes=(nodes := read_nodes(reader, problems)),
        duration_s=duration_s,
        rounds=rounds,
        wait_publish_s=_seconds(reader, "wait_publish_s"),
        wait_search_s=_seconds(reader, "wait_search_s"),
        wait_between_s=_seconds(reader, "wait_between_s"),
        read_every_s=_read_every(reader),
        miss_recheck_attempts=_whole(reader, "miss_recheck_attempts"),
        miss_recheck_delay_s=_seconds(reader, "miss_recheck_delay_s"),
        ready_timeout_s=_seconds(reader, "ready_timeout_s"),
        fresh_identity=_flag(reader, "fresh_identity"),
        run_tag=_run_tag(reader),
        run_root=read_path(reader, "run_root") if reader.value("run_root") is not None else None,
        label=_label(reader),
        keep_config=_flag(reader, "keep_config"),
        latest=_flag(reader, "latest"),
        node_env=read_env(reader, "node_env"),
        ports=_choice(reader, "ports"),
        stop_grace_s=_seconds(reader, "stop_grace_s"),
        orphan_grace_s=_seconds(reader, "orphan_grace_s"),
        staging_timeout_s=_seconds(reader, "staging_timeout_s"),
        gates=_gates(reader, nodes),
        no_rounds=_flag(reader, "no_rounds"),
        pairs=_choice(reader, "pairs"),
        pair_seed=_whole(reader, "pair_seed"),
        warmup=_warmup(reader),
        warmup_samples=_whole(reader, "warmup_samples"),
        warmup_check_s=_seconds(reader, "warmup_check_s"),
        warmup_timeout_s=_seconds(reader, "warmup_timeout_s"),
        warmup_on_timeout=_choice(reader, "warmup_on_timeout"),
        file_size_bytes=_whole(reader, "file_size_bytes"),
        file_type=read_optional_text(reader, "file_type", MAX_WORD_CHARS),
        wait_sources_s=_seconds(reader, "wait_sources_s"),
        debug_lookup=_flag(reader, "debug_lookup"),
        peers_snapshot=_choice(reader, "peers_snapshot"),
        routing_snapshot=_choice(reader, "routing_snapshot"),
    )
    check_attached(plan, reader)
    return plan


def _seconds(reader: Reader, name: str) -> float:
    key = KEYS[name]
    return reader.number(name, default(name), key.low, key.high)


def _whole(reader: Reader, name: str) -> int:
    key = KEYS[name]
    return reader.whole(name, default(name), int(key.low), int(key.high))


def _flag(reader: Reader, name: str) -> bool:
    return reader.flag(name, default=default(name))


def _choice(reader: Reader, name: str) -> str:
    return reader.choice(name, default(name), KEYS[name].choices)


def _extent(reader: Reader) -> tuple[float | None, int | None]:
    if reader.value("no_rounds") is True:
        return _extent_of_kept(reader)
    rounds = None
    if reader.value("rounds") is not None:
        key = KEYS["rounds"]
        rounds = reader.whole("rounds", 1, int(key.low), int(key.high))
    if reader.value("duration_s") is not None:
        key = KEYS["duration_s"]
        return reader.number("duration_s", DEFAULT_DURATION_S, key.low, key.high), rounds
    if rounds is None and reader.has("duration_s"):
        reader.bad("duration_s", "cannot do without an end: give a duration or rounds")
    return (DEFAULT_DURATION_S if rounds is None else None), rounds


def _extent_of_kept(reader: Reader) -> tuple[float, None]:
    """How long nodes are kept for rounds that are asked for later."""
    if reader.value("rounds") is not None:
        reader.bad("rounds", "cannot be given with no_rounds: ask for rounds with `soakctl soak`")
    if reader.value("duration_s") is None:
        return DEFAULT_KEEP_S, None
    key = KEYS["duration_s"]
    return reader.number("duration_s", DEFAULT_KEEP_S, key.low, key.high), None


def _warmup(reader: Reader) -> tuple[str, ...]:
    """Read the conditions of the warm-up."""
    if not reader.has("warmup"):
        return ()
    conditions: list[str] = []
    for index, item in enumerate(reader.items("warmup", MAX_CONDITIONS)):
        try:
            conditions.append(parse_condition(item if isinstance(item, str) else "").text)
        except ValueError as error:
            reader.bad(f"warmup[{index}]", str(error))
    return tuple(conditions)


def _read_every(reader: Reader) -> float:
    value = _seconds(reader, "read_every_s")
    if 0 < value < MIN_READ_EVERY_S:
        reader.bad("read_every_s", f"cannot be below {MIN_READ_EVERY_S:g} unless 0, got {value:g}")
    return value


def _run_tag(reader: Reader) -> str:
    tag = reader.text("run_tag", 64)
    if tag is not None and _RUN_TAG.fullmatch(tag) is None:
        reader.bad("run_tag", f"cannot use other than letters, digits and ._-, got {show(tag)}")
    return tag or ""


def _driver(reader: Reader) -> str:
    """Read a name; whether there is such a driver is checked by those who know what is there."""
    if not reader.has("driver"):
        return str(default("driver"))
    name = reader.text("driver", 64)
    if name is not None and _DRIVER.fullmatch(name) is None:
        reader.bad("driver", f"cannot be other than a lower-case word, got {show(name)}")
    return name or ""


def _label(reader: Reader) -> str | None:
    if reader.value("label") is None:
        return None
    label = reader.text("label", MAX_LABEL_CHARS)
    # Stricter than other text: marks that turn the writing direction could fake a listing.
    if label is not None and (not label.isprintable() or not label.strip()):
        reader.bad("label", f"cannot be blank or unprintable, got {show(label)}")
    return label


def _gates(reader: Reader, nodes: Sequence[NodePlan]) -> tuple[str, ...]:
    """Read the gates; each one's problems are noted together, and those of all of them."""
    if not reader.has("gates"):
        return ()
    gates: list[str] = []
    names = sorted({node.name for node in nodes})
    is_attached = any(node.is_attached for node in nodes)
    for index, item in enumerate(reader.items("gates", MAX_GATES)):
        try:
            gate = parse_gate(item if isinstance(item, str) else "")
        except ValueError as error:
            reader.bad(f"gates[{index}]", f"{error}, got {show(item)}")
            continue
        gates.append(gate.text)
        if gate.node is not None and gate.node not in names:
            known = ", ".join(names)
            reader.bad(f"gates[{index}]", f"cannot judge node {gate.node}: the nodes are {known}")
        if is_attached and (problem := gate_problem(gate.metric)) is not None:
            reader.bad(f"gates[{index}]", problem)
    return tuple(gates)
