"""The platform's side of a Spark question, as strict as the platform; for the sandbox."""

from __future__ import annotations

from typing import Final

import msgspec

from aiproject.protocols.chat import ChatMessage, ChatRequest, Role
from aiproject.protocols.iflytek.spark.estimate import estimate_tokens
from aiproject.protocols.iflytek.spark.models import (
    completion_limit,
    context_limit,
    domains_of_path,
    max_temperature,
    takes_system_role,
)
from aiproject.protocols.iflytek.spark.request import MAX_UID

__all__ = ["SparkQuestion", "SparkRequestError", "parse_question"]

_ROLES: Final[tuple[Role, ...]] = ("system", "user", "assistant")


class SparkRequestError(Exception):
    """A question that the platform refuses; sent as an `error_frame`.

    Attributes:
        code: one of the platform's codes.
        message: English text in the platform's style.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message


class SparkQuestion(msgspec.Struct, frozen=True):
    """A question that the platform accepts.

    Attributes:
        request: the dialog and its parameters, with the platform's defaults filled in.
        domain: the model.
        uid: the end user's id.
    """

    request: ChatRequest
    domain: str
    uid: str | None = None


class _RequestHeader(msgspec.Struct):
    app_id: str
    uid: str | None = None


class _RequestChat(msgspec.Struct):
    domain: str
    temperature: float | None = None
    max_tokens: int | None = None
    top_k: int | None = None


class _RequestParameter(msgspec.Struct):
    chat: _RequestChat


class _RequestText(msgspec.Struct):
    role: str
    content: str


class _RequestMessage(msgspec.Struct):
    text: list[_RequestText]


class _RequestPayload(msgspec.Struct):
    message: _RequestMessage


class _Request(msgspec.Struct):
    header: _RequestHeader
    parameter: _RequestParameter
    payload: _RequestPayload


def parse_question(frame: bytes, *, app_id: str, path: str) -> SparkQuestion:
    """Parse a question as strictly as the platform does; unknown members are ignored.

    Where the documents leave the code open, this uses 10005 for a value out of its range, 10163 for a missing member or
    a wrong type, and 10004 for a dialog that violates the role rules, empty messages included.

    Args:
        app_id: the application that the connection's API key belongs to.
        path: the path of the connection's URL, which determines the model.

    Raises:
        SparkRequestError: 10003 not JSON, or a domain that does not fit the path; 10313 application id; 10163, 10005,
            10004 as above; 10907 too many tokens by `estimate_tokens`.
    """
    try:
        loaded = msgspec.json.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise SparkRequestError(10003, "ClientMsgError: the message is not valid JSON") from None
    header = loaded.get("header") if isinstance(loaded, dict) else None
    given_app_id = header.get("app_id") if isinstance(header, dict) else None
    if not given_app_id:
        raise SparkRequestError(10313, "appid cannot be empty")
    if given_app_id != app_id:
        raise SparkRequestError(10313, "app_id and api_key does not match")
    try:
        parsed = msgspec.convert(loaded, _Request)
    except msgspec.ValidationError as error:  # the text names the member and the types, never the value
        raise SparkRequestError(10163, f"param validate error: {error}") from None
    chat = parsed.parameter.chat
    if chat.domain not in domains_of_path(path):
        raise SparkRequestError(10003, "ClientMsgError: invalid model domain")
    dialog = parsed.payload.message.text
    request = _checked_request(chat, dialog)
    if len(parsed.header.uid or "") > MAX_UID:
        raise SparkRequestError(10005, f"param validate error: uid has more than {MAX_UID} characters")
    if sum(estimate_tokens(text.content) for text in dialog) > context_limit(chat.domain):
        raise SparkRequestError(10907, "the dialog is over the token limit of the model")
    return SparkQuestion(request, chat.domain, parsed.header.uid)


def _checked_request(chat: _RequestChat, dialog: list[_RequestText]) -> ChatRequest:
    """Validate ranges and roles and fill in the platform's defaults."""
    max_value = max_temperature(chat.domain)
    limit = completion_limit(chat.domain)
    is_reasoning = max_value > 1.0
    temperature = chat.temperature if chat.temperature is not None else 1.2 if is_reasoning else 0.5
    max_tokens = chat.max_tokens if chat.max_tokens is not None else limit if is_reasoning else 4096
    top_k = chat.top_k if chat.top_k is not None else 4
    if not 0.0 < temperature <= max_value:
        raise SparkRequestError(10005, f"param validate error: temperature must be in (0, {max_value:g}]")
    if not 1 <= max_tokens <= limit:
        raise SparkRequestError(10005, f"param validate error: max_tokens must be in [1, {limit}]")
    if not 1 <= top_k <= 6:
        raise SparkRequestError(10005, "param validate error: top_k must be in [1, 6]")
    messages: list[ChatMessage] = []
    for text in dialog:
        role = next((known for known in _ROLES if known == text.role), None)
        if role is None:
            raise SparkRequestError(10004, "schema error: unknown role")
        if not text.content:
            raise SparkRequestError(10004, "schema error: empty content")
        messages.append(ChatMessage(role, text.content))
    has_system = bool(messages) and messages[0].role == "system"
    if has_system and not takes_system_role(chat.domain):
        raise SparkRequestError(10004, "schema error: this model takes no system role")
    turns = [message.role for message in messages[has_system:]]
    # User and assistant alternate, and the user comes first and last: an odd number, with "user" at even positions.
    if len(turns) % 2 == 0 or any(role != ("user", "assistant")[position % 2] for position, role in enumerate(turns)):
        raise SparkRequestError(10004, "schema error: user and assistant must alternate and the last must be user")
    return ChatRequest(tuple(messages), max_tokens, temperature, top_k)
