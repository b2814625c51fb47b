"""The seam between errors and the APIs that show them: one dialect for each part of the address space.

An API is a set of addresses below a prefix, and what clients of these addresses can read. A `Dialect` renders every
error in that form: those that endpoints raise, faults of HTTP itself (an unknown address, a malformed head), refusals
of limits, and defects of the server. A new API is one more class; nothing else knows its form.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

__all__ = ["Dialect", "Dialects", "ErrorAnswer", "FailedRequest"]


class FailedRequest(NamedTuple):
    """What a dialect may know of the request that failed; of one that could not be read, as much as was read.

    Attributes:
        path: of the address, decoded; ``/`` where the request line was not read.
        accept_language: the field ``Accept-Language``; ``None``: there is none.
    """

    path: str
    accept_language: str | None = None


class ErrorAnswer(NamedTuple):
    """An error as an HTTP answer.

    Attributes:
        status: the HTTP status.
        body: whole.
        outcome: what the log calls it; one word.
        content_type: of the body.
        headers: more header fields, names in lower case. Those that HTTP asks for by the error or the status
            (``Retry-After``, ``WWW-Authenticate``, ``Connection``) are added by whoever sends the answer.
    """

    status: int
    body: bytes
    outcome: str
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Dialect(Protocol):
    """How one API shows errors."""

    @property
    def prefix(self) -> str:
        """What the paths of its addresses begin with, with a slash at the end unless it is a whole path."""
        ...

    def render(self, error: BaseException, request: FailedRequest) -> ErrorAnswer:
        """Return the answer to a request that failed with ``error``.

        Args:
            error: of the tree in `aiproject.errors`; any other is a defect, of which nothing may be shown.
        """
        ...


class Dialects:
    """All dialects of a server; the longest prefix that fits a path decides.

    Args:
        dialects: one of them has the prefix ``/`` and answers whatever no other does.

    Raises:
        ValueError: there is none with the prefix ``/``, or two have the same.
    """

    def __init__(self, dialects: Iterable[Dialect]) -> None:
        self._dialects = sorted(dialects, key=lambda dialect: len(dialect.prefix), reverse=True)
        prefixes = [dialect.prefix for dialect in self._dialects]
        if "/" not in prefixes or len(set(prefixes)) < len(prefixes):
            raise ValueError(f"each prefix must be there once, and one must be /: {prefixes}")

    def with_more(self, more: Iterable[Dialect]) -> Dialects:
        """Return these dialects and others.

        Raises:
            ValueError: two have the same prefix.
        """
        return Dialects((*self._dialects, *more))

    def of(self, path: str) -> Dialect:
        """Return the dialect of an address."""
        return next((each for each in self._dialects if path.startswith(each.prefix)), self._dialects[-1])

    def render(self, error: BaseException, request: FailedRequest) -> ErrorAnswer:
        """Return the answer to a request that failed with ``error``, in the dialect of its address."""
        return self.of(request.path).render(error, request)
