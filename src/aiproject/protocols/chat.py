"""A chat in neutral terms: the request, its messages, and the events of an answer.

Every API translates what it receives into a `ChatRequest` and writes `ChatEvent` objects in its own format; every
provider does the reverse. Neither knows the other. An event may keep the provider's own bytes (`ChatEvent.native`), so
that an API which speaks the same protocol can pass them on untouched.

The types are `msgspec` structs: a stream makes an event for each frame, and a struct takes a fifth of the time of a
dataclass to make.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec

__all__ = [
    "ChatEvent",
    "ChatMessage",
    "ChatRequest",
    "FinishReason",
    "Part",
    "PicturePart",
    "ResponseFormat",
    "Role",
    "TextPart",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "Usage",
]

Role = Literal["system", "user", "assistant", "tool"]


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    """A piece of text in a message."""

    text: str


class PicturePart(msgspec.Struct, frozen=True, tag="picture"):
    """A picture in a message.

    Attributes:
        data: the file's bytes.
        media_type: for example ``image/png``.
    """

    data: bytes
    media_type: str


Part = TextPart | PicturePart


class ToolCall(msgspec.Struct, frozen=True):
    """A call of a tool that the model asked for, as a later message repeats it.

    Attributes:
        id: pairs the call with its result; some providers give none.
        name: of the tool.
        arguments: JSON text as the model wrote it, unchecked.
    """

    id: str
    name: str
    arguments: str


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One turn of a dialog.

    Attributes:
        role: who speaks. ``tool``: the result of a tool call.
        content: what is said; any text, possibly empty (the existing desktop app sends an empty system message), or
            parts.
        tool_calls: what the assistant asked to be called in this turn.
        tool_call_id: whose result this is; only with role ``tool``.
    """

    role: Role
    content: str | tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text of the content, without pictures."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may ask for.

    Attributes:
        name: as in its calls.
        description: when to call it, for the model.
        parameters: JSON schema of its arguments.
    """

    name: str
    description: str
    parameters: dict[str, Any]


class ToolChoice(msgspec.Struct, frozen=True):
    """Whether the model calls tools.

    Attributes:
        mode: ``auto``: it decides; ``none``: it must not; ``required``: it must call one.
        name: the one that it must call; only with ``required``.
    """

    mode: Literal["auto", "none", "required"] = "auto"
    name: str | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """What the text of the answer must be.

    Attributes:
        kind: ``text``: anything; ``json``: a JSON object; ``json_schema``: JSON that fits ``schema``.
        schema: JSON schema; only with ``json_schema``.
    """

    kind: Literal["text", "json", "json_schema"] = "text"
    schema: dict[str, Any] | None = None


class ChatRequest(msgspec.Struct, frozen=True):
    """One question with its history, as an API received and checked it.

    A provider that cannot honour a member refuses the request (`aiproject.errors.InvalidInput`) unless ignoring it is
    harmless.

    Attributes:
        messages: the dialog, oldest first, at least one message.
        max_tokens: the completion limit sent to the provider, in tokens of the model's own tokenizer.
        temperature: ``None``: the provider's default. 0 < temperature <= 1 on most Spark models.
        top_k: candidates that the next token is drawn from; ``None``: the provider's default. 1 to 6 on Spark.
        model: the public name of the model; empty: the provider's only one.
        top_p: share of probability that the next token is drawn from; ``None``: the provider's default.
        tools: what the model may ask to be called.
        tool_choice: whether it does.
        response_format: what the answer's text must be.
        stop: texts at which the answer ends.
    """

    messages: tuple[ChatMessage, ...]
    max_tokens: int = 4096
    temperature: float | None = None
    top_k: int | None = None
    model: str = ""
    top_p: float | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    response_format: ResponseFormat = ResponseFormat()
    stop: tuple[str, ...] = ()


class Usage(msgspec.Struct, frozen=True):
    """What the provider says the call consumed, in tokens of the model's own tokenizer.

    Attributes:
        prompt_tokens: input, history and cached tokens included.
        completion_tokens: output, reasoning included.
        total_tokens: what is billed.
        question_tokens: a number that Spark reserves; it is passed on and never used.
        cached_tokens: the part of the input that the provider had in its cache.
        reasoning_tokens: the part of the output that was reasoning.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    question_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class ToolCallDelta(msgspec.Struct, frozen=True):
    """A piece of a tool call; the pieces with the same ``index`` make one call, their ``arguments`` one JSON text.

    Attributes:
        index: which call of the answer, from 0.
        name: in the first piece of a call, empty in the others.
        arguments: JSON text to append, unchecked.
        id: in the first piece, where the provider gives one.
    """

    index: int
    name: str
    arguments: str
    id: str = ""


class FinishReason(StrEnum):
    """Why an answer is complete."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"


class ChatEvent(msgspec.Struct, gc=False):
    """What one message of the provider says. A plain record, made once for each frame of the hot path.

    Attributes:
        text: text to append; may be empty.
        reasoning: text of the model's reasoning to append; may be empty.
        tool_calls: pieces of tool calls.
        usage: present on the last event of a complete answer, where the provider told it.
        is_last: nothing follows this event.
        native: the provider's own message, fit to be shown to a client of the provider's protocol (see
            `aiproject.providers.base.ChatStream.native_format`); ``None`` where it holds nothing that such a client may
            see (for example search sources of Spark, on which the existing desktop app loses the rest of the answer).
        finish_reason: why the answer is complete; only on the last event.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    usage: Usage | None = None
    is_last: bool = False
    native: bytes | None = None
    finish_reason: FinishReason | None = None
