"""What was right a moment ago is remembered for a minute, bounded, and never shown."""

from __future__ import annotations

import dataclasses

from aiproject.accounts.core.model import Account
from aiproject.accounts.principal import recent
from aiproject.accounts.principal.recent import KEPT_SECONDS, Pair, RecentPairs

ALICE = Account(7, "u" * 32, "Alice", "", None, 1, 1, None, 0, None, None)
PAIR = Pair(ALICE.uuid, "alice")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_is_found_by_the_very_words_and_for_a_minute() -> None:
    clock = Clock()
    pairs = RecentPairs(clock)
    pairs.remember(ALICE.uuid, "Alice", ALICE, PAIR)
    assert pairs.find(ALICE.uuid, "Alice") == (ALICE, PAIR)
    for uuid, name in ((ALICE.uuid, "alice"), ("U" * 32, "Alice"), ("", "Alice"), (ALICE.uuid, "")):
        assert pairs.find(uuid, name) is None
    clock.now += KEPT_SECONDS + 0.1
    assert pairs.find(ALICE.uuid, "Alice") is None


def test_the_oldest_goes_when_there_are_too_many() -> None:
    pairs = RecentPairs(Clock())
    for number in range(recent.MOST + 1):
        pairs.remember(str(number), "x", dataclasses.replace(ALICE, account_id=number), Pair(str(number), "x"))
    assert pairs.find("0", "x") is None
    assert pairs.find("1", "x") is not None
    assert pairs.find(str(recent.MOST), "x") is not None


def test_a_pair_does_not_show_its_uuid() -> None:
    assert ALICE.uuid not in repr(PAIR)
