"""Rate limits of the API: fixed windows per client, method and exact path."""

from __future__ import annotations

from typing import Any

from soakd.simnode.clock import now

_MANY = 10_000


class RateLimiter:
    """Counts requests; what it refuses is answered 429."""

    def __init__(self, api: dict[str, Any]) -> None:
        self.enabled: bool = api["rate_limit_enabled"]
        self._window_s = max(1, api["rate_limit_window_secs"])
        self._base: int = api["rate_limit_session_max_per_window"]
        self._bootstrap: int = api["rate_limit_auth_bootstrap_max_per_window"]
        self._rotate: int = api["rate_limit_token_rotate_max_per_window"]
        self._counts: dict[tuple[str, str, str], tuple[float, int]] = {}

    def limit(self, method: str, path: str) -> int | None:
        """Return how often this route may be called in a window; None = not limited."""
        if path == "/token/rotate" and method == "POST":
            return self._rotate
        if path == "/auth/bootstrap" and method == "GET":
            return self._bootstrap
        factor = _factor(method, path)
        return self._base * factor if factor else None

    def allows(self, client: str, method: str, path: str, limit: int) -> bool:
        """Count a request, and say whether it is within the limit."""
        moment = now()
        key = (client, method, path)
        started, count = self._counts.get(key, (moment, 0))
        if moment - started >= self._window_s:
            started, count = moment, 0
        self._counts[key] = (started, count + 1)
        if len(self._counts) > _MANY:
            self._forget(moment)
        return count < limit

    def _forget(self, moment: float) -> None:
        live = {k: v for k, v in self._counts.items() if moment - v[0] < self._window_s}
        self._counts = live


def _factor(method: str, path: str) -> int:
    """Return the multiple of the base limit; 0 = not limited."""
    if method == "GET":
        if path in ("/status", "/events"):
            return 6
        flat = path in ("/settings", "/downloads", "/searches")
        if flat or path.startswith(("/kad/", "/searches/")):
            return 4
    if path.startswith("/downloads/"):
        return 1
    if method in ("POST", "DELETE") and path.startswith("/searches/"):
        return 1
    if method == "POST" and (path in ("/session", "/downloads") or path.startswith("/kad/")):
        return 1
    return 1 if method == "PATCH" and path == "/settings" else 0
