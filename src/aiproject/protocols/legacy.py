"""The seed's HTTP dialect: the shapes of its answers, and the one table from the error tree to them.

Success is ``{"code": 0, "msg": …, …}``; failure is ``{"code": "NAME", "msg": …}``. Refusals that belong to the contract
and upstream's failures answer HTTP 200, since existing apps look at ``code`` only then (and repeat the call on any
other status, voice and picture included); faults of HTTP itself keep their status with the same shape. Refusals of rate
limits are in between, see `LIMITS_TOLD_WITH_200`.

Sources: the seed document, sections on its interfaces; the existing clients' behaviour, sections 1, 9 and 12.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from aiproject import errors
from aiproject.codes import COME_BACK, MESSAGES, Code

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


def success(msg: str, **fields: Any) -> dict[str, Any]:
    """Return a success object; ``code`` is the integer 0, as clients test."""
    return {"code": 0, "msg": msg, **fields}


_encode = json.JSONEncoder(separators=(",", ":")).encode


def json_bytes(value: Any) -> bytes:
    """Serialise an answer, ASCII-escaped as the original's are."""
    return _encode(value).encode("ascii")


QUOTA_CODES = {
    "tokens": Code.TOKEN_NOT_ENOUGH,
    "pic_times": Code.PIC_TIMES_NOT_ENOUGH,
    "voice_seconds": Code.VOICE_SECONDS_NOT_ENOUGH,
}

UPSTREAM_MESSAGES: tuple[tuple[type[errors.UpstreamFailed], str], ...] = (
    (errors.UpstreamTimeout, "模型响应超时，请稍后再试"),
    (errors.UpstreamTruncated, "模型的回答中断，请稍后再试"),
    (errors.UpstreamUnreachable, "暂时无法连接模型服务，请稍后再试"),
    (errors.UpstreamNonsense, "模型服务返回了无法识别的数据，请稍后再试"),
)

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

_CHINESE = re.compile(r"[\u4e00-\u9fff]")


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


def failure_of(error: BaseException, *, code: Code, path: str = "") -> Failure:
    """Return how the seed's door tells ``error``.

    Args:
        code: what this endpoint calls a failure that has no code of its own, for example ``MODEL_ERROR``.
        path: of the request; the status of a refusal by a rate limit depends on it.
    """
    match error:
        case errors.TooManyRequests():
            return _limit_failure(error, path)
        case errors.BodyTooLarge():
            return Failure(413, Code.REQUEST_TOO_LARGE, error.detail)
        case errors.BodyTooSlow():
            return Failure(408, Code.REQUEST_TIMEOUT, error.detail or MESSAGES[Code.REQUEST_TIMEOUT])
        case errors.BodyEncoded():
            return Failure(415, Code.UNSUPPORTED_ENCODING, error.detail or MESSAGES[Code.UNSUPPORTED_ENCODING])
        case errors.QuotaExhausted():
            quota = QUOTA_CODES[error.capability]
            return Failure(200, quota, error.detail or MESSAGES[quota])
        case errors.NameTaken():
            return _refusal(Code.USER_NAME_REPEAT, error)
        case errors.LoginFailed():
            return _refusal(Code.LOGIN_ERROR, error)
        case errors.AccountUnknown():
            return _refusal(Code.USER_NOT_FOUND, error)
        case errors.RegistrationClosed():
            return _refusal(Code.REGISTRATION_CLOSED, error)
        case errors.NotSignedIn():
            return Failure(401, Code.NOT_SIGNED_IN, error.detail or MESSAGES[Code.NOT_SIGNED_IN])
        case errors.NotAllowed():
            return Failure(403, Code.PERMISSION_NOT_ALLOW, error.detail or MESSAGES[Code.PERMISSION_NOT_ALLOW])
        case errors.NotFound():
            return Failure(404, Code.ITEM_NOT_FOUND, error.detail or MESSAGES[Code.ITEM_NOT_FOUND])
        case errors.SpendLimitReached():
            return Failure(429, Code.KEY_LIMIT_REACHED, MESSAGES[Code.KEY_LIMIT_REACHED], retry_after=error.retry_after)
        case errors.VoucherUnusable():
            return _refusal(Code.TOKEN_NOT_FOUNDUSER_NOT_FOUND, error)
        case errors.VoucherRedeemed():
            return _refusal(Code.TOKEN_ALREADY_GET, error)
        case errors.ReceiptUnknown():
            return Failure(404, Code.RECEIPT_NOT_FOUND, error.detail or MESSAGES[Code.RECEIPT_NOT_FOUND])
        case errors.FileMissing():
            return _refusal(Code.GET_FILE_FAIL, error)
        case errors.UnusableFile():
            return _refusal(Code.FILE_FORMAT_ILLEGAL, error)
        case errors.Refused():
            return _refusal(code, error)
        case errors.UpstreamFailed():
            return Failure(200, code, _upstream_message(error) or MESSAGES[code])
        case errors.Unavailable():
            return Failure(
                503, Code.SERVICE_UNAVAILABLE, MESSAGES[Code.SERVICE_UNAVAILABLE], retry_after=error.retry_after
            )
        case _:
            return Failure(500, Code.APP_INTERNAL_ERROR, MESSAGES[Code.APP_INTERNAL_ERROR])


def _limit_failure(error: errors.TooManyRequests, path: str) -> Failure:
    msg = error.detail or MESSAGES[Code.TOO_MANY_REQUESTS]
    code = LIMITS_TOLD_WITH_200.get(path)
    if code is None:
        return Failure(429, Code.TOO_MANY_REQUESTS, msg, retry_after=error.retry_after)
    # The apps show `msg` and nothing of the header. A lock, which no waiting ends, does not ask to come back.
    return Failure(
        200, code, msg.replace(COME_BACK, f"请在 {error.retry_after} 秒后再试"), retry_after=error.retry_after
    )


def _refusal(code: Code, error: errors.Refused) -> Failure:
    return Failure(200, code, error.detail or MESSAGES[code])


def _upstream_message(error: errors.UpstreamFailed) -> str:
    ours = error.advice.get("zh", "")
    if error.hint:
        # The caller's language first; a hint in Chinese says more than our sentence for its code.
        return error.hint if _CHINESE.search(error.hint) or not ours else f"{ours}（{error.hint}）"
    if ours:
        return ours
    for kind, message in UPSTREAM_MESSAGES:
        if isinstance(error, kind):
            return message
    return ""


def error_number(error: BaseException) -> int:
    """Return ``header.code`` for an error frame inside a stream: the vendor's code where there is one, never 0."""
    if isinstance(error, errors.UpstreamFailed) and error.code:
        return error.code
    for kind, number in ERROR_NUMBERS:
        if isinstance(error, kind):
            return number
    return INTERNAL_ERROR_NUMBER
