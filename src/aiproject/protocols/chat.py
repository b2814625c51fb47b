"""The relay's own, neutral words for a chat: requests, messages and the events of an answer.

Spark's frames, OpenAI's chunks and Anthropic's events are dialects at the edges: an upstream turns its dialect into
`ChatEvent`, a door turns `ChatEvent` into the dialect that its client knows. An event keeps the upstream's own bytes
(`ChatEvent.spark_frame`), so that a Spark frame bound for a Spark-speaking door passes through untouched.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["ChatEvent", "ChatMessage", "ChatRequest", "Role", "ToolCall", "Usage"]

Role = Literal["system", "user", "assistant"]


class ChatMessage(msgspec.Struct, frozen=True):
    """One turn of a dialog.

    Attributes:
        role: who speaks.
        content: what is said; any text, possibly empty (the existing desktop app sends an empty system message).
    """

    role: Role
    content: str


class ChatRequest(msgspec.Struct, frozen=True):
    """One question with its history, as a door received it and checked it.

    Attributes:
        messages: the dialog, oldest first, at least one message.
        max_tokens: the completion limit sent upstream, in tokens of the model's own tokenizer.
        temperature: 0 < temperature <= 1 on Spark.
        top_k: 1 to 6 on Spark.
    """

    messages: tuple[ChatMessage, ...]
    max_tokens: int = 4096
    temperature: float = 0.5
    top_k: int = 4


class Usage(msgspec.Struct, frozen=True):
    """What upstream says the call consumed, in tokens of the model's own tokenizer.

    Attributes:
        prompt_tokens: input, history included.
        completion_tokens: output.
        total_tokens: what is billed.
        question_tokens: Spark reserves this number; it is passed on and never used.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    question_tokens: int = 0


class ToolCall(msgspec.Struct, frozen=True):
    """The model asks for a function to be called; ``arguments`` is JSON text, unchecked."""

    name: str
    arguments: str


class ChatEvent(msgspec.Struct, gc=False):
    """What one upstream message says. A plain record, made once for each frame of the hot path.

    Attributes:
        text: text to append; may be empty.
        reasoning: text of the model's thinking to append; may be empty.
        tool_call: a function call, complete in one event.
        usage: present on the last event of a complete answer.
        is_last: nothing follows this event.
        spark_frame: the upstream's own frame in Spark's dialect, fit to be shown to a Spark-speaking client; ``None``
            where upstream speaks another dialect or the frame holds nothing such a client may see (for example
            search sources, on which the existing desktop app loses the rest of the answer).
    """

    text: str = ""
    reasoning: str = ""
    tool_call: ToolCall | None = None
    usage: Usage | None = None
    is_last: bool = False
    spark_frame: bytes | None = None
