"""How failures add up; the time is made up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aiproject.accounts.login.throttle_rules import (
    ADDRESS_RULE,
    GUESS_RULE,
    LOCKED_MS,
    MAX_DELAY_MS,
    NAME_RULE,
    NO_FAILURES,
    FailureCount,
    Rule,
)

START = 1_800_000_000_000


def guess_on(rule: Rule, *, patience: int, now: int = START) -> tuple[FailureCount, list[int]]:
    """Fail as soon as it is allowed, so many times; return the tally and the seconds waited before each."""
    tally, waits = NO_FAILURES, []
    for _ in range(patience):
        wait = tally.wait(rule, now)
        if wait == LOCKED_MS:
            break
        now += wait
        assert tally.wait(rule, now) == 0
        waits.append(wait // 1000)
        tally = tally.counted(rule, now)
    return tally, waits


def test_a_name_has_five_free_failures_then_the_delay_doubles_up_to_a_quarter_of_an_hour() -> None:
    _, waits = guess_on(NAME_RULE, patience=20)
    assert waits == [0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900]


def test_after_a_hundred_failures_in_a_row_a_name_is_locked_whatever_time_passes() -> None:
    tally, waits = guess_on(NAME_RULE, patience=1000)
    assert len(waits) == tally.failures == 100
    assert tally.wait(NAME_RULE, START + 10**15) == LOCKED_MS
    assert sum(waits) > 20 * 3600


def test_the_failures_of_a_name_are_not_forgiven_by_time() -> None:
    tally = NO_FAILURES
    for year in range(100):
        tally = tally.counted(NAME_RULE, START + year * 364 * 86_400_000)
    assert tally.failures == 100


def test_an_address_is_forgiven_one_failure_in_ten_seconds() -> None:
    tally = NO_FAILURES
    for number in range(ADDRESS_RULE.free):
        assert tally.wait(ADDRESS_RULE, START + number) == 0
        tally = tally.counted(ADDRESS_RULE, START + number)
    assert tally.wait(ADDRESS_RULE, START + 1000) == 0
    over = tally.counted(ADDRESS_RULE, START + 1000)
    assert (over.failures, over.wait(ADDRESS_RULE, START + 1000)) == (201, 1000)
    later = tally.counted(ADDRESS_RULE, START + 35_000)
    assert (later.failures, later.wait(ADDRESS_RULE, START + 35_000)) == (198, 0)
    # The five seconds that were left count: 40 s after the start, the fourth is forgiven.
    assert later.counted(ADDRESS_RULE, START + 40_000).failures == 198
    assert tally.counted(ADDRESS_RULE, START + 86_400_000) == FailureCount(1, 0, START + 86_400_000)


def test_an_address_that_guesses_on_is_slowed_to_what_is_forgiven() -> None:
    tally, now = NO_FAILURES, START
    for _ in range(2000):
        now += tally.wait(ADDRESS_RULE, now)
        tally = tally.counted(ADDRESS_RULE, now)
    assert 0.9 < (now - START) / (1800 * (ADDRESS_RULE.forgiven_every or 0)) < 1.1


def test_no_address_is_locked_for_good() -> None:
    for rule in (ADDRESS_RULE, GUESS_RULE):
        assert FailureCount(10**6, START, START).wait(rule, START) == 0
        assert rule.delay(10**9) == MAX_DELAY_MS


def test_what_is_given_back_leaves_no_delay_behind() -> None:
    five, _ = guess_on(NAME_RULE, patience=5)
    six = five.counted(NAME_RULE, START)
    assert six.wait(NAME_RULE, START) == 1000
    back = six.given_back(NAME_RULE)
    assert (back.failures, back.wait(NAME_RULE, START)) == (5, 0)
    assert NO_FAILURES.given_back(NAME_RULE) == NO_FAILURES
    eight = FailureCount(8, START + 4000, START)
    assert eight.given_back(NAME_RULE).wait(NAME_RULE, START) == 4000, "others' failures still count"


@given(st.lists(st.integers(0, 10**8), max_size=300))
def test_no_pattern_of_guesses_passes_a_hundred(pauses: list[int]) -> None:
    tally, now, passed = NO_FAILURES, START, 0
    for pause in pauses:
        now += pause
        if tally.wait(NAME_RULE, now) == 0:
            passed += 1
            tally = tally.counted(NAME_RULE, now)
    assert passed == tally.failures <= 100
