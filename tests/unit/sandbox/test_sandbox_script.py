"""The script of an answer: what goes over the wire is decided before anything is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.sandbox.chat import Close, Fail, Question, Reset, Script, Send, Stall, write_script
from aiproject.sandbox.faults import FAULTS, parse_fault_requests

QUESTION = Question("你好", ("user",), 3, 4096, "【沙盒】" + "固定的回答" * 10)


def script(*orders: dict[str, Any], question: Question = QUESTION) -> Script:
    return write_script(question, [order.fault for order in parse_fault_requests(list(orders))], sid="cht1")


def sent(written: Script) -> list[dict[str, Any]]:
    return [json.loads(step.frame) for step in written.steps if isinstance(step, Send)]


def test_plain_answer() -> None:
    frames = sent(script())
    assert [frame["header"]["status"] for frame in frames] == [0, *[1] * (len(frames) - 2), 2]
    assert "".join(frame["payload"]["choices"]["text"][0]["content"] for frame in frames) == QUESTION.answer


@pytest.mark.parametrize(
    ("order", "frames", "end"),
    [
        ({"fault": "error", "code": 10012, "message": "busy"}, 0, Fail(10012, "busy")),
        ({"fault": "error", "code": 10014, "message": "no", "at": "middle", "after": 2}, 2, Fail(10014, "no")),
        ({"fault": "truncate", "after": 3, "code": 1011}, 3, Close(1011)),
        ({"fault": "reset", "after": 1}, 1, Reset()),
    ],
)
def test_what_ends_an_answer(order: dict[str, Any], frames: int, end: object) -> None:
    written = script(order)
    assert len(written.steps) == frames + 1
    assert written.steps[-1] == end


@pytest.mark.parametrize("kind", ["truncate", "reset"])
def test_an_end_never_comes_after_the_last_frame(kind: str) -> None:
    for frame in sent(script({"fault": "single"}, {"fault": kind, "after": 1000})):
        assert frame["header"]["status"] != 2


def test_stall_is_followed_by_the_rest() -> None:
    steps = script({"fault": "stall", "at": "middle", "after": 2, "seconds": 9}).steps
    assert steps[2] == Stall(9.0)
    last = steps[-1]
    assert isinstance(last, Send)
    assert json.loads(last.frame)["header"]["status"] == 2


@given(
    st.lists(st.sampled_from([kind for kind in FAULTS if "chat" in FAULTS[kind].services]), max_size=4),
    st.integers(1, 60),
    st.booleans(),
)
def test_any_combination_gives_a_script(kinds: list[str], max_tokens: int, has_reasoning: bool) -> None:
    question = Question(
        "你好", ("user",), 3, max_tokens, QUESTION.answer, has_reasoning=has_reasoning, shows_sources=has_reasoning
    )
    orders = [{"fault": kind} | ({"bytes": 100} if kind == "huge" else {}) for kind in kinds]
    steps = script(*orders, question=question).steps
    assert steps
    ends = [step for step in steps if isinstance(step, (Close, Fail, Reset))]
    assert len(ends) <= 1
    if ends:
        assert steps[-1] is ends[0]
    elif not {"not_json", "binary"} & set(kinds):
        last = steps[-1]
        assert isinstance(last, Send)
        assert json.loads(last.frame)["header"]["status"] == 2


@given(st.integers(1, 400))
def test_number_of_frames(count: int) -> None:
    assert len(sent(script({"fault": "frames", "n": count}))) == count
