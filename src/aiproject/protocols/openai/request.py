"""The body of ``POST /v1/chat/completions``, read into a neutral request.

Every member that the official SDKs send is declared here. `FIELDS` says what becomes of each: passed on, without effect
on the answer, or refused unless it has the value that changes nothing. A member that is not declared is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

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
from aiproject.protocols.openai.body import (
    AnswerFormat,
    ChatCompletion,
    CompletionMessage,
    FunctionTool,
    ImageContent,
    NamedToolChoice,
    RefusalContent,
    TextContent,
    ToolMode,
)

__all__ = ["read_chat_completion", "to_chat"]

MAX_MESSAGES: Final = 2000
"""Messages of a dialog; a bound on the work, far over what a context holds."""

MAX_VALUES: Final = 300_000
"""Commas and opening brackets of a body, which bound the values in it: 32 MB of empty objects would take 740 MB and
hold up the event loop for seconds. Texts count with theirs, at about one for each token at most."""

MAX_DEPTH: Final = 100
"""Levels of a JSON schema. A provider that encodes it has less of the interpreter's stack left than its reader had."""

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


_decode = msgspec.json.Decoder(ChatCompletion).decode


def read_chat_completion(body: bytes) -> ChatCompletion:
    """Read a body.

    Raises:
        InvalidInput: it is not JSON, has too many values, or is not of the declared shape; its parameter ``field`` says
            where.
    """
    # Counted before they become objects, and before the caller's rate limits, which need the request's estimate.
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise InvalidInput(Detail.FIELD_TOO_MANY_ITEMS, field="body")
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


def to_chat(body: ChatCompletion, default_tokens: int, max_tokens: int) -> ChatRequest:
    """Return the neutral request.

    Args:
        body: as `read_chat_completion` returns it.
        default_tokens: completion limit of a request that names none.
        max_tokens: the model's own; a larger one is lowered to it.

    Raises:
        InvalidInput: a member cannot be honoured, or is out of its range; its parameter ``field`` names it.
    """
    for name, neutral in NEUTRAL.items():
        if getattr(body, name) not in neutral:
            raise InvalidInput(Detail.FIELD_NOT_SUPPORTED, field=name)
    limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    if limit is not None and limit < 1:
        raise InvalidInput(Detail.FIELD_OUT_OF_BOUNDS, field="max_completion_tokens")
    _check_range("temperature", body.temperature, 2)
    _check_range("top_p", body.top_p, 1)
    return ChatRequest(
        tuple(_read_message(message, f"messages[{index}]") for index, message in enumerate(body.messages)),
        min(limit or default_tokens, max_tokens),
        body.temperature,
        model=body.model,
        top_p=None if body.top_p == 1 else body.top_p,
        tools=tuple(_read_tool(tool, f"tools[{index}]") for index, tool in enumerate(body.tools or ())),
        tool_choice=_read_choice(body.tool_choice),
        response_format=_read_format(body.response_format),
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
    )


def _check_range(name: str, value: float | None, high: float) -> None:
    if value is not None and not 0 <= value <= high:
        raise InvalidInput(Detail.FIELD_OUT_OF_BOUNDS, field=name)


def _read_message(message: CompletionMessage, place: str) -> ChatMessage:
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


def _read_part(part: TextContent | ImageContent | RefusalContent, place: str) -> Part:
    if isinstance(part, TextContent):
        return TextPart(part.text)
    if isinstance(part, RefusalContent):
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


def _read_tool(tool: FunctionTool, place: str) -> Tool:
    function = tool.function
    _check_depth(function.parameters, f"{place}.function.parameters")
    return Tool(function.name, function.description, function.parameters)


def _check_depth(value: object, place: str) -> None:
    if _is_deep(value, MAX_DEPTH):
        raise InvalidInput(Detail.FIELD_OUT_OF_BOUNDS, field=place)


def _is_deep(value: object, levels: int) -> bool:
    """Return whether containers are nested in each other more than ``levels`` times."""
    inner: Iterable[object]
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    else:
        return False
    return not levels or any(_is_deep(each, levels - 1) for each in inner)


def _read_choice(choice: ToolMode | NamedToolChoice | None) -> ToolChoice:
    if choice is None:
        return ToolChoice()
    return ToolChoice("required", choice.function.name) if isinstance(choice, NamedToolChoice) else ToolChoice(choice)


def _read_format(given: AnswerFormat | None) -> ResponseFormat:
    if given is None or given.type == "text":
        return ResponseFormat()
    if given.type == "json_object":
        return ResponseFormat("json")
    if given.json_schema is None:
        raise InvalidInput(Detail.FIELD_MISSING, field="response_format.json_schema")
    _check_depth(given.json_schema.schema, "response_format.json_schema.schema")
    return ResponseFormat("json_schema", given.json_schema.schema)
