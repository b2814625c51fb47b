"""The words of the books fit into their columns, and snapshots of rules are what an entry can be explained by."""

from __future__ import annotations

import json
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.adapters.db.schema import hold, ledger_entry, operator_loss
from aiproject.ledger.model import MAX_UNITS, HoldState, Kind, Meter, Outcome, Stage, snapshot
from aiproject.ledger.rules import RULE_VERSION

names = st.text(st.characters(categories=["Ll"], max_codepoint=127), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("words", "column"),
    [
        (Meter, ledger_entry.c.capability),
        (Meter, hold.c.capability),
        (Meter, operator_loss.c.capability),
        (Kind, ledger_entry.c.kind),
        (HoldState, hold.c.state),
        (Stage, hold.c.stage),
        (Outcome, hold.c.outcome),
    ],
)
def test_words_fit_into_their_columns(words: type[StrEnum], column: object) -> None:
    length = column.type.length  # type: ignore[attr-defined]
    assert all(len(word) <= length for word in words)


def test_units_stay_exact_in_javascript() -> None:
    assert MAX_UNITS == 9007199254740991


class TestSnapshots:
    def test_are_compact_and_in_order(self) -> None:
        assert snapshot(rule=1, completion_limit=2048) == '{"completion_limit":2048,"rule":1}'

    @given(facts=st.dictionaries(names, st.integers() | st.text(max_size=50), max_size=8))
    def test_come_back_as_they_went_in(self, facts: dict[str, int | str]) -> None:
        text = snapshot(**facts)
        assert text.isascii()
        assert json.loads(text) == facts

    @given(facts=st.dictionaries(names, st.integers() | st.text(max_size=50), max_size=8))
    def test_are_what_the_standard_library_writes(self, facts: dict[str, int | str]) -> None:
        """Books that exist hold such texts, under seals."""
        assert snapshot(**facts) == json.dumps(facts, sort_keys=True, separators=(",", ":"))

    @pytest.mark.parametrize("fact", ["\x00\x1f\x7f", '"\\/', "\b\f\n\r\t\v", "é\u2028图😀", -1, 0, 1 << 70])
    def test_also_of_what_is_seldom_written(self, fact: int | str) -> None:
        assert snapshot(fact=fact, a=1) == json.dumps({"a": 1, "fact": fact}, separators=(",", ":"))

    def test_of_a_chat_fit_into_their_column(self) -> None:
        text = snapshot(rule=RULE_VERSION, prompt_estimate=MAX_UNITS, completion_limit=MAX_UNITS)
        assert len(text) <= ledger_entry.c.rule.type.length / 4  # type: ignore[attr-defined]
