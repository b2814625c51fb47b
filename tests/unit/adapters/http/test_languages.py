"""Answers below ``/v1`` follow ``Accept-Language``; all others speak Chinese and say nothing of languages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.requests import Request

from aiproject.adapters.http.languages import accept_language_of, negotiated_language
from aiproject.adapters.http.operation import succeed
from aiproject.codes import Success
from aiproject.messages.formatting import Language


def scope(path: str, *values: bytes) -> dict[str, Any]:
    headers = [(b"accept-language", value) for value in values]
    return {"type": "http", "method": "GET", "path": path, "headers": headers}


def test_the_lines_of_a_field_are_one_list() -> None:
    assert accept_language_of([(b"accept", b"x"), (b"accept-language", b"fr"), (b"accept-language", b"en;q=0.5")]) == (
        "fr,en;q=0.5"
    )
    assert accept_language_of([(b"accept", b"x")]) is None


@pytest.mark.parametrize(
    ("path", "language"),
    [("/v1/usage", Language.EN), ("/v1/account", Language.EN), ("/auth/login", None), ("/admin/login", None)],
)
def test_which_addresses_look_at_it(path: str, language: Language | None) -> None:
    assert negotiated_language(scope(path, b"en")) is language


@pytest.mark.parametrize(
    ("path", "msg", "language"),
    [("/v1/account", "The account is changed", "en"), ("/auth/register", "账号信息已修改", None)],
)
def test_a_success(path: str, msg: str, language: str | None) -> None:
    answer = succeed(Request(scope(path, b"en")), Success.ACCOUNT_CHANGED)
    assert json.loads(bytes(answer.body)) == {"code": 0, "msg": msg}
    assert answer.headers.get("content-language") == language
    assert answer.headers.get("vary") == (None if language is None else "Accept-Language")
