"""Functions that the small JSON endpoints share: read the fields of a body, and build a response in the legacy form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from aiproject.adapters.http.bodies import read_body
from aiproject.codes import Detail
from aiproject.errors import InvalidInput
from aiproject.protocols.legacy import json_bytes

__all__ = ["answer", "read_fields"]

MAX_BODY_BYTES = 64 * 1024
"""Maximum bytes of such a body; the longest valid one, a registration, has about two thousand."""


def answer(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response that caches must not store, since most responses concern an account."""
    return Response(
        json_bytes(body),
        status,
        media_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


async def read_fields(request: Request) -> dict[str, Any]:
    """Return the body's JSON object, regardless of its content type (curl's default is that of a form).

    Raises:
        InvalidInput: the body is not a JSON object.
        BodyTooLarge: the body is over 64 KiB.
    """
    body = await read_body(request.receive, request.scope["headers"], limit=MAX_BODY_BYTES)
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInput(Detail.BODY_NOT_JSON_OBJECT) from None
    if not isinstance(fields, dict):
        raise InvalidInput(Detail.BODY_NOT_JSON_OBJECT)
    return fields
