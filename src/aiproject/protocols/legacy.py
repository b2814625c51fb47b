"""The legacy API: the form of its responses, and the only mapping from the error tree to them.

Success is ``{"code": 0, "msg": …, …}``; failure is ``{"code": "NAME", "msg": …}``. Refusals that belong to the API's
contract and failures of providers have HTTP 200, because existing apps read ``code`` only then (and repeat the call on
any other status, voice and picture included). Faults of HTTP itself keep their status, in the same form. For refusals
by rate limits, see `LIMITS_WITH_STATUS_200`.

Sources: the legacy API's document, sections on its interfaces; the existing clients' behaviour, sections 1, 9 and 12.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from aiproject import errors
from aiproject.codes import Code
from aiproject.messages.formatting import Language, format_error, format_message
from aiproject.protocols.dialects import ErrorAnswer, FailedRequest

__all__ = ["LIMITS_WITH_STATUS_200", "Failure", "LegacyDialect", "error_number", "failure_of", "json_bytes", "success"]


class Failure(NamedTuple):
    """A failure as the legacy API displays it.

    Attributes:
        status: the HTTP status.
        code: one of `Code`.
        msg: one sentence for the user.
    """

    status: int
    code: Code
    msg: str

    def body(self) -> dict[str, Any]:
        return {"code": str(self.code), "msg": self.msg}


def success(msg: str, **fields: Any) -> dict[str, Any]:
    """Return a success object; ``code`` is the integer 0, which clients test for.

    Args:
        msg: formatted already, so that a chat does not pay for a look into the table of messages.
    """
    return {"code": 0, "msg": msg, **fields}


_encode = json.JSONEncoder(separators=(",", ":")).encode


def json_bytes(value: Any) -> bytes:
    """Serialise a response, ASCII-escaped like those of the original project."""
    return _encode(value).encode("ascii")


ERROR_NUMBERS: tuple[tuple[type[BaseException], int], ...] = (
    (errors.UpstreamTimeout, 20001),
    (errors.UpstreamTruncated, 20002),
    (errors.UpstreamUnreachable, 20002),
    (errors.UpstreamProtocolViolation, 20003),
    (errors.Unavailable, 20004),
    (errors.QuotaExhausted, 20005),
    (errors.SpendLimitReached, 20005),
)
"""``header.code`` of an error frame for failures without a vendor code. The vendor uses 10000 to 11999 and 100001 and
up; clients only test for zero."""

INTERNAL_ERROR_NUMBER = 20000


LIMITS_WITH_STATUS_200: Mapping[str, Code] = {
    "/auth/login": Code.LOGIN_ERROR,
    "/voiceModel/chat": Code.TOO_MANY_REQUESTS,
    "/PictureToTextModel/chat": Code.TOO_MANY_REQUESTS,
    "/user/get_token": Code.TOO_MANY_REQUESTS,
    "/admin/login": Code.LOGIN_ERROR,
    "/admin/modify_admin": Code.MODIFY_ADMIN_ERROR,
}
"""The addresses that answer a caller above a rate limit with HTTP 200, and the code of that response.

On any other status, the original desktop app immediately repeats the requests to the first four, and then displays
"网络异常 429" instead of the message; the original console displays nothing at all for the last two (clients, section
8.2). All other addresses use HTTP 429: the app displays the message of a stream whatever its status, nothing in the
original project calls the chat that is not streamed, and a registration is never repeated and would be displayed as
"用户名已存在" with HTTP 200.
"""


STATUSES: Mapping[type[errors.AiProjectError], int] = {
    errors.BodyTooSlow: 408,
    errors.BodyTooLarge: 413,
    errors.BodyEncoded: 415,
    errors.NotSignedIn: 401,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    errors.ReceiptUnknown: 404,
    errors.ModelUnknown: 404,
    errors.SpendLimitReached: 429,
    errors.TooManyRequests: 429,
    errors.Refused: 200,
    errors.UpstreamFailed: 200,
    errors.Unavailable: 503,
}
"""The HTTP status of an error by its class, or by its nearest base class; 500 for any other."""


ENDPOINT_CODES: Mapping[str, Code] = {
    "/textModel/chat": Code.MODEL_ERROR,
    "/textModel/stream": Code.MODEL_ERROR,
    "/voiceModel/chat": Code.AUDIO_TO_TEXT_ERROR,
    "/PictureToTextModel/chat": Code.PICTURE_TO_TEXT_ERROR,
    "/user/get_token": Code.USER_GET_TOKEN_ERROR,
}
"""The code of an address for failures without a code of their own; all others use ``APP_QUERY_METHOD_ERROR``."""

OPAQUE_ERRORS: Mapping[str, tuple[type[errors.AiProjectError], ...]] = {
    "/user/get_token": (errors.InvalidInput, errors.AccountUnknown),
}
"""Errors that an address answers with its own code and only the message of that code."""


def failure_of(
    error: BaseException, *, path: str = "", code: Code | None = None, language: Language = Language.ZH
) -> Failure:
    """Return the legacy API's form of ``error``.

    Args:
        path: the path of the request. It determines the code of a failure without one of its own, and the status of a
            refusal by a rate limit.
        code: overrides the code that belongs to the path.
        language: the legacy addresses respond in Chinese only.
    """
    if not isinstance(error, errors.AiProjectError):
        return Failure(500, Code.APP_INTERNAL_ERROR, format_message(Code.APP_INTERNAL_ERROR, language))
    own = code or ENDPOINT_CODES.get(path, Code.APP_QUERY_METHOD_ERROR)
    if isinstance(error, OPAQUE_ERRORS.get(path, ())):
        return Failure(200, own, format_message(own, language))
    status = _status_of(error)
    name = Code.APP_INTERNAL_ERROR if status == 500 else error.answer_code or own
    has_status_200 = isinstance(error, errors.TooManyRequests) and path in LIMITS_WITH_STATUS_200
    if has_status_200:
        status, name = 200, LIMITS_WITH_STATUS_200[path]
    # Of our own defects, only the code is displayed.
    msg = (
        format_message(name, language)
        if status >= 500
        # The apps display `msg` and ignore the header fields, so the waiting time must be in the text.
        else format_error(error, language, code=own, in_seconds=has_status_200)
    )
    return Failure(status, name, msg)


def _status_of(error: errors.AiProjectError) -> int:
    if isinstance(error, errors.HttpFault):
        return error.status
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)


class LegacyDialect:
    """The legacy API's responses to errors; also used for addresses of no API. Implements `Dialect`."""

    prefix = "/"

    def render(self, error: BaseException, request: FailedRequest) -> ErrorAnswer:
        """Implements `Dialect.render`."""
        failure = failure_of(error, path=request.path)
        return ErrorAnswer(failure.status, json_bytes(failure.body()), str(failure.code))


def error_number(error: BaseException) -> int:
    """Return ``header.code`` for an error frame inside a stream: the vendor's code if there is one, never 0."""
    if isinstance(error, errors.UpstreamFailed) and error.code:
        return error.code
    for kind, number in ERROR_NUMBERS:
        if isinstance(error, kind):
            return number
    return INTERNAL_ERROR_NUMBER
