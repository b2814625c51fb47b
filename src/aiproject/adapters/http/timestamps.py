"""Timestamps as ``/v1`` writes and reads them: RFC 3339, in UTC, with milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, overload

from msgspec import Meta

__all__ = ["Timestamp", "format_milliseconds", "format_timestamp", "read_timestamp"]

Timestamp = Annotated[
    str,
    Meta(
        description="UTC 时间，精确到毫秒",
        examples=["2026-03-01T12:30:45.123Z"],
        extra_json_schema={"format": "date-time"},
    ),
]
"""A timestamp in an answer, as `format_timestamp` writes it."""


@overload
def format_timestamp(moment: datetime) -> str: ...
@overload
def format_timestamp(moment: None) -> None: ...
def format_timestamp(moment: datetime | None) -> str | None:
    """Write a timestamp; nothing stays nothing."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@overload
def format_milliseconds(milliseconds: int) -> str: ...
@overload
def format_milliseconds(milliseconds: None) -> None: ...
def format_milliseconds(milliseconds: int | None) -> str | None:
    """Write a timestamp that is stored as milliseconds since 1970; nothing stays nothing."""
    return None if milliseconds is None else format_timestamp(datetime.fromtimestamp(milliseconds / 1000, UTC))


def read_timestamp(value: object) -> datetime | None:
    """Read a timestamp, in any zone that it states; ``None`` stays ``None``.

    Raises:
        ValueError: it is none, states no zone, or is out of the calendar.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("no text")
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("no zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("out of the calendar") from None
