"""Send error responses in the dialect of the requested address, with the header fields that HTTP requires."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from aiproject.adapters.http.asgi import Scope, Send, note
from aiproject.adapters.http.languages import accept_language_of
from aiproject.errors import AiProjectError, BodyEncoded, HttpFault, Refused, UpstreamFailed
from aiproject.protocols.dialects import Dialects, ErrorAnswer, FailedRequest
from aiproject.protocols.legacy import LegacyDialect
from aiproject.protocols.v1 import UsageDialect, V1Dialect

__all__ = [
    "DIALECTS_KEY",
    "STANDARD_DIALECTS",
    "error_answer",
    "error_response",
    "note_error",
    "send_error",
]

DIALECTS_KEY: Final = "aiproject.dialects"
"""The scope key of the server's `Dialects`; without it, `STANDARD_DIALECTS` apply."""

STANDARD_DIALECTS: Final = (LegacyDialect(), V1Dialect(), UsageDialect())
"""The dialects that every server has: those of the legacy addresses and of ``/v1/…``."""

_FALLBACK: Final = Dialects(STANDARD_DIALECTS)

ENDS_CONNECTION: Final = frozenset({408, 413, 415})
"""Statuses of requests whose body may not have been read completely, so that the connection cannot be reused."""


def error_answer(dialects: Dialects, error: BaseException, request: FailedRequest) -> ErrorAnswer:
    """Return the complete response to a request that failed with ``error``, in the address's dialect.

    It includes the header fields that HTTP requires for the status.
    """
    answer = dialects.render(error, request)
    headers = [*answer.headers, *_headers_of(error)]
    if answer.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))  # required by RFC 9110, section 15.5.2
    if answer.status in ENDS_CONNECTION:
        headers.append((b"connection", b"close"))
    return answer._replace(headers=tuple(headers))


async def send_error(
    scope: Scope, send: Send, error: BaseException, *, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send the response to ``error``, and note it for the request's log line.

    Args:
        headers: additional header fields, names in lower case.
    """
    answer = note_error(scope, error)
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [
                (b"content-type", answer.content_type),
                (b"content-length", str(len(answer.body)).encode()),
                (b"cache-control", b"no-store"),
                *answer.headers,
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": answer.body})


def error_response(request: Request, error: BaseException) -> Response:
    """Return the response to ``error``, and note it for the request's log line."""
    answer = note_error(request.scope, error)
    response = Response(answer.body, answer.status)
    response.raw_headers += [
        (b"content-type", answer.content_type),
        (b"cache-control", b"no-store"),
        *answer.headers,
    ]
    return response


def note_error(scope: Scope, error: BaseException) -> ErrorAnswer:
    """Note ``error`` for the request's log line, and return the response, which may come too late to be sent."""
    dialects: Dialects = scope.get(DIALECTS_KEY, _FALLBACK)
    request = FailedRequest(scope["path"], accept_language_of(scope["headers"]))
    answer = error_answer(dialects, error, request)
    note(scope, outcome=answer.outcome)
    if isinstance(error, AiProjectError):  # a bug has its own log line, with its place in the code
        note(scope, error=type(error).__name__)
    if isinstance(error, Refused) and error.detail is not None:
        note(scope, detail=str(error.detail))  # without its parameters, which may quote the caller
    if isinstance(error, UpstreamFailed):
        note(scope, vendor_code=error.code, detail=error.detail)
        if error.sid:
            note(scope, sid=error.sid)
    return answer


def _headers_of(error: BaseException) -> list[tuple[bytes, bytes]]:
    headers: list[tuple[bytes, bytes]] = []
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        headers.append((b"retry-after", str(retry_after).encode()))
    if isinstance(error, BodyEncoded):
        headers.append((b"accept-encoding", b"identity"))  # RFC 9110, section 15.5.16
    if isinstance(error, HttpFault):
        headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in error.headers.items()]
    return headers
