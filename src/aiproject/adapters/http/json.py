"""What the small JSON endpoints share: a body's fields in, an answer or a failure in the seed's shape out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from aiproject.adapters.http.asgi import note
from aiproject.adapters.http.bodies import read_body
from aiproject.codes import Code, Detail
from aiproject.errors import AiProjectError, InvalidInput
from aiproject.protocols.legacy import Failure, failure_of, json_bytes

__all__ = ["answer", "answer_failure", "optional_text_field", "read_fields", "tell", "text_field"]

MAX_BODY_BYTES = 64 * 1024
"""Bytes of such a body; the longest legal one, a registration, has about two thousand."""


def answer(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer that nobody keeps: most of them tell about an account."""
    return Response(
        json_bytes(body),
        status,
        media_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def answer_failure(request: Request, error: AiProjectError, code: Code) -> Response:
    """Return how ``error`` is told, and leave it in the log's line.

    Args:
        code: what this endpoint calls a failure without a code of its own.
    """
    return tell(request, error, failure_of(error, code=code, path=request.url.path))


def tell(request: Request, error: AiProjectError, failure: Failure) -> Response:
    """Return the answer to ``error`` that ``failure`` says, and leave it in the log's line."""
    note(request.scope, outcome=str(failure.code), error=type(error).__name__)
    headers = {} if failure.retry_after is None else {"Retry-After": str(failure.retry_after)}
    if failure.status == 401:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110, section 15.5.2, asks for one
    if failure.ends_connection:
        headers["Connection"] = "close"
    return answer(failure.body(), failure.status, headers)


async def read_fields(request: Request) -> dict[str, Any]:
    """Return the body's JSON object, whatever its content type says (curl's default is a form's).

    Raises:
        InvalidInput: it is none.
        BodyTooLarge: over 64 KiB.
    """
    body = await read_body(request.receive, request.scope["headers"], limit=MAX_BODY_BYTES)
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInput(Detail.BODY_NOT_JSON_OBJECT) from None
    if not isinstance(fields, dict):
        raise InvalidInput(Detail.BODY_NOT_JSON_OBJECT)
    return fields


def text_field(fields: Mapping[str, Any], name: str) -> str:
    """Return a field that must be there.

    Raises:
        InvalidInput: it is missing, null or no text.
    """
    value = fields.get(name)
    if value is None:
        raise InvalidInput(Detail.FIELD_MISSING, field=name)
    if not isinstance(value, str):
        raise InvalidInput(Detail.FIELD_NOT_TEXT, field=name)
    return value


def optional_text_field(fields: Mapping[str, Any], name: str) -> str | None:
    """Return a field that may be missing or null.

    Raises:
        InvalidInput: it is something else than text.
    """
    return None if fields.get(name) is None else text_field(fields, name)
