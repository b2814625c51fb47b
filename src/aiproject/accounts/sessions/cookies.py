"""The browser's side of a session: the cookie, and the proof that a request comes from our own pages. No I/O.

Why so: docs/decisions/0021-browser-sessions.md. Sources: RFC 6265bis (cookie prefixes, SameSite), Fetch Metadata
Request Headers (``Sec-Fetch-Site``), Fetch Standard (``AuditContext``).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiproject.adapters.http.asgi import Scope
from aiproject.codes import Detail
from aiproject.errors import NotAllowed

__all__ = ["COOKIE", "CSRF_HEADER", "BrowserRules", "csrf_token"]

COOKIE = "aiproject_session"
"""The cookie's name; behind TLS with the prefix ``__Host-``, which no other host and no plain page can set."""

CSRF_HEADER = "X-CSRF-Token"

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

DEFAULT_PORTS = {"http": 80, "https": 443}


def csrf_token(token: str) -> str:
    """Return what a page must send along with the cookie ``token``: known to our own pages only, kept nowhere."""
    return hmac.new(token.encode(), b"csrf", hashlib.sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class BrowserRules:
    """How cookies are written and read, and which requests may use them.

    Attributes:
        public_url: where browsers reach this server; ``None``: where each request says.
        lifetime: seconds that a browser keeps the cookie.
    """

    public_url: str | None
    lifetime: int

    def is_secure(self, scope: Scope) -> bool:
        """Whether the browser came by TLS, as far as we can know."""
        return scope.get("scheme") == "https" or (self.public_url or "").lower().startswith("https:")

    def cookie_name(self, scope: Scope) -> str:
        return f"__Host-{COOKIE}" if self.is_secure(scope) else COOKIE

    def cookie(self, scope: Scope, token: str) -> str:
        """Return the ``Set-Cookie`` that hands out ``token``; an empty one takes it back."""
        age = self.lifetime if token else 0
        secure = "; Secure" if self.is_secure(scope) else ""
        return f"{self.cookie_name(scope)}={token}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"

    def token(self, scope: Scope) -> str | None:
        """Return the cookie's value; ``None``: there is none.

        A name that comes twice counts as none: one of them was planted, and which one cannot be told.
        """
        cookies = [value for name, value in scope["headers"] if name == b"cookie"]
        if not cookies:
            return None
        name = self.cookie_name(scope).encode()
        pairs = (pair.strip().partition(b"=") for value in cookies for pair in value.split(b";"))
        values = [value.strip() for key, _, value in pairs if key == name]
        return values[0].decode("latin-1") if len(values) == 1 and values[0] else None

    def check_not_foreign(self, scope: Scope) -> None:
        """Refuse what a browser says comes from another site.

        Raises:
            NotAllowed: it does.
        """
        site, origin = _header(scope, b"sec-fetch-site"), _header(scope, b"origin")
        if site not in (None, "same-origin", "none") or (origin is not None and not self._is_own(scope, origin, site)):
            raise NotAllowed(Detail.FOREIGN_SITE)

    def check_proof(self, scope: Scope, token: str) -> None:
        """Refuse a request with the cookie ``token`` that one of our own pages did not send.

        What changes nothing may lack the proof (typed addresses, old browsers), but must not show the contrary.

        Raises:
            NotAllowed: it comes from elsewhere, or the CSRF token is missing or of another session.
        """
        self.check_not_foreign(scope)
        if scope["method"] in SAFE_METHODS:
            return
        if _header(scope, b"sec-fetch-site") != "same-origin" and _header(scope, b"origin") is None:
            raise NotAllowed(Detail.FOREIGN_SITE)
        shown = _header(scope, CSRF_HEADER.lower().encode()) or ""
        if not hmac.compare_digest(shown.encode("utf-8", "replace"), csrf_token(token).encode()):
            raise NotAllowed(Detail.CSRF_TOKEN_WRONG, header=CSRF_HEADER)

    def _is_own(self, scope: Scope, origin: str, site: str | None) -> bool:
        if site == "same-origin":
            # The browser compared them itself, with the address that it really called; a proxy may hide that from us.
            return True
        shown = _origin(origin)
        own = {_origin(f"{scope.get('scheme', 'http')}://{_header(scope, b'host') or ''}")}
        if self.public_url is not None:
            own.add(_origin(self.public_url))
        return shown is not None and shown in own


def _header(scope: Scope, name: bytes) -> str | None:
    """Return a header that comes once; of several, something that equals nothing."""
    values = [value for key, value in scope["headers"] if key == name]
    if not values:
        return None
    return str(values[0].decode("latin-1")).strip() if len(values) == 1 else ""


def _origin(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port; ``None``: it is no origin (``null``, for example)."""
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None
