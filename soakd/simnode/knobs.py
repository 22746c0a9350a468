"""The knobs of `[sim]`: their defaults, and how they are read and checked."""

from __future__ import annotations

from typing import Any, NamedTuple

from soakd.simnode.fate import KEYWORD_OUTCOMES, OUTCOMES, KeywordOdds, Odds

_SCRIPTS = {"outcomes": OUTCOMES, "keyword_outcomes": KEYWORD_OUTCOMES}


class Sim(NamedTuple):
    """The knobs of `[sim]`; what they mean stands in the package's text."""

    network: str = "soakd-sim"
    udp_first_port: int = 27800
    udp_ports: int = 64
    beacon_secs: float = 1.0
    seed: int = 1
    warmup_secs: float = 3.0
    session_secs: float = 0.0
    status_every_secs: float = 0.0
    hit_rate: float = 0.80
    prestored_rate: float = 0.05
    late_rate: float = 0.05
    outcomes: tuple[str, ...] = ()
    latency_min_secs: float = 0.05
    latency_max_secs: float = 0.50
    late_secs: float = 25.0
    keyword_hit_rate: float = 1.0
    keyword_late_rate: float = 0.0
    keyword_miss_rate: float = 0.0
    keyword_outcomes: tuple[str, ...] = ()
    keyword_elsewhere: bool = True
    tell_keyword_id: bool = True
    sigint_miss_rate: float = 0.1
    stop_secs: float = 0.0
    seed_contacts: int = 154
    heard_contacts: int = 0
    heard_after_secs: float = 0.0
    inbound_per_minute: int = 0
    session_loss_every_secs: float = 0.0
    session_recreate_secs: float = 1.0
    faults: tuple[str, ...] = ()

    @property
    def odds(self) -> Odds:
        """The shares of outcomes as the fate wants them."""
        return Odds(self.prestored_rate, self.hit_rate, self.late_rate, self.outcomes)

    @property
    def keyword_odds(self) -> KeywordOdds:
        """The shares of keyword outcomes as the fate wants them."""
        shares = (self.keyword_hit_rate, self.keyword_late_rate, self.keyword_miss_rate)
        return KeywordOdds(*shares, self.keyword_outcomes)


class BadValueError(ValueError):
    """A key has a wrong type, range or choice."""


def read_sim(table: object) -> Sim:
    """Read `[sim]`; unknown keys are ignored.

    Raises:
        BadValueError: a known knob has a wrong type or range.
    """
    if not isinstance(table, dict):
        raise BadValueError("sim: invalid type, expected a table")
    defaults = Sim()._asdict()
    given = {key: _knob(key, table[key], defaults[key]) for key in defaults if key in table}
    sim = Sim()._replace(**given)
    if sim.prestored_rate + sim.hit_rate + sim.late_rate > 1.0 + 1e-9:
        raise BadValueError("sim: prestored_rate + hit_rate + late_rate is above 1")
    if sum(sim.keyword_odds[:3]) > 1.0 + 1e-9:
        raise BadValueError(
            "sim: keyword_hit_rate + keyword_late_rate + keyword_miss_rate is above 1"
        )
    if not (sim.udp_first_port >= 1024 and sim.udp_first_port + sim.udp_ports <= 65536):
        raise BadValueError("sim: the range of UDP ports must lie in 1024..65535")
    return sim


def _orders(value: object) -> tuple[str, ...]:
    # Loaded only where it is needed: most nodes are well.
    from soakd.simnode.faults import FaultError, parse  # noqa: PLC0415

    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise BadValueError("sim.faults: expected a list of strings")
    for item in value:
        try:
            parse(item)
        except FaultError as error:
            raise BadValueError(f"sim.faults: {error}") from error
    return tuple(value)


def _knob(key: str, value: object, default: object) -> Any:
    if key == "faults":
        return _orders(value)
    if isinstance(default, tuple):
        known = _SCRIPTS[key]
        if not isinstance(value, list | tuple) or any(item not in known for item in value):
            raise BadValueError(f"sim.{key}: expected a list of {', '.join(known)}")
        return tuple(value)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise BadValueError(f"sim.{key}: expected true or false, got {value!r}")
        return value
    if isinstance(default, str):
        if not isinstance(value, str):
            raise BadValueError(f"sim.{key}: expected a string, got {value!r}")
        return value
    numeric = int | float if isinstance(default, float) else int
    if isinstance(value, bool) or not isinstance(value, numeric):
        raise BadValueError(f"sim.{key}: expected a number, got {value!r}")
    top = 1.0 if key.endswith("_rate") else float(1 << 53)
    low = -top if key == "seed" else 0
    if not low <= value <= top:
        raise BadValueError(f"sim.{key}: {value!r} is out of range")
    return value
