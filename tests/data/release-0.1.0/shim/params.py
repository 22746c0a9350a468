"""Typed access to the parameters of a request: soakd is trusted, but never to crash the shim."""

from __future__ import annotations

import math

from soakd.shim.errors import VerbError

Params = dict[str, object]


def _bad(name: str, want: str) -> VerbError:
    return VerbError("bad_params", f"cannot read parameter {name}: it must be {want}")


def text(params: Params, name: str, default: str | None = None) -> str:
    """A string without NUL."""
    value = params.get(name, default)
    if not isinstance(value, str) or "\0" in value:
        raise _bad(name, "a text")
    return value


def number(params: Params, name: str) -> float:
    """A finite number that is not negative."""
    value = params.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _bad(name, "a number")
    if not math.isfinite(value) or value < 0:
        raise _bad(name, "a finite number that is not negative")
    return float(value)


def whole(params: Params, name: str) -> int:
    """An integer that is not negative and fits 63 bits."""
    value = params.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise _bad(name, "an integer that is not negative")
    return value


def texts(params: Params, name: str) -> list[str]:
    """A list of strings without NUL."""
    value = params.get(name)
    if not isinstance(value, list) or not all(isinstance(v, str) and "\0" not in v for v in value):
        raise _bad(name, "a list of texts")
    return value


def table(params: Params, name: str) -> dict[str, str]:
    """A map of strings to strings, without NUL and without `=` in a key."""
    value = params.get(name)
    if not isinstance(value, dict):
        raise _bad(name, "a map")
    for key, word in value.items():
        if not isinstance(word, str) or "\0" in key + word or "=" in key or not key:
            raise _bad(name, "a map of texts")
    return value


def limits(params: Params, name: str) -> dict[str, int]:
    """A map of strings to integers; absent means empty."""
    value = params.get(name, {})
    if not isinstance(value, dict):
        raise _bad(name, "a map")
    if not all(isinstance(v, int) and not isinstance(v, bool) for v in value.values()):
        raise _bad(name, "a map of integers")
    return value
