"""The seed's HTTP dialect: the shapes of its answers, and the one table from the error tree to them.

Success is ``{"code": 0, "msg": …, …}``; failure is ``{"code": "NAME", "msg": …}``. Refusals that belong to the contract
and upstream's failures answer HTTP 200, since existing apps look at ``code`` only then (and repeat the call on any
other status, voice and picture included); faults of HTTP itself keep their status with the same shape. Refusals of rate
limits are in between, see `LIMITS_TOLD_WITH_200`.

Sources: the seed document, sections on its interfaces; the existing clients' behaviour, sections 1, 9 and 12.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from aiproject import errors
from aiproject.codes import Code, Success
from aiproject.messages.formatting import Language, format_error, format_message

__all__ = ["LIMITS_TOLD_WITH_200", "Failure", "error_number", "failure_of", "json_bytes", "success"]


class Failure(NamedTuple):
    """A failure as a door tells it.

    Attributes:
        status: the HTTP status.
        code: one of `Code`.
        msg: one Chinese sentence for the person at the app.
        retry_after: seconds for the ``Retry-After`` header; ``None``: no such header.
    """

    status: int
    code: Code
    msg: str
    retry_after: int | None = None

    @property
    def ends_connection(self) -> bool:
        """Whether the body may not have been read to its end, so that the connection cannot carry another request."""
        return self.status in (408, 413, 415)

    def body(self) -> dict[str, Any]:
        return {"code": str(self.code), "msg": self.msg}


def success(msg: Success | str, **fields: Any) -> dict[str, Any]:
    """Return a success object in Chinese; ``code`` is the integer 0, as clients test."""
    return {"code": 0, "msg": format_message(msg, Language.ZH) if isinstance(msg, Success) else msg, **fields}


_encode = json.JSONEncoder(separators=(",", ":")).encode


def json_bytes(value: Any) -> bytes:
    """Serialise an answer, ASCII-escaped as the original's are."""
    return _encode(value).encode("ascii")


ERROR_NUMBERS: tuple[tuple[type[BaseException], int], ...] = (
    (errors.UpstreamTimeout, 20001),
    (errors.UpstreamTruncated, 20002),
    (errors.UpstreamUnreachable, 20002),
    (errors.UpstreamNonsense, 20003),
    (errors.Unavailable, 20004),
    (errors.QuotaExhausted, 20005),
    (errors.SpendLimitReached, 20005),
)
"""``header.code`` of an error frame for failures that carry no vendor code. The vendor uses 10000 to 11999 and 100001
and up; clients only test for zero."""

INTERNAL_ERROR_NUMBER = 20000


LIMITS_TOLD_WITH_200: Mapping[str, Code] = {
    "/auth/login": Code.LOGIN_ERROR,
    "/voiceModel/chat": Code.TOO_MANY_REQUESTS,
    "/PictureToTextModel/chat": Code.TOO_MANY_REQUESTS,
    "/user/get_token": Code.TOO_MANY_REQUESTS,
    "/admin/login": Code.LOGIN_ERROR,
    "/admin/modify_admin": Code.MODIFY_ADMIN_ERROR,
}
"""The addresses that refuse callers over a rate limit with HTTP 200, and the code that they use.

The original's desktop program sends the first four again at once on any other status, and then shows "网络异常 429" in
place of the message; its console shows nothing at all on the last two (clients, section 8.2). On every
other address such a refusal is HTTP 429: the program shows a stream's message whatever its status, nothing of the
original calls the chat that is not streamed, and a registration is never sent again and would be shown as
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
    errors.SpendLimitReached: 429,
    errors.TooManyRequests: 429,
    errors.Refused: 200,
    errors.UpstreamFailed: 200,
    errors.Unavailable: 503,
}
"""The HTTP status of an error by its class, or by the nearest class above it; 500 for any other."""


def failure_of(error: BaseException, *, code: Code, path: str = "", language: Language = Language.ZH) -> Failure:
    """Return how the legacy API renders ``error``.

    Args:
        code: what this endpoint calls a failure that has no code of its own, for example ``MODEL_ERROR``.
        path: of the request; the status of a refusal by a rate limit depends on it.
        language: the legacy addresses speak Chinese only.
    """
    if not isinstance(error, errors.AiProjectError):
        return Failure(500, Code.APP_INTERNAL_ERROR, format_message(Code.APP_INTERNAL_ERROR, language))
    status = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)
    name = Code.APP_INTERNAL_ERROR if status == 500 else error.answer_code or code
    is_read_with_200 = isinstance(error, errors.TooManyRequests) and path in LIMITS_TOLD_WITH_200
    if is_read_with_200:
        status, name = 200, LIMITS_TOLD_WITH_200[path]
    # Nothing of a fault of ours is shown but its code.
    msg = (
        format_message(name, language)
        if status >= 500
        # The apps show `msg` and nothing of the header.
        else format_error(error, language, code=code, in_seconds=is_read_with_200)
    )
    return Failure(status, name, msg, retry_after=getattr(error, "retry_after", None))


def error_number(error: BaseException) -> int:
    """Return ``header.code`` for an error frame inside a stream: the vendor's code where there is one, never 0."""
    if isinstance(error, errors.UpstreamFailed) and error.code:
        return error.code
    for kind, number in ERROR_NUMBERS:
        if isinstance(error, kind):
            return number
    return INTERNAL_ERROR_NUMBER
