"""The answers of ``POST /v1/chat/completions``: one object, or a stream of chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from aiproject.protocols.chat import ChatEvent, FinishReason, ToolCallDelta, Usage

__all__ = ["DONE", "ChunkMaker", "completion"]

DONE: Final = b"[DONE]"
"""The data of the last event of a stream that ended well."""

_encode = msgspec.json.Encoder().encode


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.total_tokens - usage.prompt_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


class _Calls:
    """Tool calls, put together from their pieces."""

    def __init__(self, answer_id: str) -> None:
        self._answer_id = answer_id
        self._calls: dict[int, dict[str, str]] = {}

    def id_of(self, delta: ToolCallDelta) -> str:
        """Return the id of a call; clients pair results by it, so there is always one."""
        return delta.id or f"call_{self._answer_id}_{delta.index}"

    def take(self, delta: ToolCallDelta) -> None:
        call = self._calls.setdefault(delta.index, {"id": self.id_of(delta), "name": "", "arguments": ""})
        call["name"] += delta.name
        call["arguments"] += delta.arguments

    def whole(self) -> list[dict[str, Any]]:
        return [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
            for _, call in sorted(self._calls.items())
        ]


def completion(
    answer_id: str, created: int, model: str, events: list[ChatEvent], usage: Usage, reason: FinishReason
) -> bytes:
    """Return a whole answer.

    Args:
        answer_id: unique.
        created: seconds since 1970.
        events: all of the answer.
    """
    calls = _Calls(answer_id)
    for event in events:
        for delta in event.tool_calls:
            calls.take(delta)
    text = "".join(event.text for event in events)
    reasoning = "".join(event.reasoning for event in events)
    tool_calls = calls.whole()
    message: dict[str, Any] = {"role": "assistant", "content": text or (None if tool_calls else ""), "refusal": None}
    if reasoning:
        message["reasoning_content"] = reasoning
    if tool_calls:
        message["tool_calls"] = tool_calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": str(reason)}
    return _encode(
        {
            "id": f"chatcmpl-{answer_id}",
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": [choice],
            "usage": _usage(usage),
        }
    )


class ChunkMaker:
    """Makes the chunks of one stream, as the data of server-sent events.

    Args:
        answer_id: unique, the same in every chunk.
        created: seconds since 1970.
        includes_usage: a last chunk has the usage, the others have none in its place.
    """

    def __init__(self, answer_id: str, created: int, model: str, *, includes_usage: bool) -> None:
        head = {"id": f"chatcmpl-{answer_id}", "object": "chat.completion.chunk", "created": created, "model": model}
        # Everything before the delta is the same in each chunk, and so is what follows in nearly each.
        self._before = _encode(head)[:-1] + b',"choices":[{"index":0,"delta":'
        self._usage_before = _encode(head)[:-1] + b',"choices":[],"usage":'
        self._after = b',"logprobs":null,"finish_reason":%b}]' + (b',"usage":null}' if includes_usage else b"}")
        self._after_usual = self._after % b"null"
        self._has_role = False
        self._calls = _Calls(answer_id)
        self._begun: set[int] = set()

    def chunk(self, event: ChatEvent) -> bytes | None:
        """Return the chunk of an event; ``None``: it has nothing to show."""
        delta: dict[str, Any] = {}
        if event.text:
            delta["content"] = event.text
        if event.reasoning:
            delta["reasoning_content"] = event.reasoning
        if event.tool_calls:
            delta["tool_calls"] = [self._call(each) for each in event.tool_calls]
        if not delta and self._has_role:
            return None
        if not self._has_role:
            self._has_role = True
            delta = {"role": "assistant", "content": "", "refusal": None, **delta}
        return self._before + _encode(delta) + self._after_usual

    def _call(self, delta: ToolCallDelta) -> Mapping[str, Any]:
        if delta.index in self._begun:
            return {"index": delta.index, "function": {"arguments": delta.arguments}}
        self._begun.add(delta.index)
        function = {"name": delta.name, "arguments": delta.arguments}
        return {"index": delta.index, "id": self._calls.id_of(delta), "type": "function", "function": function}

    def last(self, reason: FinishReason) -> bytes:
        """Return the chunk that says why the answer is complete."""
        return self._before + b"{}" + self._after % _encode(str(reason))

    def usage(self, usage: Usage) -> bytes:
        """Return the chunk with the usage, which follows the last one."""
        return self._usage_before + _encode(_usage(usage)) + b"}"
