"""OpenAI's error shape: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from aiproject import errors
from aiproject.codes import Code
from aiproject.errors import Reason
from aiproject.messages.formatting import format_error
from aiproject.protocols.dialects import ErrorAnswer, FailedRequest
from aiproject.protocols.languages import preferred_language

__all__ = ["OpenAIDialect"]

BUSY_RETRY_AFTER: Final = 1
"""Seconds after which a call that found its provider busy may be tried again."""


class _Kind(NamedTuple):
    status: int
    type: str
    code: str


_INPUT: Final = "invalid_request_error"
_UPSTREAM: Final = "upstream_error"

_REASONS: Final = {
    Reason.TOO_LONG: _Kind(400, _INPUT, "context_length_exceeded"),
    Reason.MODERATED: _Kind(400, _INPUT, "content_filter"),
    Reason.BAD_INPUT: _Kind(400, _INPUT, "invalid_value"),
    Reason.BUSY: _Kind(503, _UPSTREAM, "upstream_busy"),
    Reason.TIMED_OUT: _Kind(504, _UPSTREAM, "upstream_timeout"),
}
_FAILED: Final = _Kind(502, _UPSTREAM, "upstream_failed")


class OpenAIDialect:
    """How the addresses of OpenAI's API show errors. Implements `Dialect`.

    Args:
        prefix: of the addresses.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def render(self, error: BaseException, request: FailedRequest) -> ErrorAnswer:
        """Implements `Dialect.render`."""
        kind = _kind_of(error)
        language = preferred_language(request.accept_language)
        shown = error if isinstance(error, errors.AiProjectError) else errors.AiProjectError()
        code = Code.APP_INTERNAL_ERROR if kind.status == 500 else Code.APP_QUERY_METHOD_ERROR
        message = format_error(shown, language, code=Code.MODEL_ERROR if kind.type == _UPSTREAM else code)
        body = {"message": message, "type": kind.type, "param": _param_of(error), "code": kind.code}
        headers = [(b"content-language", str(language).encode()), (b"vary", b"Accept-Language")]
        if isinstance(error, errors.TooManyRequests):
            headers.append((b"retry-after-ms", str(error.retry_after * 1000).encode()))
        if kind.code == "upstream_busy":
            headers.append((b"retry-after", str(BUSY_RETRY_AFTER).encode()))
        if kind.code == "insufficient_quota":
            # The SDKs try every 429 again; no waiting fills an empty balance.
            headers.append((b"x-should-retry", b"false"))
        return ErrorAnswer(kind.status, msgspec.json.encode({"error": body}), kind.code, headers=tuple(headers))


def _kind_of(error: BaseException) -> _Kind:
    match error:
        case errors.NotSignedIn() | errors.AccountUnknown():
            return _Kind(401, _INPUT, "invalid_api_key")
        case errors.NotAllowed():
            return _Kind(403, _INPUT, "model_not_allowed")
        case errors.ModelUnknown():
            return _Kind(404, _INPUT, "model_not_found")
        case errors.QuotaBusy():
            # Not an empty balance: it is free again when the account's other calls end, so that a retry helps.
            return _Kind(429, "rate_limit_error", "rate_limit_exceeded")
        case errors.QuotaExhausted() | errors.SpendLimitReached():
            return _Kind(429, "insufficient_quota", "insufficient_quota")
        case errors.TooManyRequests():
            return _Kind(429, "rate_limit_error", "rate_limit_exceeded")
        case errors.BodyTooLarge():
            return _Kind(413, _INPUT, "request_too_large")
        case errors.BodyTooSlow():
            return _Kind(408, _INPUT, "request_timeout")
        case errors.BodyEncoded():
            return _Kind(415, _INPUT, "unsupported_encoding")
        case errors.HttpFault():
            return _Kind(error.status, _INPUT, "unknown_url" if error.status == 404 else "invalid_request")
        case errors.InvalidInput():
            return _Kind(400, _INPUT, str(error.detail or "invalid_request").lower())
        case errors.Refused():
            return _Kind(400, _INPUT, "invalid_request")
        case errors.UpstreamFailed():
            return _REASONS.get(error.reason, _FAILED)
        case errors.Unavailable():
            return _Kind(503, "server_error", "service_unavailable")
        case _:
            return _Kind(500, "server_error", "internal_error")


def _param_of(error: BaseException) -> str | None:
    field = error.params.get("field") if isinstance(error, errors.InvalidInput) else None
    return field if isinstance(field, str) else None
