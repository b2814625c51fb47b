"""Sets the client's address and scheme in the request's scope from the header fields of trusted proxies.

All inner layers (logs, limits, the ``Secure`` attribute of cookies) read them from the scope, as if there was no proxy.
"""

from __future__ import annotations

from aiproject.adapters.http.asgi import ASGIApp, Receive, Scope, Send
from aiproject.protocols.addresses import normalised
from aiproject.protocols.forwarding import TrustedProxies

__all__ = ["Forwarding"]


class Forwarding:
    """Middleware that reads forwarding headers of trusted proxies and ignores all others."""

    def __init__(self, app: ASGIApp, proxies: TrustedProxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if client and scope["type"] in ("http", "websocket") and self._proxies.trusts(peer := normalised(client[0])):
            forwarded = self._proxies.client(peer, scope["headers"])
            if forwarded.address != peer:
                scope["client"] = (forwarded.address, 0)  # no header reports the port
            if forwarded.scheme is not None:
                is_secure = forwarded.scheme == "https"
                scope["scheme"] = forwarded.scheme if scope["type"] == "http" else "wss" if is_secure else "ws"
        await self._app(scope, receive, send)
