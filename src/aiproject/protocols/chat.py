"""Neutral types of a chat: the request, its messages, and the events of an answer.

Every API translates what it receives into a `ChatRequest` and writes `ChatEvent` objects in its own format; every
provider does the reverse. Neither depends on the other. An event may carry the provider's own bytes
(`ChatEvent.native`), so that an API which speaks the same protocol can pass them on unchanged.

The types are `msgspec` structs: a stream creates one event for each frame, and creating a struct takes a fifth of the
time of creating a dataclass.
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
    """Text in a message."""

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
    """A tool call that the model requested, as a later message repeats it.

    Attributes:
        id: matches the call with its result; some providers send none.
        name: the name of the tool.
        arguments: JSON text as the model wrote it, not validated.
    """

    id: str
    name: str
    arguments: str


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a dialog.

    Attributes:
        role: the author. ``tool``: the message is the result of a tool call.
        content: text, possibly empty (the existing desktop app sends an empty system message), or parts.
        tool_calls: the tool calls that the assistant requested in this message.
        tool_call_id: the id of the tool call that this message answers; only with role ``tool``.
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
    """A function that the model may call.

    Attributes:
        name: the name that calls of it use.
        description: tells the model when to call it.
        parameters: the JSON schema of its arguments.
    """

    name: str
    description: str
    parameters: dict[str, Any]


class ToolChoice(msgspec.Struct, frozen=True):
    """Whether the model calls tools.

    Attributes:
        mode: ``auto``: the model decides; ``none``: it must not call a tool; ``required``: it must call one.
        name: the tool that it must call; only with ``required``.
    """

    mode: Literal["auto", "none", "required"] = "auto"
    name: str | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """The required format of the answer's text.

    Attributes:
        kind: ``text``: any text; ``json``: a JSON object; ``json_schema``: JSON that matches ``schema``.
        schema: a JSON schema; only with ``json_schema``.
    """

    kind: Literal["text", "json", "json_schema"] = "text"
    schema: dict[str, Any] | None = None


class ChatRequest(msgspec.Struct, frozen=True):
    """One question with its history, received and validated by an API.

    A provider that does not support a member refuses the request (`aiproject.errors.InvalidInput`) unless ignoring the
    member is harmless.

    Attributes:
        messages: the dialog, oldest first, at least one message.
        max_tokens: the completion limit sent to the provider, in tokens of the model's own tokenizer.
        temperature: ``None``: the provider's default. 0 < temperature <= 1 on most Spark models.
        top_k: the number of candidates for the next token; ``None``: the provider's default. 1 to 6 on Spark.
        model: the public name of the model; empty: the provider's only one.
        top_p: the cumulative probability of the candidates for the next token; ``None``: the provider's default.
        tools: the functions that the model may call.
        tool_choice: whether it calls them.
        response_format: the required format of the answer's text.
        stop: sequences that end the answer.
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
    """What the provider reports as the consumption of a call, in tokens of the model's own tokenizer.

    Attributes:
        prompt_tokens: input, history and cached tokens included.
        completion_tokens: output, reasoning included.
        total_tokens: the number that is billed.
        question_tokens: a number that Spark reserves; it is passed on and never used.
        cached_tokens: the part of the input that the provider had cached.
        reasoning_tokens: the part of the output that was reasoning.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    question_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class ToolCallDelta(msgspec.Struct, frozen=True):
    """A piece of a tool call. Pieces with the same ``index`` form one call, their ``arguments`` one JSON text.

    Attributes:
        index: the number of the call in the answer, from 0.
        name: set in the first piece of a call, empty in the others.
        arguments: JSON text to append, not validated.
        id: set in the first piece, if the provider sends one.
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
    """What one message of the provider says. A plain record, created for each frame on the hot path.

    Attributes:
        text: text to append; may be empty.
        reasoning: text of the model's reasoning to append; may be empty.
        tool_calls: pieces of tool calls.
        usage: set on the last event of a complete answer, if the provider reported it.
        is_last: whether this is the last event of the answer.
        native: the provider's own message, safe to show to a client of the provider's protocol (see
            `aiproject.providers.base.ChatStream.native_format`); ``None`` if it holds nothing that such a client may
            see, for example Spark's search sources, on which the existing desktop app loses the rest of the answer.
        finish_reason: why the answer is complete; only on the last event.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    usage: Usage | None = None
    is_last: bool = False
    native: bytes | None = None
    finish_reason: FinishReason | None = None
