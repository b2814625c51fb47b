"""The client's question to a Spark model, which is a single frame.

Source: iFlytek, 《星火认知大模型 Web API 文档》.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from aiproject.codes import Detail
from aiproject.errors import InvalidInput
from aiproject.protocols.chat import ChatMessage, ChatRequest, PicturePart, Role
from aiproject.protocols.iflytek.spark.models import completion_limit, max_temperature, takes_system_role

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MAX_UID", "build_request"]

MAX_UID: Final = 32
"""Characters of an end user's id. Source: 《星火认知大模型 Web API 文档》."""

_encode = msgspec.json.Encoder().encode


def sendable_messages(messages: Iterable[ChatMessage], *, domain: str) -> tuple[ChatMessage, ...]:
    """Convert a dialog to the form that the platform accepts: system first, then user and assistant alternating.

    The last message must be the user's. Harmless deviations are repaired:

    - messages without a visible character are dropped (the existing desktop app sends an empty system message, and the
      documents do not say how the platform treats one);
    - system messages are joined and moved to the front; for a model without a system role they become the beginning of
      the first user message;
    - consecutive messages of the same role are joined with a newline;
    - assistant messages before the first user message are dropped: they answer a question that was cut off together
      with older history, or are a greeting from the app itself, and the platform accepts neither.

    Raises:
        InvalidInput: no user message is left, or the last message is not the user's.
    """
    system: list[str] = []
    turns: list[tuple[Role, list[str]]] = []
    for message in messages:
        content = message.content if isinstance(message.content, str) else _text_of(message)
        if not content.strip():
            continue
        if message.role == "system":
            system.append(content)
        elif turns and turns[-1][0] == message.role:
            turns[-1][1].append(content)
        elif turns or message.role == "user":
            turns.append((message.role, [content]))
    if not turns:
        raise InvalidInput(Detail.DIALOG_WITHOUT_QUESTION)
    if turns[-1][0] != "user":
        raise InvalidInput(Detail.DIALOG_ENDS_WITHOUT_QUESTION)
    if system and not takes_system_role(domain):
        turns[0][1][:0] = system
        system = []
    dialog = [ChatMessage(role, "\n".join(contents)) for role, contents in turns]
    if system:
        dialog.insert(0, ChatMessage("system", "\n".join(system)))
    return tuple(dialog)


def _text_of(message: ChatMessage) -> str:
    if any(isinstance(part, PicturePart) for part in message.content):
        raise InvalidInput(Detail.FIELD_NOT_SUPPORTED, field="image_url")
    return message.text


def _check_abilities(request: ChatRequest) -> None:
    """Refuse what the platform's chat interface does not support, unless ignoring it is harmless."""
    if request.tools or any(message.role == "tool" or message.tool_calls for message in request.messages):
        raise InvalidInput(Detail.FIELD_NOT_SUPPORTED, field="tools")
    if request.response_format.kind != "text":
        raise InvalidInput(Detail.FIELD_NOT_SUPPORTED, field="response_format")
    if request.stop:
        raise InvalidInput(Detail.FIELD_NOT_SUPPORTED, field="stop")
    if request.top_p is not None:
        raise InvalidInput(Detail.FIELD_NOT_SUPPORTED, field="top_p")


DEFAULT_TEMPERATURE: Final = 0.5
DEFAULT_TOP_K: Final = 4
"""The platform's own defaults. Source: 《星火认知大模型 Web API 文档》."""


def build_request(request: ChatRequest, *, app_id: str, domain: str, uid: str | None = None) -> bytes:
    """Return the frame that asks: compact JSON in UTF-8.

    Parameters are clamped to the ranges that the platform accepts, because it refuses values outside of them.

    Args:
        request: its messages go through `sendable_messages`.
        app_id: the application that the API key belongs to.
        domain: the model; must fit the URL, see `known_domains`.
        uid: an end user's id at the platform, at most 32 characters; must not be a credential.

    Raises:
        InvalidInput: the dialog cannot be sent, a number is not finite, or the request needs what no Spark model
            supports here (pictures, tools, response formats, stop sequences).
        ValueError: ``uid`` is too long.
    """
    if uid is not None and len(uid) > MAX_UID:
        raise ValueError(f"uid has at most {MAX_UID} characters")
    _check_abilities(request)
    temperature = DEFAULT_TEMPERATURE if request.temperature is None else request.temperature
    top_k = DEFAULT_TOP_K if request.top_k is None else request.top_k
    if not math.isfinite(temperature):
        raise InvalidInput(Detail.TEMPERATURE_NOT_NUMBER)
    max_value = max_temperature(domain)
    header = {"app_id": app_id}
    if uid:
        header["uid"] = uid
    body = {
        "header": header,
        "parameter": {
            "chat": {
                "domain": domain,
                # The range excludes 0, which callers send to ask for deterministic answers.
                "temperature": min(max(temperature, 0.01), max_value),
                "max_tokens": min(max(request.max_tokens, 1), completion_limit(domain)),
                "top_k": min(max(top_k, 1), 6),
                "auditing": "default",
            }
        },
        "payload": {"message": {"text": sendable_messages(request.messages, domain=domain)}},
    }
    try:
        return _encode(body)
    except UnicodeEncodeError as error:  # a lone surrogate, which JSON can express and UTF-8 cannot
        raise InvalidInput(Detail.DIALOG_NOT_ENCODABLE) from error
