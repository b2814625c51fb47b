"""Answers in OpenAI's shapes: one object, or chunks that add up to the same."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aiproject.protocols.chat import ChatEvent, FinishReason, ToolCallDelta, Usage
from aiproject.protocols.openai.answer import ChunkMaker, completion

USAGE = Usage(5, 7, 14, cached_tokens=2, reasoning_tokens=3)
EVENTS = [
    ChatEvent(reasoning="hm"),
    ChatEvent("Hel"),
    ChatEvent('lo "x"\n'),
    ChatEvent(tool_calls=(ToolCallDelta(0, "f", '{"a"'), ToolCallDelta(1, "g", "{}", "theirs"))),
    ChatEvent(tool_calls=(ToolCallDelta(0, "", ":1}"),), is_last=True),
]


def chunks(events: list[ChatEvent], *, includes_usage: bool = False) -> list[dict[str, Any]]:
    make = ChunkMaker("id", 1, "spark", includes_usage=includes_usage)
    data = [chunk for event in events if (chunk := make.chunk(event)) is not None]
    data.append(make.last(FinishReason.TOOL_CALLS))
    if includes_usage:
        data.append(make.usage(USAGE))
    assert not any(b"\n" in each or b"\r" in each for each in data)
    return [json.loads(each) for each in data]


def test_a_whole_answer() -> None:
    answer = json.loads(completion("id", 1, "spark", EVENTS, USAGE, FinishReason.TOOL_CALLS))
    (choice,) = answer.pop("choices")
    assert answer == {
        "id": "chatcmpl-id",
        "object": "chat.completion",
        "created": 1,
        "model": "spark",
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 9,
            "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }
    assert choice["finish_reason"] == "tool_calls"
    message = choice["message"]
    assert (message["content"], message["reasoning_content"]) == ('Hello "x"\n', "hm")
    assert [
        (call["id"], call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]
    ] == [
        ("call_id_0", "f", '{"a":1}'),
        ("theirs", "g", "{}"),
    ]


def test_an_answer_of_calls_alone_has_no_content() -> None:
    events = [ChatEvent(tool_calls=(ToolCallDelta(0, "f", "{}"),), is_last=True)]
    answer = json.loads(completion("id", 1, "spark", events, USAGE, FinishReason.TOOL_CALLS))
    assert answer["choices"][0]["message"]["content"] is None


def test_chunks() -> None:
    first, *middle, last = chunks(EVENTS)
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in middle)
    assert not any("usage" in chunk for chunk in [first, *middle, last])
    begun = middle[2]["choices"][0]["delta"]["tool_calls"]
    assert [(call["index"], call["id"], call["type"]) for call in begun] == [
        (0, "call_id_0", "function"),
        (1, "theirs", "function"),
    ]
    assert middle[3]["choices"][0]["delta"]["tool_calls"] == [{"index": 0, "function": {"arguments": ":1}"}}]


def test_usage_comes_in_a_chunk_of_its_own() -> None:
    *others, last = chunks(EVENTS, includes_usage=True)
    assert all(chunk["usage"] is None for chunk in others)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 14


@given(st.lists(st.text(), min_size=1, max_size=8))
def test_the_chunks_texts_are_the_answers(texts: list[str]) -> None:
    usable = [text.encode("utf-8", "ignore").decode() for text in texts]
    shown = chunks([ChatEvent(text) for text in usable])
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in shown) == "".join(usable)
