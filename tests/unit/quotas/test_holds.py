"""What a balance allows, and what is charged in the end; the database is not asked."""

from __future__ import annotations

import itertools
from typing import cast

import pytest

from aiproject.adapters.database import Database
from aiproject.quotas import Capability, Hold, LeaseTimes, Outcome, Quotas, Stage
from aiproject.quotas.model import AccountBooks, snapshot
from aiproject.quotas.rules import charge


def books(balance: int | None, held: int) -> AccountBooks:
    """An account's books, in which the other two capabilities would answer otherwise."""
    return AccountBooks(
        7,
        {Capability.TOKENS: 10**6, Capability.PIC_TIMES: balance, Capability.VOICE_SECONDS: 10**6},
        {Capability.TOKENS: 10**6, Capability.PIC_TIMES: held, Capability.VOICE_SECONDS: 0},
        voice_used_ms=0,
        seq=0,
        hash="",
    )


@pytest.mark.parametrize(
    ("balance", "held", "available"), [(100, 0, 100), (100, 60, 40), (100, 100, 0), (0, 0, 0), (None, 60, None)]
)
def test_what_is_held_is_not_available(balance: int | None, held: int, available: int | None) -> None:
    assert books(balance, held).available(Capability.PIC_TIMES) == available


async def test_a_call_that_nobody_pays_takes_nothing() -> None:
    quotas = Quotas(cast("Database", None), LeaseTimes(30))  # nothing is asked of it
    free = Hold(None, Capability.VOICE_SECONDS, 1000, "r1")
    assert await quotas.settle(free, Outcome.FINISHED, Stage.LAST_FRAME, reported=1000) == 0


class TestCharge:
    """By the written table; the numbers are made up so that each can have only one source."""

    REPORTED, ESTIMATED = 14, 20
    TAKES = {
        (Outcome.FINISHED, Stage.LAST_FRAME): REPORTED,
        (Outcome.CLIENT_GONE, Stage.FIRST_FRAME): ESTIMATED,
        (Outcome.CLIENT_GONE, Stage.LAST_FRAME): REPORTED,
    }

    @pytest.mark.parametrize(("outcome", "stage"), list(itertools.product(Outcome, Stage)))
    def test_only_an_answer_is_charged(self, outcome: Outcome, stage: Stage) -> None:
        found = charge(outcome, stage, reported=self.REPORTED, estimated=self.ESTIMATED)
        assert found == self.TAKES.get((outcome, stage), 0)

    @pytest.mark.parametrize(("outcome", "stage"), list(TAKES))
    def test_without_a_report_the_estimate_is(self, outcome: Outcome, stage: Stage) -> None:
        assert charge(outcome, stage, reported=None, estimated=self.ESTIMATED) == self.ESTIMATED

    def test_a_report_of_nothing_is_a_report(self) -> None:
        assert charge(Outcome.FINISHED, Stage.LAST_FRAME, reported=0, estimated=self.ESTIMATED) == 0


def test_a_rule_is_kept_in_one_spelling() -> None:
    assert snapshot(rule=1, prompt_estimate=3, name="é") == snapshot(name="é", prompt_estimate=3, rule=1)
    assert snapshot(rule=1, name="é") == '{"name":"\\u00e9","rule":1}'
