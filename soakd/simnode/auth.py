"""Who may call: bearer token, session cookies, loopback origins."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from soakd.simnode.clock import now
from soakd.simnode.exchange import ApiError, Request

COOKIE = "rm_session"
SESSION_S = 28_800


class Auth:
    """The token in force and the sessions, all in memory."""

    def __init__(self, token: str) -> None:
        self.token = token
        self._sessions: dict[str, float] = {}

    def check_bearer(self, request: Request) -> None:
        """Demand the current token.

        Raises:
            ApiError: 401 without a well-formed header, 403 with another token.
        """
        scheme, blank, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not blank or not token:
            raise ApiError(401)
        if token != self.token:
            raise ApiError(403)

    def check_cookie(self, request: Request) -> None:
        """Demand a live session; a bearer token is not looked at.

        Raises:
            ApiError: 401.
        """
        if not self.has_session(request):
            raise ApiError(401)

    def has_session(self, request: Request) -> bool:
        """Say whether the request bears the cookie of a live session."""
        return self._sessions.get(_cookie(request), 0.0) > now()

    def check_origin(self, request: Request) -> None:
        """Refuse a foreign origin, even with the right token.

        Raises:
            ApiError: 403.
        """
        origin = request.headers.get("origin")
        if origin is not None and not _is_loopback(origin):
            raise ApiError(403)

    def open_session(self) -> str:
        """Begin a session, and return its `Set-Cookie` value."""
        moment = now()
        self._sessions = {key: end for key, end in self._sessions.items() if end > moment}
        session = os.urandom(32).hex()
        self._sessions[session] = moment + SESSION_S
        return f"{COOKIE}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={SESSION_S}"

    def close_session(self, request: Request) -> str:
        """End the session of the request, and return the `Set-Cookie` that clears it."""
        self._sessions.pop(_cookie(request), None)
        return f"{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"

    def replace_token(self, token: str) -> None:
        """Take a new token; all sessions end."""
        self.token = token
        self._sessions.clear()


def _cookie(request: Request) -> str:
    for part in request.headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _is_loopback(origin: str) -> bool:
    try:
        host = urlsplit(origin).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
