"""`GET` and `PATCH /settings`: the file changes, the running node does not."""

from __future__ import annotations

import copy
from typing import Any

from soakd.simnode.config import Config, check, fill, write
from soakd.simnode.exchange import ApiError
from soakd.simnode.fatal import FatalError
from soakd.simnode.knobs import BadValueError

_SHOWN: dict[str, tuple[str, ...] | None] = {
    "general": ("log_level", "log_to_file", "log_file_level", "auto_open_ui"),
    "sam": ("host", "port", "session_name"),
    "api": None,  # all keys
}


class Settings:
    """The settings as they stand in the file."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def shown(self) -> dict[str, Any]:
        """Return the answer of both routes."""
        values = self._config.values
        settings = {name: {k: values[name][k] for k in _keys(values, name)} for name in _SHOWN}
        return {"settings": settings, "restart_required": True}

    def patch(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Take a subset of the shown fields, rewrite `config.toml`, and return all.

        Raises:
            ApiError: 400 an invalid value, 500 the file cannot be written.
        """
        values = copy.deepcopy(self._config.values)
        for name in _SHOWN:
            fields = wanted.get(name, {})
            if not isinstance(fields, dict):
                raise ApiError(400)
            known = _keys(values, name)
            values[name] |= {key: value for key, value in fields.items() if key in known}
        try:
            values = fill(values)
            check(values)
        except (BadValueError, FatalError) as error:
            raise ApiError(400) from error
        changed = self._config._replace(values=values)
        try:
            write(changed)
        except OSError as error:
            raise ApiError(500) from error
        self._config = changed
        return self.shown()


def _keys(values: dict[str, dict[str, Any]], name: str) -> tuple[str, ...]:
    shown = _SHOWN[name]
    return tuple(values[name]) if shown is None else shown
