"""The interface between errors and the APIs that display them: one dialect for each part of the address space.

An API is a set of addresses below a prefix with a format that their clients understand. A `Dialect` renders every error
in that format: those that endpoints raise, faults of HTTP itself (an unknown address, a malformed head), refusals by
limits, and defects of the server. A new API adds one class; nothing else depends on its format.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

__all__ = ["Dialect", "Dialects", "ErrorAnswer", "FailedRequest"]


class FailedRequest(NamedTuple):
    """What a dialect may use of the request that failed; if it could not be read completely, the part that was.

    Attributes:
        path: the decoded path; ``/`` if the request line was not read.
        accept_language: the value of ``Accept-Language``; ``None`` if the field is missing.
    """

    path: str
    accept_language: str | None = None


class ErrorAnswer(NamedTuple):
    """An error as an HTTP response.

    Attributes:
        status: the HTTP status.
        body: the complete body.
        outcome: one word for the log.
        content_type: the media type of the body.
        headers: further header fields, names in lower case. The sender of the response adds those that HTTP requires
            for the error or the status (``Retry-After``, ``WWW-Authenticate``, ``Connection``).
    """

    status: int
    body: bytes
    outcome: str
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Dialect(Protocol):
    """The format in which one API displays errors."""

    @property
    def prefix(self) -> str:
        """The prefix of its paths, with a slash at the end unless it is a complete path."""
        ...

    def render(self, error: BaseException, request: FailedRequest) -> ErrorAnswer:
        """Return the response to a request that failed with ``error``.

        Args:
            error: of the tree in `aiproject.errors`; any other is a defect, of which no details may be displayed.
        """
        ...


class Dialects:
    """All dialects of a server; the longest prefix that matches a path decides.

    Args:
        dialects: one of them must have the prefix ``/``, which answers for all other paths.

    Raises:
        ValueError: none has the prefix ``/``, or two have the same prefix.
    """

    def __init__(self, dialects: Iterable[Dialect]) -> None:
        self._dialects = sorted(dialects, key=lambda dialect: len(dialect.prefix), reverse=True)
        prefixes = [dialect.prefix for dialect in self._dialects]
        if "/" not in prefixes or len(set(prefixes)) < len(prefixes):
            raise ValueError(f"each prefix must be there once, and one must be /: {prefixes}")

    def with_more(self, more: Iterable[Dialect]) -> Dialects:
        """Return these dialects together with others.

        Raises:
            ValueError: two have the same prefix.
        """
        return Dialects((*self._dialects, *more))

    def of(self, path: str) -> Dialect:
        """Return the dialect of an address."""
        return next((dialect for dialect in self._dialects if path.startswith(dialect.prefix)), self._dialects[-1])

    def render(self, error: BaseException, request: FailedRequest) -> ErrorAnswer:
        """Return the response to a request that failed with ``error``, in the dialect of its path."""
        return self.of(request.path).render(error, request)
