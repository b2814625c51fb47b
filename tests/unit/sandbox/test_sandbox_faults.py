"""Orders: read strictly from the control API, leniently from a prompt, taken first come first served."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.sandbox.faults import (
    FAULTS,
    SERVICES,
    FaultBook,
    UnknownFault,
    faults_in_prompt,
    parse_orders,
    without_orders,
)

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "en" / "reference" / "sandbox.md"


class TestPrompt:
    def test_options_quotes_and_default_kind(self) -> None:
        ((fault, times),) = faults_in_prompt('hi [[fault:code=10013 at=first message="a b" times=3]]')
        assert (fault.kind, times) == ("error", 3)
        assert (fault.whole("code"), fault.text("at"), fault.text("message")) == (10013, "first", "a b")

    def test_several(self) -> None:
        assert [fault.kind for fault, _ in faults_in_prompt("[[fault:slow]] [[fault:emoji]]")] == ["slow", "emoji"]

    @pytest.mark.parametrize(
        "prompt",
        [
            "[[fault:]]",
            "[[fault:explode]]",
            "[[fault:error code=x]]",
            "[[fault:refuse]]",
            "[[fault:silence]]",
            "fault:single",
        ],
    )
    def test_what_makes_no_sense_is_skipped(self, prompt: str) -> None:
        assert faults_in_prompt(prompt) == []

    def test_orders_are_not_part_of_the_question(self) -> None:
        assert without_orders("[[fault:single]] hello [[fault:slow seconds=1]]") == "hello"

    @given(st.text(alphabet='[]:= "abcdefault0123456789_\n', max_size=200))
    def test_any_text(self, prompt: str) -> None:
        faults_in_prompt(prompt)
        faults_in_prompt(f"[[fault:{prompt}]]")

    def test_times_counts_rounds(self) -> None:
        book = FaultBook()
        taken = [len(book.take_from_prompt("[[fault:single times=2]][[fault:slow]]")) for _ in range(6)]
        assert taken == [2, 2, 1] * 2


class TestControl:
    @pytest.mark.parametrize("kind", FAULTS)
    def test_every_fault_with_its_defaults(self, kind: str) -> None:
        for service in FAULTS[kind].services:
            (order,) = parse_orders({"service": service, "fault": kind})
            assert (order.service, order.fault.kind, order.remaining) == (service, kind, 1)

    @pytest.mark.parametrize(
        "body",
        [
            [],
            {"fault": "stall"},
            [{"fault": "stall", "times": 0}, {"service": "ocr", "fault": "nul", "n": 3}],
        ],
    )
    def test_accepted(self, body: object) -> None:
        FaultBook().add(parse_orders(body))

    @pytest.mark.parametrize(
        "body",
        [
            None,
            "stall",
            {},
            {"fault": "stall", "seconds": True},
            {"fault": "stall", "seconds": -1},
            {"fault": "stall", "seconds": float("nan")},
            {"fault": "error", "code": 1.5},
            {"fault": "error", "message": "x" * 501},
            {"fault": "stall", "times": -1},
            {"fault": "stall", "times": "often"},
            {"service": "dictation", "fault": "emoji"},
        ],
    )
    def test_refused(self, body: object) -> None:
        with pytest.raises(UnknownFault):
            parse_orders(body)

    def test_counted_orders_come_one_at_a_time_and_standing_ones_every_time(self) -> None:
        book = FaultBook()
        book.add(parse_orders([{"fault": "slow", "times": 0}, {"fault": "single", "times": 2}, {"fault": "emoji"}]))
        taken = [[fault.kind for fault in book.take("chat", "call")] for _ in range(4)]
        assert taken == [["slow", "single"], ["slow", "single"], ["slow", "emoji"], ["slow"]]
        assert [order["fault"] for order in book.pending()] == ["slow"]
        book.clear()
        assert book.pending() == []

    def test_an_order_waits_for_its_service_and_stage(self) -> None:
        book = FaultBook()
        book.add(parse_orders([{"service": "ocr", "fault": "stall"}, {"fault": "refuse"}]))
        assert book.take("chat", "call") == []
        assert book.take("ocr", "gateway")[0].kind == "refuse"
        assert book.take("ocr", "call")[0].kind == "stall"

    def test_the_book_is_bounded(self) -> None:
        with pytest.raises(UnknownFault, match="at most"):
            FaultBook().add(parse_orders([{"fault": "stall"}] * 1001))


def test_the_document_lists_every_fault_with_its_options() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(rows) == set(FAULTS)
    for kind, row in rows.items():
        services = FAULTS[kind].services
        assert ("all" in row.split("|")[0]) == (services == SERVICES), kind
        if services != SERVICES:
            assert set(re.findall(r"\w+", row.split("|")[0])) == set(services), kind
        assert set(re.findall(r"`(\w+)=", row)) == set(FAULTS[kind].options), kind
