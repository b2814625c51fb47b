"""The arithmetic of limits, and their header fields."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aiproject.protocols.rate_limits import LimitStatus, policy_field, status_field, waiting_time, weighted_count

COUNTS = st.integers(0, 2000)


def test_the_minute_before_fades() -> None:
    assert [weighted_count(60, 5, elapsed) for elapsed in (0, 15, 30, 59)] == [65, 50, 35, 6]


def test_waiting_ends_when_there_is_room() -> None:
    assert waiting_time(0, 9, 30, limit=10, cost=1) == 0
    assert waiting_time(10, 0, 0, limit=10, cost=1) == pytest.approx(
        6
    )  # a tenth of the minute before must be out of sight
    assert waiting_time(0, 10, 50, limit=10, cost=1) == pytest.approx(
        16
    )  # the rest of this minute, and a tenth of the next
    assert waiting_time(10, 10, 50, limit=10, cost=10) == 70


@given(COUNTS, COUNTS, st.floats(0, 59.9), st.integers(1, 1000), st.integers(1, 1000))
def test_after_the_wait_it_fits_and_a_second_before_it_does_not(
    previous: int, current: int, elapsed: float, limit: int, cost: int
) -> None:
    assume(cost <= limit)
    wait = waiting_time(previous, current, elapsed, limit, cost)

    def fits(then: float) -> bool:
        before, now, seconds = (previous, current, then) if then < 60 else (current, 0, then - 60)
        return seconds >= 60 or weighted_count(before, now, seconds) + cost <= limit + 1e-6

    assert fits(elapsed + wait)
    if wait > 1:
        assert not fits(elapsed + wait - 1) or weighted_count(previous, current, elapsed) + cost > limit
        assert wait <= 120


def test_the_fields_are_those_of_the_draft() -> None:
    standings = [
        LimitStatus("account", 600, 599, 60),
        LimitStatus("account-calls", 50, 48, None, is_concurrent=True),
        LimitStatus("key-tokens", 1000, 10, 60, is_reported=False),
    ]
    assert policy_field(standings) == b'"account";q=600;w=60, "account-calls";q=50;qu="concurrent-requests"'
    assert status_field(standings) == b'"account";r=599;t=60, "account-calls";r=48'
    assert policy_field(standings[2:]) == status_field(standings[2:]) == b""
