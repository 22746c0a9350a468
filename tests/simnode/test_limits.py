from __future__ import annotations

import pytest

from soakd.simnode.config import DEFAULTS
from soakd.simnode.limits import RateLimiter

LIMITER = RateLimiter(DEFAULTS["api"])


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("GET", "/status", 180),
        ("GET", "/events", 180),
        ("GET", "/settings", 120),
        ("GET", "/downloads", 120),
        ("GET", "/searches", 120),
        ("GET", "/searches/x", 120),
        ("GET", "/kad/sources/x", 120),
        ("POST", "/session", 30),
        ("GET", "/auth/bootstrap", 30),
        ("PATCH", "/settings", 30),
        ("POST", "/downloads", 30),
        ("POST", "/downloads/1/pause", 30),
        ("DELETE", "/searches/x", 30),
        ("POST", "/searches/x/stop", 30),
        ("POST", "/kad/publish_source", 30),
        ("POST", "/token/rotate", 10),
        ("GET", "/health", None),
        ("GET", "/debug/routing/summary", None),
        ("GET", "/session/check", None),
        ("POST", "/session/logout", None),
    ],
)
def test_every_route_has_its_limit(method: str, path: str, limit: int | None) -> None:
    """The table of the contract."""
    assert LIMITER.limit(method, path) == limit


def test_clients_methods_and_paths_have_budgets_of_their_own() -> None:
    """`::1` and `127.0.0.1` count separately, each id too."""
    limiter = RateLimiter(DEFAULTS["api"])
    assert limiter.allows("::1", "GET", "/a", 1)
    assert not limiter.allows("::1", "GET", "/a", 1)
    assert limiter.allows("127.0.0.1", "GET", "/a", 1)
    assert limiter.allows("::1", "POST", "/a", 1)
    assert limiter.allows("::1", "GET", "/b", 1)
