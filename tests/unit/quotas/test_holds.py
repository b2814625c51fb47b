"""What is charged for a hold in the end; the database is not asked."""

from __future__ import annotations

import itertools

import pytest

from aiproject.quotas import Outcome, Stage
from aiproject.quotas.model import MAX_UNITS, snapshot
from aiproject.quotas.rules import charge

# Made up so that each can have only one source.
REPORTED, ESTIMATED = 14, 20
TAKES = {
    (Outcome.FINISHED, Stage.LAST_FRAME): REPORTED,
    (Outcome.CLIENT_GONE, Stage.FIRST_FRAME): ESTIMATED,
    (Outcome.CLIENT_GONE, Stage.LAST_FRAME): REPORTED,
}


class TestCharge:
    """By the written table."""

    @pytest.mark.parametrize(("outcome", "stage"), list(itertools.product(Outcome, Stage)))
    def test_only_an_answer_is_charged(self, outcome: Outcome, stage: Stage) -> None:
        found = charge(outcome, stage, reported=REPORTED, estimated=ESTIMATED)
        assert found == TAKES.get((outcome, stage), 0)

    @pytest.mark.parametrize(("outcome", "stage"), list(TAKES))
    def test_without_a_report_the_estimate_is(self, outcome: Outcome, stage: Stage) -> None:
        assert charge(outcome, stage, reported=None, estimated=ESTIMATED) == ESTIMATED

    def test_a_report_of_nothing_is_a_report(self) -> None:
        assert charge(Outcome.FINISHED, Stage.LAST_FRAME, reported=0, estimated=ESTIMATED) == 0

    @pytest.mark.parametrize(("told", "taken"), [(-1, 0), (-(10**30), 0), (10**30, MAX_UNITS)])
    def test_numbers_that_nobody_can_mean(self, told: int, taken: int) -> None:
        assert charge(Outcome.FINISHED, Stage.LAST_FRAME, reported=told, estimated=20) == taken


def test_a_rule_is_kept_in_one_spelling() -> None:
    assert snapshot(rule=1, prompt_estimate=3, name="é") == snapshot(name="é", prompt_estimate=3, rule=1)
    assert snapshot(rule=1, name="é") == '{"name":"\\u00e9","rule":1}'
