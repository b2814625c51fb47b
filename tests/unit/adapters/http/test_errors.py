"""What HTTP asks of an answer to an error, in whichever dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.requests import Request

from aiproject import errors
from aiproject.adapters.http.asgi import RECORD, Message
from aiproject.adapters.http.errors import STANDARD_DIALECTS, error_answer, error_response, send_error
from aiproject.codes import Detail
from aiproject.protocols.dialects import Dialects, FailedRequest

DIALECTS = Dialects(STANDARD_DIALECTS)


def headers_of(error: Exception, path: str = "/textModel/chat") -> dict[bytes, bytes]:
    return dict(error_answer(DIALECTS, error, FailedRequest(path)).headers)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.TooManyRequests(7), {b"retry-after": b"7"}),
        (errors.Unavailable("x", retry_after=9), {b"retry-after": b"9"}),
        (errors.SpendLimitReached("tokens", retry_after=60), {b"retry-after": b"60"}),
        (errors.SpendLimitReached("tokens"), {}),
        (errors.NotSignedIn(), {b"www-authenticate": b"Bearer"}),
        (errors.BodyTooLarge(1), {b"connection": b"close"}),
        (errors.BodyTooSlow(), {b"connection": b"close"}),
        (errors.BodyEncoded(), {b"connection": b"close", b"accept-encoding": b"identity"}),
        (errors.HttpFault(405, {"Allow": "GET"}), {b"allow": b"GET"}),
        (errors.InvalidInput(), {}),
        (RuntimeError("x"), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_header_fields(error: Exception, expected: dict[bytes, bytes]) -> None:
    assert headers_of(error) == expected


def test_a_limit_that_is_told_with_200_says_when_to_come_back_as_well() -> None:
    assert headers_of(errors.TooManyRequests(7), "/auth/login") == {b"retry-after": b"7"}


def scope(path: str, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": path, "headers": list(headers), RECORD: {}}


async def test_both_ways_to_send_it_say_the_same_and_leave_it_in_the_log() -> None:
    english = (b"accept-language", b"en")
    error = errors.InvalidInput(Detail.FIELD_MISSING, field="email")
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    first = scope("/v1/account", english)
    await send_error(first, send, error)
    second = scope("/v1/account", english)
    response = error_response(Request(second), error)
    assert (sent[0]["status"], sent[1]["body"]) == (response.status_code, response.body)
    assert sorted(sent[0]["headers"]) == sorted(response.raw_headers)
    assert json.loads(bytes(response.body)) == {"code": "APP_QUERY_METHOD_ERROR", "msg": "email is missing"}
    assert first[RECORD] == second[RECORD]
    assert first[RECORD] == {
        "outcome": "APP_QUERY_METHOD_ERROR",
        "error": "InvalidInput",
        "detail": "FIELD_MISSING",
    }


def test_a_defect_shows_nothing_of_itself() -> None:
    request = Request(scope("/textModel/chat"))
    assert b"hunter2" not in error_response(request, RuntimeError("password=hunter2")).body
    assert request.scope[RECORD] == {"outcome": "APP_INTERNAL_ERROR"}
