"""What is done by mail: ``/v1/account/email/verification``, ``/v1/email/verification`` and ``/v1/password-reset``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiproject.accounts.identity.authorizer import Authorizer
from aiproject.accounts.principal.permissions import Action
from aiproject.accounts.selfservice.recovery import Recovery
from aiproject.adapters.http.account_dialect import read_optional_fields, v1_route
from aiproject.adapters.http.asgi import client_address
from aiproject.adapters.http.event_limits import EventRateLimiter, Rate
from aiproject.adapters.http.json import answer, optional_text_field, read_fields, text_field
from aiproject.errors import InvalidInput
from aiproject.protocols.legacy import success

__all__ = ["MailRoutes"]

MAIL_REQUESTS = Rate("request for mail", "20/minute")
"""By address. A class behind one address may forget its passwords; nobody has us send mail by the thousand."""


class MailRoutes:
    """The endpoints; `aiproject.web` mounts `routes`."""

    def __init__(self, recovery: Recovery, access: Authorizer, limiter: EventRateLimiter) -> None:
        self._recovery = recovery
        self._access = access
        self._limiter = limiter

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            v1_route("/v1/account/email/verification", {"POST": self.send_verification}),
            v1_route("/v1/email/verification", {"POST": self.verify}),
            v1_route("/v1/password-reset", {"POST": self.ask_reset}),
            v1_route("/v1/password-reset/confirm", {"POST": self.reset}),
        ]

    async def send_verification(self, request: Request) -> Response:
        """Send a letter with a token to the account's own address."""
        principal = await self._access.enter(request, Action.VERIFY_EMAIL)
        await self._access.confirm(request, principal, Action.VERIFY_EMAIL, await read_optional_fields(request))
        self._recovery.require_mail()
        if principal.account.email_verified_at is not None:
            return answer(success("邮箱已经过验证"))
        await self._limiter.hit(MAIL_REQUESTS, client_address(request.scope))
        await self._recovery.send_verification(principal.account)
        return answer(success("验证邮件已发送，请查收"), 202)

    async def verify(self, request: Request) -> Response:
        """Take the ``token`` of such a letter. It says who somebody is; no other credential is needed."""
        fields = await read_fields(request)
        await self._recovery.verify(text_field(fields, "token"), address=client_address(request.scope))
        return answer(success("邮箱验证成功"))

    async def ask_reset(self, request: Request) -> Response:
        """Have a letter sent to the verified address of an account, named by ``username`` or ``email``."""
        fields = await read_fields(request)
        username, email = optional_text_field(fields, "username"), optional_text_field(fields, "email")
        if (username is None) == (email is None):
            raise InvalidInput("请提供 username 或 email 其中之一")
        self._recovery.require_mail()
        await self._limiter.hit(MAIL_REQUESTS, client_address(request.scope))
        self._recovery.ask_reset(username=username, email=email)
        return answer(success("如果该账号存在且邮箱已验证，重置邮件将很快送达"), 202)

    async def reset(self, request: Request) -> Response:
        """Set ``new_password`` by the ``token`` of such a letter."""
        fields = await read_fields(request)
        await self._recovery.reset(
            text_field(fields, "token"), text_field(fields, "new_password"), address=client_address(request.scope)
        )
        return answer(success("密码已重置，请重新登录"))
