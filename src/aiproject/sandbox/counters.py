"""The sandbox's call counters, published by ``GET /sandbox/calls``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiproject.sandbox.faults import SERVICES

__all__ = ["Call", "Calls"]

_MAX_CONTENT: Final = 200  # characters of a message that are kept
_MAX_MESSAGES: Final = 50


@dataclass
class _Counts:
    open: int = 0
    most_open: int = 0
    seen: int = 0
    refused: int = 0
    completed: int = 0
    errors: int = 0
    closed_early: int = 0


@dataclass
class Call:
    """One call in progress.

    Attributes:
        is_complete: whether the last frame, or the whole body, has been sent.
        has_failed: whether an error frame has been sent or a fault has ended the call.
    """

    is_complete: bool = False
    has_failed: bool = False


@dataclass
class Calls:
    """Counters of each service.

    ``open``: calls in progress; ``most_open``: the largest number of simultaneous calls; ``seen``: calls that the
    gateway admitted; ``refused``: calls that it did not; ``completed``: calls answered to the end; ``errors``: calls
    ended by an error or a requested fault; ``closed_early``: calls that the client ended before the answer was
    complete.
    """

    _counts: dict[str, _Counts] = field(default_factory=lambda: {service: _Counts() for service in SERVICES})
    _last: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextmanager
    def call(self, service: str) -> Iterator[Call]:
        """Count one call from its admission to its end."""
        counts = self._counts[service]
        counts.seen += 1
        counts.open += 1
        counts.most_open = max(counts.most_open, counts.open)
        call = Call()
        try:
            yield call
        finally:
            counts.open -= 1
            # A failure takes precedence: an error frame may follow the last regular one.
            if call.has_failed:
                counts.errors += 1
            elif call.is_complete:
                counts.completed += 1
            else:
                counts.closed_early += 1

    def refuse(self, service: str) -> None:
        """Count a call that the gateway refused."""
        self._counts[service].refused += 1

    def note(self, service: str, /, **parameters: Any) -> None:
        """Record the parameters of the most recent request; long texts and lists are truncated."""
        self._last[service] = {name: _cut(value) for name, value in parameters.items()}

    def snapshot(self) -> dict[str, Any]:
        """Return all counters and recorded parameters, ready for JSON."""
        return {
            "services": {service: vars(counts).copy() for service, counts in self._counts.items()},
            "last": {service: dict(last) for service, last in self._last.items()},
        }


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value[:_MAX_CONTENT]
    if isinstance(value, (list, tuple)):
        return [_cut(item) for item in value[:_MAX_MESSAGES]]
    return value
