"""The body of ``POST /v1/chat/completions``, read into a neutral request.

Every member that the official SDKs send is declared here. `FIELDS` says what becomes of each: passed on, without effect
on the answer, or refused unless it has the value that changes nothing. A member that is not declared is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from aiproject.codes import Detail
from aiproject.errors import InvalidInput
from aiproject.protocols.chat import (
    ChatMessage,
    ChatRequest,
    Part,
    PicturePart,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)

__all__ = ["ChatCompletion", "read_chat_completion"]

MAX_MESSAGES: Final = 2000
"""Messages of a dialog; a bound on the work, far over what a context holds."""

NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
    {
        "n": (None, 1),
        "logprobs": (None, False),
        "top_logprobs": (None, 0),
        "presence_penalty": (None, 0),
        "frequency_penalty": (None, 0),
        "logit_bias": (None, {}),
        "modalities": (None, ["text"]),
        "audio": (None,),
        "prediction": (None,),
        "web_search_options": (None,),
        "functions": (None, []),
        "function_call": (None, "none", "auto"),
        "store": (None, False),
        "reasoning_effort": (None, "none"),
        "verbosity": (None, "medium"),
    }
)
"""Members that no provider here honours, with the values that change nothing; any other value is refused."""

_DATA_URL: Final = re.compile(r"data:(image/[a-z0-9.+-]+);base64,", re.IGNORECASE)


class _Text(msgspec.Struct, tag_field="type", tag="text"):
    text: str


class _ImageUrl(msgspec.Struct):
    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class _Image(msgspec.Struct, tag_field="type", tag="image_url"):
    image_url: _ImageUrl


class _Refusal(msgspec.Struct, tag_field="type", tag="refusal"):
    refusal: str


_Content = str | list[_Text | _Image | _Refusal] | None


class _Function(msgspec.Struct):
    name: str
    arguments: str


class _Call(msgspec.Struct):
    id: str
    function: _Function
    type: Literal["function"] = "function"


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: _Content = None
    name: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None


class _Definition(msgspec.Struct):
    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None


class _Tool(msgspec.Struct):
    function: _Definition
    type: Literal["function"] = "function"


class _Named(msgspec.Struct):
    name: str


class _Choice(msgspec.Struct):
    function: _Named
    type: Literal["function"] = "function"


class _Schema(msgspec.Struct):
    name: str
    schema: dict[str, Any] = {}
    description: str | None = None
    strict: bool | None = None


class _Format(msgspec.Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False
    include_obfuscation: bool = False


class ChatCompletion(msgspec.Struct, forbid_unknown_fields=True):
    """The body as sent; `to_chat` is what it asks."""

    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | _Choice | None = None
    response_format: _Format | None = None
    # Without effect on the answer: kept by OpenAI for statistics, for its cache or for a try at determinism.
    parallel_tool_calls: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    seed: int | None = None
    service_tier: str | None = None
    # Refused unless they have a value of `NEUTRAL`.
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    modalities: list[str] | None = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    store: bool | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with an event that has the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def to_chat(self, default_tokens: int, most_tokens: int) -> ChatRequest:
        """Return the neutral request.

        Args:
            default_tokens: completion limit of a request that names none.
            most_tokens: the model's own; a larger one is lowered to it.

        Raises:
            InvalidInput: a member cannot be honoured, or is out of its range; its parameter ``field`` names it.
        """
        for name, neutral in NEUTRAL.items():
            if getattr(self, name) not in neutral:
                raise InvalidInput(Detail.FIELD_NOT_SUPPORTED, field=name)
        limit = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        if limit is not None and limit < 1:
            raise InvalidInput(Detail.FIELD_OUT_OF_BOUNDS, field="max_completion_tokens")
        _check_range("temperature", self.temperature, 2)
        _check_range("top_p", self.top_p, 1)
        return ChatRequest(
            tuple(_read_message(message, f"messages[{index}]") for index, message in enumerate(self.messages)),
            min(limit or default_tokens, most_tokens),
            self.temperature,
            model=self.model,
            top_p=None if self.top_p == 1 else self.top_p,
            tools=tuple(
                Tool(tool.function.name, tool.function.description, tool.function.parameters)
                for tool in self.tools or ()
            ),
            tool_choice=_read_choice(self.tool_choice),
            response_format=_read_format(self.response_format),
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
        )


_decode = msgspec.json.Decoder(ChatCompletion).decode


def read_chat_completion(body: bytes) -> ChatCompletion:
    """Read a body.

    Raises:
        InvalidInput: it is not JSON, or not of the declared shape; its parameter ``field`` says where.
    """
    try:
        completion = _decode(body)
    except msgspec.ValidationError as error:
        raise _fault(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInput(Detail.BODY_NOT_JSON) from None
    if not completion.messages:
        raise InvalidInput(Detail.FIELD_EMPTY, field="messages")
    if len(completion.messages) > MAX_MESSAGES:
        raise InvalidInput(Detail.FIELD_OUT_OF_BOUNDS, field="messages")
    return completion


_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`")
_PLACE: Final = re.compile(r" - at `\$\.?(.*)`\Z")


def _fault(error: msgspec.ValidationError) -> InvalidInput:
    # msgspec's own words stay here: they name members and types, which are the caller's, in English only.
    text = str(error)
    found = _PLACE.search(text)
    place = found[1] if found else ""
    if missing := _MISSING.match(text):
        return InvalidInput(Detail.FIELD_MISSING, field=f"{place}.{missing[1]}" if place else missing[1])
    if unknown := _UNKNOWN.match(text):
        return InvalidInput(Detail.MEMBER_UNKNOWN, field=(f"{place}.{unknown[1]}" if place else unknown[1])[:100])
    return InvalidInput(Detail.FIELD_MALFORMED, field=place or "body")


def _check_range(name: str, value: float | None, high: float) -> None:
    if value is not None and not 0 <= value <= high:
        raise InvalidInput(Detail.FIELD_OUT_OF_BOUNDS, field=name)


def _read_message(message: _Message, place: str) -> ChatMessage:
    role = "system" if message.role == "developer" else message.role
    calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ())
    if role == "tool" and message.tool_call_id is None:
        raise InvalidInput(Detail.FIELD_MISSING, field=f"{place}.tool_call_id")
    if message.content is None and not calls and message.refusal is None:
        raise InvalidInput(Detail.FIELD_MISSING, field=f"{place}.content")
    content: str | tuple[Part, ...]
    if isinstance(message.content, str):
        content = message.content
    else:
        parts = enumerate(message.content or ())
        content = tuple(_read_part(part, f"{place}.content[{index}]") for index, part in parts)
        if all(isinstance(part, TextPart) for part in content):
            content = "".join(part.text for part in content if isinstance(part, TextPart)) or message.refusal or ""
    _check_encodable(content, place)
    return ChatMessage(role, content, calls, message.tool_call_id)


def _check_encodable(content: str | tuple[Part, ...], place: str) -> None:
    texts = [content] if isinstance(content, str) else [part.text for part in content if isinstance(part, TextPart)]
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(Detail.FIELD_MALFORMED, field=f"{place}.content") from None


def _read_part(part: _Text | _Image | _Refusal, place: str) -> Part:
    if isinstance(part, _Text):
        return TextPart(part.text)
    if isinstance(part, _Refusal):
        return TextPart(part.refusal)
    # Never fetched from anywhere: an address would have this server ask whatever host a caller likes.
    start = _DATA_URL.match(part.image_url.url)
    if start is None:
        raise InvalidInput(Detail.FIELD_NOT_DATA_URL, field=f"{place}.image_url.url")
    try:
        data = base64.b64decode(part.image_url.url[start.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(Detail.FIELD_NOT_DATA_URL, field=f"{place}.image_url.url") from None
    return PicturePart(data, start[1].lower())


def _read_choice(choice: Literal["auto", "none", "required"] | _Choice | None) -> ToolChoice:
    if choice is None:
        return ToolChoice()
    return ToolChoice("required", choice.function.name) if isinstance(choice, _Choice) else ToolChoice(choice)


def _read_format(given: _Format | None) -> ResponseFormat:
    if given is None or given.type == "text":
        return ResponseFormat()
    if given.type == "json_object":
        return ResponseFormat("json")
    if given.json_schema is None:
        raise InvalidInput(Detail.FIELD_MISSING, field="response_format.json_schema")
    return ResponseFormat("json_schema", given.json_schema.schema)
