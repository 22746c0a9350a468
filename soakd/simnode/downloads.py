"""The download list. As in the real snapshot nothing transfers data: files stay empty of it."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from soakd.simnode.config import Config
from soakd.simnode.exchange import ApiError
from soakd.simnode.tracing import Tracing

_PAUSABLE = ("queued", "downloading")
_CANCELLABLE = ("queued", "paused", "downloading")


class Downloads:
    """Downloads by part number, each a sparse file and its metadata."""

    def __init__(self, config: Config, tracing: Tracing) -> None:
        self._folder = config.data_path("download")
        self._tracing = tracing
        self._parts: dict[int, dict[str, Any]] = {}
        os.makedirs(self._folder, exist_ok=True)
        os.makedirs(config.data_path("incoming"), exist_ok=True)
        self._recover()
        self._recovered = len(self._parts)

    def listing(self) -> dict[str, Any]:
        """Return the answer of `GET /downloads`."""
        entries = [self._entry(number) for number in sorted(self._parts)]
        return {
            "queue_len": sum(entry["state"] == "queued" for entry in entries),
            "recovered_on_start": self._recovered,
            "reserve_denied_cooldown_total": 0,
            "reserve_denied_peer_cap_total": 0,
            "reserve_denied_download_cap_total": 0,
            "downloads": entries,
        }

    def create(self, file_name: str, file_size: int, file_hash: str) -> dict[str, Any]:
        """Queue a download under the lowest free number.

        Raises:
            ApiError: 400 a bad name or size, 500 the disk refuses.
        """
        plain = file_name.strip() and file_name == os.path.basename(file_name)
        if not plain or file_name in (".", "..") or "\0" in file_name or file_size <= 0:
            raise ApiError(400)
        number = next((n for n in range(1, 65536) if n not in self._parts), 0)
        if not number:
            raise ApiError(500)
        self._parts[number] = {
            "file_name": file_name,
            "file_size": file_size,
            "file_hash_md4_hex": file_hash,
            "state": "queued",
        }
        try:
            with open(self._path(number, ".part"), "wb") as file:
                file.truncate(file_size)
            self._save(number)
        except (OSError, OverflowError) as error:
            self._forget(number)
            raise ApiError(500) from error
        return self._entry(number)

    def change(self, number: int, action: str) -> dict[str, Any]:
        """Pause, resume or cancel.

        Raises:
            ApiError: 404 unknown number, 409 not in this state, 500 the disk refuses.
        """
        state = self._known(number)["state"]
        allowed, new = {
            "pause": (_PAUSABLE, "paused"),
            "resume": (("paused",), "queued"),
            "cancel": (_CANCELLABLE, "cancelled"),
        }[action]
        if state not in allowed:
            raise ApiError(409)
        self._parts[number]["state"] = new
        try:
            self._save(number)
        except OSError as error:
            raise ApiError(500) from error
        return self._entry(number)

    def delete(self, number: int) -> None:
        """Remove a download in any state, with its files.

        Raises:
            ApiError: 404.
        """
        self._known(number)
        self._forget(number)

    def _known(self, number: int) -> dict[str, Any]:
        if number not in self._parts:
            raise ApiError(404)
        return self._parts[number]

    def _forget(self, number: int) -> None:
        del self._parts[number]
        for suffix in (".part", ".part.met", ".part.met.bak"):
            with contextlib.suppress(OSError):
                os.unlink(self._path(number, suffix))

    def _entry(self, number: int) -> dict[str, Any]:
        part = self._parts[number]
        return {
            "part_number": number,
            "file_name": part["file_name"],
            "file_size": part["file_size"],
            "state": part["state"],
            "downloaded_bytes": 0,
            "progress_pct": 0,
            "missing_ranges": 1,
            "inflight_ranges": 0,
            "retry_count": 0,
            "last_error": None,
        }

    def _path(self, number: int, suffix: str) -> str:
        return os.path.join(self._folder, f"{number:03d}{suffix}")

    def _save(self, number: int) -> None:
        path = self._path(number, ".part.met")
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, f"{path}.bak")
        temporary = f"{path}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(self._parts[number], file)
        os.replace(temporary, path)

    def _recover(self) -> None:
        for name in sorted(os.listdir(self._folder)):
            number, dot, suffix = name.partition(".")
            if suffix != "part.met" or not dot or not number.isdigit():
                continue
            try:
                with open(os.path.join(self._folder, name), encoding="utf-8") as file:
                    part = json.load(file)
                self._parts[int(number)] = {
                    key: part[key]
                    for key in ("file_name", "file_size", "file_hash_md4_hex", "state")
                }
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._tracing.warn(
                    "download::store", "failed to recover part metadata", error=str(error)
                )
