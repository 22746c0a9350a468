"""The layers of the API, outermost first: error envelope, rate limit, access, origin, route.

While rate limiting is on, requests to limited routes are processed one after another: the turn is
held from the count to the answer, and given back when the client leaves.
"""

from __future__ import annotations

from collections import deque

from soakd.simnode.exchange import ApiError, Exchange, Response, failure
from soakd.simnode.kad_routes import KAD_ROUTES
from soakd.simnode.limits import RateLimiter
from soakd.simnode.node import Node
from soakd.simnode.routes import CORE_ROUTES, Call, Route

PREFIX = "/api/v1"
_ROUTES = CORE_ROUTES | KAD_ROUTES
_METHODS = ("GET", "POST", "PATCH", "DELETE")
_PAGE = (
    b"<!doctype html><title>SIMULATION</title><h1>SIMULATION</h1>"
    b"<p>This is soakd's simulated node, not rust-mule.</p>"
)


class Api:
    """Handles every request of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        api = node.parts.config.values["api"]
        self._limits = RateLimiter(api)
        self._debug: bool = api["enable_debug_endpoints"]
        self._headless = api["auth_mode"] == "headless_remote"
        self._waiting: deque[tuple[Exchange, int]] = deque()
        self._turn_taken = False
        self._pumping = False

    def handle(self, exchange: Exchange) -> None:
        """Answer a request now or later."""
        request = exchange.request
        if not request.path.startswith(f"{PREFIX}/"):
            self._page(exchange)
            return
        limit = None
        if self._limits.enabled:
            limit = self._limits.limit(request.method, request.path[len(PREFIX) :])
        if limit is None:
            self._admit(exchange)
            return
        self._waiting.append((exchange, limit))
        self._pump()

    def _pump(self) -> None:
        """Give the turn to whoever waits for it, without recursion."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._waiting and not self._turn_taken:
                exchange, limit = self._waiting.popleft()
                if not exchange.ended:
                    self._take_turn(exchange, limit)
        finally:
            self._pumping = False

    def _take_turn(self, exchange: Exchange, limit: int) -> None:
        self._turn_taken = True
        exchange.on_end(self._end_turn)
        request = exchange.request
        if self._limits.allows(request.client, request.method, request.path, limit):
            self._admit(exchange)
        else:
            exchange.answer(failure(429))

    def _end_turn(self) -> None:
        self._turn_taken = False
        self._pump()

    def _admit(self, exchange: Exchange) -> None:
        request = exchange.request
        path = request.path[len(PREFIX) :]
        method = "GET" if request.method == "HEAD" else request.method
        route, parameter = _find(method, path)
        try:
            self._check_access(exchange, path, route)
            if route is None:
                known = any(_find(other, path)[0] is not None for other in _METHODS)
                raise ApiError(404 if method == "GET" and not known else 405)
            if path.startswith("/debug/") and not self._debug:
                raise ApiError(404)
            if request.body is None or len(request.body) > route.body_limit:
                raise ApiError(413)
            route.handler(self._node, Call(exchange, parameter))
        except ApiError as error:
            exchange.answer(failure(error.status))

    def _check_access(self, exchange: Exchange, path: str, route: Route | None) -> None:
        auth, request = self._node.auth, exchange.request
        access = "bearer" if route is None else route.access
        if path == "/auth/bootstrap" and self._headless:
            access = "bearer"
        if access == "bearer":
            auth.check_bearer(request)
        elif access == "cookie":
            auth.check_cookie(request)
        auth.check_origin(request)

    def _page(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.path == "/auth" or self._node.auth.has_session(request):
            exchange.answer(Response(200, _PAGE, (), "text/html; charset=utf-8"))
        else:
            exchange.answer(Response(303, b"", (("location", "/auth"),), "text/plain"))


def _find(method: str, path: str) -> tuple[Route | None, str]:
    """Return the route of a path and what stands in its variable part."""
    route = _ROUTES.get((method, path))
    if route is not None:
        return route, ""
    segments = path.split("/")
    for index in range(2, len(segments)):
        pattern = "/".join([*segments[:index], ":", *segments[index + 1 :]])
        route = _ROUTES.get((method, pattern))
        if route is not None:
            return route, segments[index]
    return None, ""
