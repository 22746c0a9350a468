"""``soakd.toml`` and the default paths of the two modes.

Decided here: names, ranges and defaults of every setting, and that all problems are reported
together. Read once at start; what comes out is frozen.
"""

from __future__ import annotations

import pwd
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast

from soakd.core.errors import UserError

Mode = Literal["system", "user"]
Containment = Literal["auto", "cgroup", "evidence", "scope"]

DAY_S = 86_400.0
GIB = 1 << 30
MIN_PORT, MAX_PORT = 1024, 65535


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a soakd of this mode lives unless flags say otherwise."""

    mode: Mode
    socket: Path
    state: Path
    config: Path


def default_paths(euid: int, env: Mapping[str, str]) -> Paths:
    """Paths of root's soakd (system) or of a user's own.

    Without ``XDG_RUNTIME_DIR`` the socket is below ``/tmp``: whoever makes that folder must check
    its owner and mode.
    """
    if euid == 0:
        return Paths(
            "system", Path("/run/soakd/soakd.sock"), Path("/var/lib/soakd"),
            Path("/etc/soakd/soakd.toml"),
        )  # fmt: skip
    home = Path(env.get("HOME") or pwd.getpwuid(euid).pw_dir)
    runtime = _xdg(env, "XDG_RUNTIME_DIR")
    state = _xdg(env, "XDG_STATE_HOME") or home / ".local" / "state"
    config = _xdg(env, "XDG_CONFIG_HOME") or home / ".config"
    folder = runtime / "soakd" if runtime is not None else Path(f"/tmp/soakd-{euid}")  # noqa: S108
    return Paths("user", folder / "soakd.sock", state / "soakd", config / "soakd" / "soakd.toml")


def _xdg(env: Mapping[str, str], name: str) -> Path | None:
    value = env.get(name, "")
    # The XDG specification: a relative path is to be ignored.
    return Path(value) if value.startswith("/") else None


def _number(low: float, high: float, unit: str = "") -> Mapping[str, Any]:
    def problem(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"a number{unit}"
        return None if low <= value <= high else f"{low:.15g} to {high:.15g}{unit}"

    return {"problem": problem}


def _integer(low: int, high: int, unit: str = "") -> Mapping[str, Any]:
    def problem(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return f"a whole number{unit}"
        return None if low <= value <= high else f"{low} to {high}{unit}"

    return {"problem": problem}


def _path_problem(value: object) -> str | None:
    good = isinstance(value, str) and value.startswith("/") and value.isprintable()
    return None if good else "an absolute path"


def _port_range(text: str) -> range | None:
    first, dash, last = text.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal()):
        return None
    ports = range(int(first), int(last) + 1)
    return ports if ports and ports[0] >= MIN_PORT and ports[-1] <= MAX_PORT else None


def _range_problem(value: object) -> str | None:
    good = isinstance(value, str) and _port_range(value) is not None
    return None if good else f"a range of ports from {MIN_PORT} to {MAX_PORT}, as '28000-28999'"


def _containment_problem(value: object) -> str | None:
    names = ("auto", "cgroup", "evidence", "scope")
    return None if value in names else "one of " + ", ".join(names)


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting of ``soakd.toml``; the field's name is the key."""

    max_running: int = field(default=1, metadata=_integer(1, 64))
    """Runs executing at a time."""
    running_per_user: int = field(default=1, metadata=_integer(1, 64))
    """Runs of one user executing at a time."""
    queued_per_user: int = field(default=10, metadata=_integer(1, 10_000))
    """Runs of one user waiting at a time."""
    attached_per_user: int = field(default=4, metadata=_integer(1, 1000))
    """Runs of one user on nodes that somebody else runs, at a time; they hold no slot."""
    max_duration_s: float = field(default=14 * DAY_S, metadata=_number(1, 14 * DAY_S, " s"))
    """How long the rounds of a run may go on, extensions included."""
    submissions_per_minute: int = field(default=30, metadata=_integer(1, 10_000))
    """Runs that one user may submit within a minute."""
    auto_ports: str = field(default="28000-28999", metadata={"problem": _range_problem})
    """Where runs with ``ports = "auto"`` get theirs. Below the range from which the kernel takes
    ports for outgoing connections, and clear of the ports of simulated nodes."""
    node_disk_bytes_per_hour: int = field(
        default=50_000_000, metadata=_integer(0, 1 << 50, " bytes")
    )
    """What one node is taken to write, until runs of this host have shown what they do."""
    shim_python: str | None = field(default=None, metadata={"problem": _path_problem})
    """Interpreter of shims and helpers; None: looked for."""
    containment: Containment = field(default="auto", metadata={"problem": _containment_problem})
    """What holds a run's processes together besides its shim."""
    disk_max_bytes: int = field(default=20 * GIB, metadata=_integer(1 << 20, 1 << 60, " bytes"))
    """A run folder larger than this ends its run."""
    orphan_grace_s: float = field(default=600.0, metadata=_number(1, 14 * DAY_S, " s"))
    """How long a shim goes on without a soakd."""
    max_connections_per_uid: int = field(default=64, metadata=_integer(1, 4096))
    """Clients of one user at a time."""

    @property
    def auto_range(self) -> range:
        """The ports of `auto_ports`."""
        ports = _port_range(self.auto_ports)
        assert ports is not None, "a range that was checked when the settings were read"
        return ports


def load_config(explicit: Path | None, default: Path) -> Config:
    """Read the settings from `explicit` if given (it must exist), else from `default` if there.

    Raises:
        UserError: `bad_plan` with `details["problems"]`, every problem of the file at once.
    """
    path = default if explicit is None else explicit
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        if explicit is None:
            return Config()
        raise _bad(path, ["no such file; leave --config away for the defaults"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(path, [getattr(error, "strerror", None) or "not UTF-8 text"]) from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _bad(path, [f"not TOML: {error}"]) from error
    return _checked(path, table)


def _checked(path: Path, table: Mapping[str, object]) -> Config:
    known = {
        f.name: cast("Callable[[object], str | None]", f.metadata["problem"])
        for f in fields(Config)
    }
    problems = []
    for key, value in table.items():
        if key not in known:
            problems.append(f"{key}: no such setting{_hint(key, known)}")
        elif (expected := known[key](value)) is not None:
            problems.append(f"{key}: must be {expected}, got {value!r}")
    if problems:
        raise _bad(path, problems)
    return Config(**cast("dict[str, Any]", table))


def _hint(key: str, known: Iterable[str]) -> str:
    near = get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"


def _bad(path: Path, problems: list[str]) -> UserError:
    # Several stand below each other, since a settings file is mended line by line.
    said = problems[0] if len(problems) == 1 else "".join(f"\n  - {text}" for text in problems)
    return UserError(
        "bad_plan",
        f"cannot use the configuration {path}:{' ' * (len(problems) == 1)}{said}",
        {"problems": problems},
    )
