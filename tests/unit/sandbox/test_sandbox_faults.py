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
    FaultRegistry,
    InvalidFault,
    parse_fault_markers,
    parse_fault_requests,
    strip_fault_markers,
)

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "en" / "reference" / "sandbox.md"


class TestPrompt:
    def test_options_quotes_and_default_kind(self) -> None:
        ((fault, times),) = parse_fault_markers('hi [[fault:code=10013 at=first message="a b" times=3]]')
        assert (fault.kind, times) == ("error", 3)
        assert (fault.whole("code"), fault.text("at"), fault.text("message")) == (10013, "first", "a b")

    def test_several(self) -> None:
        assert [fault.kind for fault, _ in parse_fault_markers("[[fault:slow]] [[fault:emoji]]")] == ["slow", "emoji"]

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
        assert parse_fault_markers(prompt) == []

    def test_orders_are_not_part_of_the_question(self) -> None:
        assert strip_fault_markers("[[fault:single]] hello [[fault:slow seconds=1]]") == "hello"

    @given(st.text(alphabet='[]:= "abcdefault0123456789_\n', max_size=200))
    def test_any_text(self, prompt: str) -> None:
        parse_fault_markers(prompt)
        parse_fault_markers(f"[[fault:{prompt}]]")

    def test_times_counts_rounds(self) -> None:
        registry = FaultRegistry()
        taken = [len(registry.take_from_prompt("[[fault:single times=2]][[fault:slow]]")) for _ in range(6)]
        assert taken == [2, 2, 1] * 2


class TestControl:
    @pytest.mark.parametrize("kind", FAULTS)
    def test_every_fault_with_its_defaults(self, kind: str) -> None:
        for service in FAULTS[kind].services:
            (request,) = parse_fault_requests({"service": service, "fault": kind})
            assert (request.service, request.fault.kind, request.remaining) == (service, kind, 1)

    @pytest.mark.parametrize(
        "body",
        [
            [],
            {"fault": "stall"},
            [{"fault": "stall", "times": 0}, {"service": "ocr", "fault": "nul", "n": 3}],
        ],
    )
    def test_accepted(self, body: object) -> None:
        FaultRegistry().add(parse_fault_requests(body))

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
        with pytest.raises(InvalidFault):
            parse_fault_requests(body)

    def test_counted_orders_come_one_at_a_time_and_standing_ones_every_time(self) -> None:
        registry = FaultRegistry()
        registry.add(
            parse_fault_requests([{"fault": "slow", "times": 0}, {"fault": "single", "times": 2}, {"fault": "emoji"}])
        )
        taken = [[fault.kind for fault in registry.take("chat", "call")] for _ in range(4)]
        assert taken == [["slow", "single"], ["slow", "single"], ["slow", "emoji"], ["slow"]]
        assert [request["fault"] for request in registry.pending()] == ["slow"]
        registry.clear()
        assert registry.pending() == []

    def test_an_order_waits_for_its_service_and_stage(self) -> None:
        registry = FaultRegistry()
        registry.add(parse_fault_requests([{"service": "ocr", "fault": "stall"}, {"fault": "refuse"}]))
        assert registry.take("chat", "call") == []
        assert registry.take("ocr", "gateway")[0].kind == "refuse"
        assert registry.take("ocr", "call")[0].kind == "stall"

    def test_the_book_is_bounded(self) -> None:
        with pytest.raises(InvalidFault, match="at most"):
            FaultRegistry().add(parse_fault_requests([{"fault": "stall"}] * 1001))


def test_the_document_lists_every_fault_with_its_options() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(rows) == set(FAULTS)
    for kind, row in rows.items():
        services = FAULTS[kind].services
        assert ("all" in row.split("|")[0]) == (services == SERVICES), kind
        if services != SERVICES:
            assert set(re.findall(r"\w+", row.split("|")[0])) == set(services), kind
        assert set(re.findall(r"`(\w+)=", row)) == set(FAULTS[kind].options), kind
