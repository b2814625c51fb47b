"""The language of an answer: where it depends on the request, and what the request prefers."""

from __future__ import annotations

from collections.abc import Iterable

from aiproject.adapters.http.asgi import Scope
from aiproject.messages.formatting import Language
from aiproject.protocols.languages import preferred_language
from aiproject.protocols.v1 import V1Dialect

__all__ = ["accept_language_of", "negotiated_language"]


def accept_language_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the field ``Accept-Language``, its lines joined; ``None``: there is none.

    Args:
        headers: the ASGI header list, names in lower case.
    """
    values = [value for name, value in headers if name == b"accept-language"]
    return b",".join(values).decode("latin-1") if values else None


def negotiated_language(scope: Scope) -> Language | None:
    """Return the language that a request prefers; ``None``: its address speaks Chinese only."""
    if not scope["path"].startswith(V1Dialect.prefix):
        return None
    return preferred_language(accept_language_of(scope["headers"]))
