"""``/auth/register`` and ``/auth/login`` of the seed's door."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from aiproject.accounts.core.service import Accounts
from aiproject.accounts.core.signups import SignupQuota
from aiproject.adapters.http.asgi import client_address, client_group, note
from aiproject.adapters.http.event_limits import EventRateLimiter, Rate
from aiproject.adapters.http.json import answer, answer_failure, optional_text_field, read_fields, text_field
from aiproject.codes import Code
from aiproject.errors import AiProjectError, RegistrationClosed
from aiproject.protocols.legacy import success

__all__ = ["AuthRoutes"]

REGISTRATIONS = Rate("registration", "120/minute", guards_money=True)
"""By address. A school behind one address registers a class in a minute; a flood is stopped."""


WITHOUT_QUOTA = "用户注册成功；该网络地址今日的注册赠送额度已用完，账号暂无额度，可兑换令牌或联系管理员"


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
            fields = await read_fields(request)
            username, password = text_field(fields, "username"), text_field(fields, "password")
            email, academy = text_field(fields, "email"), optional_text_field(fields, "academy")
            address = client_group(request.scope)
            await self._limiter.hit(REGISTRATIONS, address)
            opening = self._signups.opening(address)
            account = await self._accounts.register(
                username, password, email, academy, open_books=opening, address=address
            )
        except AiProjectError as error:
            return answer_failure(request, error, Code.APP_QUERY_METHOD_ERROR)
        note(request.scope, account=account.account_id, outcome="ok", has_signup_quota=opening.is_full)
        return answer(success("用户注册成功" if opening.is_full else WITHOUT_QUOTA))

    async def login(self, request: Request) -> Response:
        """Check ``username`` and ``password``; answer with everything an app keeps of the account."""
        try:
            fields = await read_fields(request)
            username, password = text_field(fields, "username"), text_field(fields, "password")
            account = await self._accounts.login(username, password, address=client_address(request.scope))
        except AiProjectError as error:
            return answer_failure(request, error, Code.APP_QUERY_METHOD_ERROR)
        note(request.scope, account=account.account_id, outcome="ok")
        body = success(
            "用户登录成功",
            uuid=account.uuid,
            username=account.username,
            email=account.email,
            tokens=account.tokens,
            picTimes=account.pic_times,
        )
        if account.academy is not None:
            body["academy"] = account.academy
        return answer(body)
