"""What the sandbox counted, for tests and for the curious: ``GET /sandbox/calls``."""

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
        is_complete: the last frame, or the whole body, was sent.
        has_failed: an error frame was sent, or a fault ended the call.
    """

    is_complete: bool = False
    has_failed: bool = False


@dataclass
class Calls:
    """Counters of each service.

    ``open``: in progress now; ``most_open``: at once, at most; ``seen``: let in by the gateway; ``refused``: not let
    in; ``completed``: answered to the end; ``errors``: ended by an error or an ordered fault; ``closed_early``: left
    by the client before the end.
    """

    _counts: dict[str, _Counts] = field(default_factory=lambda: {service: _Counts() for service in SERVICES})
    _last: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextmanager
    def call(self, service: str) -> Iterator[Call]:
        """Count one call from the moment it was let in."""
        counts = self._counts[service]
        counts.seen += 1
        counts.open += 1
        counts.most_open = max(counts.most_open, counts.open)
        call = Call()
        try:
            yield call
        finally:
            counts.open -= 1
            if call.has_failed:
                counts.errors += 1
            elif call.is_complete:
                counts.completed += 1
            else:
                counts.closed_early += 1

    def refuse(self, service: str) -> None:
        """Count a call that was not let in."""
        self._counts[service].refused += 1

    def note(self, service: str, /, **parameters: Any) -> None:
        """Remember the parameters of the last request; texts are cut."""
        self._last[service] = {name: _cut(value) for name, value in parameters.items()}

    def snapshot(self) -> dict[str, Any]:
        """Everything, fit for JSON."""
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
