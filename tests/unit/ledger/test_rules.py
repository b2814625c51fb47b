"""The written table of charges: whole, as the documents show it, and safe against any number from upstream."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.ledger.model import MAX_UNITS, Outcome, Stage
from aiproject.ledger.rules import CHARGES, Basis, charge, is_billable

DOCS = Path(__file__).parents[3] / "docs"
STAGES = {
    "nothing was sent yet": Stage.HELD,
    "the question was sent": Stage.SENT,
    "the answer had begun": Stage.FIRST_FRAME,
    "the answer was complete": Stage.LAST_FRAME,
    "尚未发送": Stage.HELD,
    "提问已发送": Stage.SENT,
    "回答已开始": Stage.FIRST_FRAME,
    "回答已完整": Stage.LAST_FRAME,
}
WORDS = {
    "nothing": Basis.NOTHING,
    "as reported": Basis.REPORTED,
    "by estimate": Basis.ESTIMATED,
    "free within the bound": Basis.BOUNDED,
    "不扣": Basis.NOTHING,
    "按报告": Basis.REPORTED,
    "按估算": Basis.ESTIMATED,
    "上限内免费": Basis.BOUNDED,
}

outcomes, stages = st.sampled_from(Outcome), st.sampled_from(Stage)


def documented(language: str) -> dict[Outcome, dict[Stage, Basis]]:
    """The table of the page about quotas."""
    document = DOCS / language / "explanation" / "quotas.md"
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in document.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    head = next(row for row in rows if row[0] in ("how the call ended", "调用如何结束"))
    table = {}
    for row in rows[rows.index(head) + 2 :]:
        name = re.search(r"[(（]`([a-z ]+)`[)）]$", row[0])
        if name is None:
            break
        cells = zip(head[1:], row[1:], strict=True)
        table[Outcome(name.group(1))] = {STAGES[stage]: WORDS[word] for stage, word in cells}
    return table


def test_every_end_at_every_stage_has_its_place() -> None:
    assert {(outcome, stage) for outcome, row in CHARGES.items() for stage in row} == set(product(Outcome, Stage))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_document_shows_the_same_table(language: str) -> None:
    assert documented(language) == CHARGES


@given(outcome=outcomes, stage=stages, reported=st.none() | st.integers(), estimated=st.integers())
def test_a_charge_is_a_number_that_balances_can_take(
    outcome: Outcome, stage: Stage, reported: int | None, estimated: int
) -> None:
    assert 0 <= charge(outcome, stage, reported=reported, estimated=estimated) <= MAX_UNITS


@pytest.mark.parametrize("outcome", Outcome)
def test_before_the_question_is_sent_nothing_is_charged(outcome: Outcome) -> None:
    assert CHARGES[outcome][Stage.HELD] is Basis.NOTHING
    assert charge(outcome, Stage.HELD, reported=10, estimated=20) == 0


@pytest.mark.parametrize("outcome", [Outcome.SERVER_STOPPED, Outcome.SERVER_KILLED])
def test_what_ends_everybodys_calls_costs_nobody_anything(outcome: Outcome) -> None:
    """Else somebody who can bring it about would make others pay."""
    assert set(CHARGES[outcome].values()) == {Basis.NOTHING}


@given(outcome=outcomes, stage=stages)
def test_whatever_is_charged_upstream_may_bill(outcome: Outcome, stage: Stage) -> None:
    assert CHARGES[outcome][stage] is Basis.NOTHING or is_billable(outcome, stage)


@pytest.mark.parametrize(
    ("outcome", "stage", "reported", "expected"),
    [
        (Outcome.FINISHED, Stage.LAST_FRAME, 10, 10),
        (Outcome.FINISHED, Stage.LAST_FRAME, 0, 0),
        (Outcome.FINISHED, Stage.LAST_FRAME, None, 20),
        (Outcome.CLIENT_GONE, Stage.SENT, None, 20),
        (Outcome.CLIENT_GONE, Stage.FIRST_FRAME, 10, 20),
        (Outcome.MODERATED, Stage.FIRST_FRAME, None, 0),
        (Outcome.CLIENT_GONE, Stage.LAST_FRAME, 10, 10),
        (Outcome.UPSTREAM_FAILED, Stage.LAST_FRAME, 10, 0),
        (Outcome.SERVER_KILLED, Stage.LAST_FRAME, 10, 0),
    ],
)
def test_what_a_charge_is_taken_from(outcome: Outcome, stage: Stage, reported: int | None, expected: int) -> None:
    assert charge(outcome, stage, reported=reported, estimated=20) == expected
