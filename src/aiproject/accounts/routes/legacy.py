"""``/auth/register`` and ``/auth/login`` of the legacy API."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from aiproject.accounts.core.service import Accounts
from aiproject.accounts.core.signups import SignupQuota
from aiproject.accounts.routes.field_types import (
    UUID_EXAMPLE,
    Academy,
    Email,
    NewPassword,
    Password,
    Pictures,
    Tokens,
    Username,
    Uuid,
)
from aiproject.adapters.http.asgi import client_address, client_group, note
from aiproject.adapters.http.errors import error_response
from aiproject.adapters.http.event_limits import EventRateLimiter, Rate
from aiproject.adapters.http.operation import Answer, BodyOperation, succeed
from aiproject.codes import Code, Success
from aiproject.errors import AiProjectError, RegistrationClosed

__all__ = ["LOGIN", "OPERATIONS", "REGISTER", "AuthRoutes"]

REGISTRATIONS = Rate("registration", "120/minute", guards_money=True)
"""By address. A school behind one address registers a class in a minute; a flood is stopped."""

TAG = "用户鉴权"


class Registration(Struct, kw_only=True):
    """A new account."""

    username: Username
    password: NewPassword
    email: Email
    academy: Annotated[Academy | None, Meta(description="学院，可不填")] = None


class LoginCredentials(Struct, kw_only=True):
    """The name and password of an account."""

    username: Username
    password: Password


class LoggedIn(Struct, kw_only=True):
    """Everything that an app keeps of an account."""

    uuid: Uuid
    username: Username
    email: Email
    tokens: Tokens
    picTimes: Pictures  # noqa: N815 - the legacy API's spelling
    academy: Academy | UnsetType = UNSET


REGISTER = BodyOperation(
    name="register",
    method="POST",
    path="/auth/register",
    summary="注册",
    tag=TAG,
    request=Registration,
    examples={"注册": {"username": "小明", "password": "correct horse", "email": "ming@example.com"}},
    answers=(Answer(message=Success.REGISTERED),),
    failures={200: (Code.USER_NAME_REPEAT, Code.REGISTRATION_CLOSED, Code.APP_QUERY_METHOD_ERROR)},
)
LOGIN = BodyOperation(
    name="login",
    method="POST",
    path="/auth/login",
    summary="登录",
    tag=TAG,
    request=LoginCredentials,
    examples={"登录": {"username": "小明", "password": "correct horse"}},
    answers=(
        Answer(
            message=Success.LOGGED_IN,
            body=LoggedIn(uuid=UUID_EXAMPLE, username="小明", email="ming@example.com", tokens=10_000, picTimes=10),
        ),
    ),
    failures={200: (Code.LOGIN_ERROR, Code.APP_QUERY_METHOD_ERROR)},
)

OPERATIONS = (REGISTER, LOGIN)
"""For the description, see `aiproject.web.openapi`."""


class AuthRoutes:
    """The two endpoints; `aiproject.web` mounts their methods.

    Args:
        signups: decides what a new account starts with.
        is_open: whether anybody may register.
    """

    def __init__(self, accounts: Accounts, limiter: EventRateLimiter, signups: SignupQuota, *, is_open: bool) -> None:
        self._accounts = accounts
        self._limiter = limiter
        self._signups = signups
        self._is_open = is_open

    async def register(self, request: Request) -> Response:
        """Open an account: ``username``, ``password``, ``email`` and, optionally, ``academy``."""
        try:
            if not self._is_open:
                raise RegistrationClosed
            wanted = await REGISTER.read(request)
            address = client_group(request.scope)
            await self._limiter.hit(REGISTRATIONS, address)
            opening = self._signups.opening(address)
            account = await self._accounts.register(
                wanted.username,
                wanted.password,
                wanted.email,
                wanted.academy,
                grant_opening=opening,
                address=address,
            )
        except AiProjectError as error:
            return error_response(request, error)
        note(request.scope, account=account.account_id, outcome="ok", has_signup_quota=opening.is_full)
        return succeed(request, Success.REGISTERED if opening.is_full else Success.REGISTERED_WITHOUT_QUOTA)

    async def login(self, request: Request) -> Response:
        """Check ``username`` and ``password``; answer with everything an app keeps of the account."""
        try:
            shown = await LOGIN.read(request)
            address = client_address(request.scope)
            account = await self._accounts.login(shown.username, shown.password, address=address)
        except AiProjectError as error:
            return error_response(request, error)
        note(request.scope, account=account.account_id, outcome="ok")
        logged_in = LoggedIn(
            uuid=account.uuid,
            username=account.username,
            email=account.email,
            tokens=account.tokens,
            picTimes=account.pic_times,
            academy=UNSET if account.academy is None else account.academy,
        )
        return succeed(request, Success.LOGGED_IN, logged_in)
