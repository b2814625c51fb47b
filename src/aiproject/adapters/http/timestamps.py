"""Moments as ``/v1`` writes and reads them: RFC 3339, in UTC, with milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime

from aiproject.errors import InvalidInput

__all__ = ["read_moment", "told", "told_ms"]


def told(moment: datetime | None) -> str | None:
    """Write a moment; nothing stays nothing."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def told_ms(milliseconds: int | None) -> str | None:
    """Write a moment that is stored as milliseconds since 1970; nothing stays nothing."""
    return None if milliseconds is None else told(datetime.fromtimestamp(milliseconds / 1000, UTC))


def read_moment(text: str, name: str) -> datetime:
    """Read a moment, in any zone that it states.

    Raises:
        InvalidInput: it is none, or states no zone; ``name`` is the field's.
    """
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo is not None else _refuse(name)
    except (ValueError, OverflowError):
        return _refuse(name)


def _refuse(name: str) -> datetime:
    raise InvalidInput(f"{name} 应为带时区的时间，例如 2026-12-31T23:59:59+08:00")
