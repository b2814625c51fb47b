"""What the sandbox says: labelled, bounded, deterministic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.protocols.iflytek.spark.estimate import estimate_tokens
from aiproject.sandbox.answers import cut_to_tokens, describe_picture, make_answer, make_reasoning, split_frames


@given(st.text(max_size=3000))
def test_an_answer_is_labelled_bounded_and_the_same_each_time(question: str) -> None:
    answer = make_answer(question, turn=3)
    assert answer.startswith(("【沙盒】", "[sandbox]"))
    assert len(answer) < 500
    assert answer == make_answer(question, turn=3)
    assert make_reasoning(question).startswith(("【沙盒】", "[sandbox]"))


@pytest.mark.parametrize(
    ("question", "label"),
    [
        ("你好", "【沙盒】"),
        ("hello 世界", "【沙盒】"),
        ("hello", "[sandbox]"),
        ("こんにちは", "[sandbox]"),
        ("🎉", "[sandbox]"),
    ],
)
def test_language_of_the_question(question: str, label: str) -> None:
    assert make_answer(question, turn=1).startswith(label)
    assert describe_picture(b"x", "png", (1, 2), question).startswith(label)


@given(st.text(min_size=1, max_size=300), st.integers(1, 10), st.integers(1, 40))
def test_frames_join_to_the_text(text: str, at_least: int, size: int) -> None:
    frames = split_frames(text, at_least=at_least, size=size)
    assert "".join(frames) == text
    assert all(frames)
    assert len(frames) >= min(at_least, len(text))
    assert max(map(len, frames)) <= size


@given(st.text(max_size=300), st.integers(0, 200))
def test_cut_is_the_longest_beginning_that_fits(text: str, limit: int) -> None:
    cut = cut_to_tokens(text, limit, estimate_tokens)
    assert text.startswith(cut)
    assert estimate_tokens(cut) <= limit
    assert cut == text or estimate_tokens(text[: len(cut) + 1]) > limit
