"""Security headers for the pages that browsers show: ``/docs`` and its static files."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

from aiproject.adapters.http.asgi import ASGIApp, Message, Receive, Scope, Send

__all__ = ["WithPages"]

PAGES: Final = ("/docs", "/static-offline-docs")
"""The paths of pages: Swagger UI, and its script, styles and icon, which this server provides."""

HEADERS: Final = ((b"referrer-policy", b"no-referrer"), (b"cross-origin-opener-policy", b"same-origin"))

_INLINE_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def content_security_policy(page: bytes) -> bytes:
    """Return the policy of an HTML page, which allows only this server's resources and the page's own inline scripts.

    Inline styles and ``data:`` images are allowed as well, since Swagger UI uses them for its layout and icons.
    """
    scripts = b"".join(
        b" 'sha256-" + base64.b64encode(hashlib.sha256(script).digest()) + b"'"
        for script in _INLINE_SCRIPT.findall(page)
    )
    return (
        b"default-src 'none'; script-src 'self'" + scripts + b"; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class WithPages:
    """Middleware that adds the headers to the responses of `PAGES` and leaves all others unchanged."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PAGES):
            await self._app(scope, receive, send)
            return
        start: Message | None = None

        async def send_page(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                # Held back until the first piece of the body, which contains a small page completely: the policy lists
                # the hashes of its scripts.
                start = message
                return
            if start is not None:
                policy = content_security_policy(message.get("body", b""))
                start["headers"] = [*start.get("headers", ()), *HEADERS, (b"content-security-policy", policy)]
                await send(start)
                start = None
            await send(message)

        await self._app(scope, receive, send_page)
