"""``/auth/register`` and ``/auth/login`` of the seed's door, and who calls where headers say so."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from aiproject.accounts.model import Account
from aiproject.accounts.service import Accounts
from aiproject.adapters.asgi import Scope, client_address, note
from aiproject.adapters.limiter import Limiter, Rate
from aiproject.adapters.uploads import header_candidates, read_body
from aiproject.codes import MESSAGES, Code
from aiproject.errors import AiProjectError, InvalidInput, LoginFailed, RegistrationClosed
from aiproject.protocols.seed import failure_of, json_bytes, success

__all__ = ["AuthRoutes", "identify_by_headers"]

MAX_BODY_BYTES = 64 * 1024
"""Bytes of a registration or login; the longest legal one has about two thousand."""

REGISTRATIONS = Rate("registration", "120/minute")
"""By address. A school behind one address registers a class in a minute; a flood is stopped."""

FAILED_LOGINS_BY_ADDRESS = Rate("failed login of an address", "60/minute")
"""Only failures count, so that many people behind one address log in freely."""

FAILED_LOGINS_BY_NAME = Rate("failed login of a name", "20/minute")
"""From anywhere: what a person mistypes is far below, what a guesser needs is far above."""


class AuthRoutes:
    """The two endpoints; `aiproject.web` mounts their methods.

    Args:
        is_open: whether anybody may register.
    """

    def __init__(self, accounts: Accounts, limiter: Limiter, *, is_open: bool) -> None:
        self._accounts = accounts
        self._limiter = limiter
        self._is_open = is_open

    async def register(self, request: Request) -> Response:
        """Open an account: ``username``, ``password``, ``email`` and, optionally, ``academy``."""
        try:
            if not self._is_open:
                raise RegistrationClosed
            fields = await _fields(request)
            username, password = _text(fields, "username"), _text(fields, "password")
            email, academy = _text(fields, "email"), _optional_text(fields, "academy")
            await self._limiter.hit(REGISTRATIONS, client_address(request.scope))
            account = await self._accounts.register(username, password, email, academy)
        except AiProjectError as error:
            return _answer_failure(request, error, Code.APP_QUERY_METHOD_ERROR)
        note(request.scope, account=account.account_id, outcome="ok")
        return _answer(success("用户注册成功"))

    async def login(self, request: Request) -> Response:
        """Check ``username`` and ``password``; answer with everything an app keeps of the account."""
        try:
            fields = await _fields(request)
            username, password = _text(fields, "username"), _text(fields, "password")
            address, name = client_address(request.scope), username.strip().casefold()[:64]
            await self._limiter.check(FAILED_LOGINS_BY_ADDRESS, address)
            await self._limiter.check(FAILED_LOGINS_BY_NAME, name)
            try:
                account = await self._accounts.login(username, password)
            except LoginFailed:
                await self._limiter.hit(FAILED_LOGINS_BY_ADDRESS, address)
                await self._limiter.hit(FAILED_LOGINS_BY_NAME, name)
                raise
        except AiProjectError as error:
            return _answer_failure(request, error, Code.APP_QUERY_METHOD_ERROR)
        note(request.scope, account=account.account_id, outcome="ok")
        answer = success(
            "用户登录成功",
            uuid=account.uuid,
            username=account.username,
            email=account.email,
            tokens=account.tokens,
            picTimes=account.pic_times,
        )
        if account.academy is not None:
            answer["academy"] = account.academy
        return _answer(answer)


async def identify_by_headers(accounts: Accounts, scope: Scope) -> Account:
    """Return the account that the headers ``uuid`` and ``username`` name."""
    headers = scope["headers"]
    uuids = header_candidates(headers, b"uuid")
    account = await accounts.identify(uuids[0] if uuids else "", header_candidates(headers, b"username"))
    note(scope, account=account.account_id)
    return account


def _answer(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        json_bytes(body),
        status,
        media_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def _answer_failure(request: Request, error: AiProjectError, code: Code) -> Response:
    failure = failure_of(error, code=code)
    note(request.scope, outcome=str(failure.code), error=type(error).__name__)
    headers = {} if failure.retry_after is None else {"Retry-After": str(failure.retry_after)}
    if failure.status == 413:
        headers["Connection"] = "close"
    return _answer(failure.body(), failure.status, headers)


async def _fields(request: Request) -> dict[str, Any]:
    """Return the body's JSON object, whatever its content type says (curl's default is a form's)."""
    body = await read_body(request.receive, request.scope["headers"], limit=MAX_BODY_BYTES)
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInput(MESSAGES[Code.APP_QUERY_METHOD_ERROR]) from None
    if not isinstance(fields, dict):
        raise InvalidInput(MESSAGES[Code.APP_QUERY_METHOD_ERROR])
    return fields


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        raise InvalidInput(f"缺少 {name}")
    if not isinstance(value, str):
        raise InvalidInput(f"{name} 应为字符串")
    return value


def _optional_text(fields: dict[str, Any], name: str) -> str | None:
    return None if fields.get(name) is None else _text(fields, name)
