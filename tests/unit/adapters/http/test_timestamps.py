"""Timestamps on the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from aiproject.adapters.http.timestamps import format_timestamp, read_timestamp


def test_written_in_utc_with_milliseconds() -> None:
    assert format_timestamp(datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)) == "2026-03-01T12:00:00.123Z"
    assert format_timestamp(datetime(2026, 3, 1, 20, tzinfo=timezone(timedelta(hours=8)))) == "2026-03-01T12:00:00.000Z"
    assert format_timestamp(None) is None


@pytest.mark.parametrize("text", ["2026-03-01T12:00:00Z", "2026-03-01T20:00:00+08:00", "2026-03-01T12:00:00.000+00:00"])
def test_read_in_any_zone(text: str) -> None:
    assert read_timestamp(text) == datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-03-01", "2026-03-01T12:00:00", "0001-01-01T00:00:00+14:00"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_timestamp(text)


@pytest.mark.parametrize("value", [5, True, [], {}])
def test_what_is_no_text(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_timestamp(value)
