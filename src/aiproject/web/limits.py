"""The limit on requests of one address, over all routes; `aiproject.web.middleware` responds to its errors."""

from __future__ import annotations

from aiproject.adapters.http.asgi import ASGIApp, Receive, Scope, Send, client_group
from aiproject.adapters.http.rate_limiter import LimitRequest, RateLimiter, admit

__all__ = ["AddressLimits"]

FREE_PATHS = frozenset({"/health", "/openapi.json", "/docs"})
FREE_PREFIXES = ("/docs/", "/static-offline-docs/")
"""Paths that cost next to nothing: a response of a few bytes, and files that browsers cache."""

PROBES = frozenset({"/ready"})
"""Paths that query the database. They are counted separately, so that the probe of a busy proxy is not refused because
of other requests from the same address."""


class AddressLimits:
    """Middleware that counts every request except those for `FREE_PATHS` and `FREE_PREFIXES`.

    Args:
        requests_per_minute: of one address; of one /64 where it is IPv6.
    """

    def __init__(self, app: ASGIApp, rate_limiter: RateLimiter, requests_per_minute: int) -> None:
        self._app = app
        self._rate_limiter = rate_limiter
        self._limit = requests_per_minute

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            path = scope["path"]
            if path not in FREE_PATHS and not path.startswith(FREE_PREFIXES):
                policy = "address-probes" if path in PROBES else "address"
                await admit(scope, self._rate_limiter, (LimitRequest(policy, client_group(scope), self._limit),))
        await self._app(scope, receive, send)
