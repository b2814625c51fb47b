"""The table of errors of the APIs that SDKs know, row by row."""

from __future__ import annotations

import json

import pytest

from aiproject import errors
from aiproject.codes import Detail
from aiproject.errors import Reason
from aiproject.protocols.dialects import FailedRequest
from aiproject.protocols.openai.errors import OpenAIDialect

INPUT = "invalid_request_error"
ROWS = [
    (errors.NotSignedIn(), 401, INPUT, "invalid_api_key"),
    (errors.NotAllowed(), 403, INPUT, "model_not_allowed"),
    (errors.ModelUnknown("x"), 404, INPUT, "model_not_found"),
    (errors.InvalidInput(Detail.FIELD_MISSING, field="messages"), 400, INPUT, "field_missing"),
    (errors.UpstreamRefused(reason=Reason.TOO_LONG), 400, INPUT, "context_length_exceeded"),
    (errors.BodyTooLarge(1), 413, INPUT, "request_too_large"),
    (errors.QuotaExhausted("tokens"), 429, "insufficient_quota", "insufficient_quota"),
    (errors.QuotaBusy("tokens"), 429, "rate_limit_error", "rate_limit_exceeded"),
    (errors.SpendLimitReached("tokens"), 429, "insufficient_quota", "insufficient_quota"),
    (errors.TooManyRequests(3), 429, "rate_limit_error", "rate_limit_exceeded"),
    (errors.UpstreamRefused(reason=Reason.MODERATED), 400, INPUT, "content_filter"),
    (errors.UpstreamTruncated(), 502, "upstream_error", "upstream_failed"),
    (errors.UpstreamUnreachable(status=401), 502, "upstream_error", "upstream_failed"),
    (errors.UpstreamRefused(reason=Reason.EXHAUSTED), 502, "upstream_error", "upstream_failed"),
    (errors.UpstreamRefused(reason=Reason.BUSY), 503, "upstream_error", "upstream_busy"),
    (errors.UpstreamTimeout("gap", 1), 504, "upstream_error", "upstream_timeout"),
    (errors.Unavailable("stopping"), 503, "server_error", "service_unavailable"),
    (errors.HttpFault(404), 404, INPUT, "unknown_url"),
    (errors.HttpFault(405), 405, INPUT, "invalid_request"),
    (ZeroDivisionError("secret"), 500, "server_error", "internal_error"),
]


@pytest.mark.parametrize(("error", "status", "kind", "code"), ROWS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("language", ["zh", "en"])
def test_row(error: BaseException, status: int, kind: str, code: str, language: str) -> None:
    answer = OpenAIDialect("/v1/chat/").render(error, FailedRequest("/v1/chat/completions", language))
    body = json.loads(answer.body)["error"]
    assert (answer.status, body["type"], body["code"]) == (status, kind, code)
    assert list(body) == ["message", "type", "param", "code"]
    assert body["message"]
    assert body["message"].isascii() == (language == "en")
    assert "secret" not in body["message"]
    assert body["param"] == ("messages" if code == "field_missing" else None)


def test_what_the_sdks_read_of_a_limit() -> None:
    headers = dict(OpenAIDialect("/").render(errors.TooManyRequests(3), FailedRequest("/")).headers)
    assert headers[b"retry-after-ms"] == b"3000"
    headers = dict(OpenAIDialect("/").render(errors.QuotaExhausted("tokens"), FailedRequest("/")).headers)
    assert headers[b"x-should-retry"] == b"false"
