"""When a day begins, for daily caps."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.ledger.key_limits import day_of, seconds_to_next_day

SHANGHAI, NEW_YORK = ZoneInfo("Asia/Shanghai"), ZoneInfo("America/New_York")


def ms(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type, misc]


def test_a_day_is_the_zone_s() -> None:
    evening = ms(2026, 12, 31, 15, 59, 59)
    assert (day_of(evening, SHANGHAI), day_of(evening + 1000, SHANGHAI)) == (20261231, 20270101)
    assert day_of(evening + 1000, UTC) == 20261231


@pytest.mark.parametrize(
    ("now", "zone", "seconds"),
    [
        (ms(2026, 5, 5, 15, 59, 59), SHANGHAI, 1),
        (ms(2026, 5, 5, 16), SHANGHAI, 86_400),
        (ms(2026, 5, 5, 15, 59, 59) + 999, SHANGHAI, 1),
        (ms(2026, 5, 5, 15, 59, 58) + 1, SHANGHAI, 2),
        # The days on which New York's clocks change: 23 and 25 hours. Source: the IANA time zone database.
        (ms(2026, 3, 8, 5), NEW_YORK, 23 * 3600),
        (ms(2026, 11, 1, 4), NEW_YORK, 25 * 3600),
    ],
)
def test_the_next_one_begins(now: int, zone: ZoneInfo, seconds: int) -> None:
    assert seconds_to_next_day(now, zone) == seconds


@given(st.integers(0, ms(2100, 1, 1)), st.sampled_from([SHANGHAI, NEW_YORK, ZoneInfo("Asia/Kolkata")]))
def test_whoever_waits_as_long_finds_another_day(now: int, zone: ZoneInfo) -> None:
    wait = seconds_to_next_day(now, zone)
    assert day_of(now + wait * 1000, zone) > day_of(now, zone)
    assert day_of(now + (wait - 1) * 1000 - 1, zone) <= day_of(now, zone) or wait == 1
