"""What is done by e-mail: ``/v1/account/email/verification``, ``/v1/email/verification`` and ``/v1/password-reset``."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiproject.accounts.identity.authorizer import Authorizer
from aiproject.accounts.principal.permissions import Action
from aiproject.accounts.routes.field_types import Confirmation, Email, NewPassword, Username
from aiproject.accounts.routes.operations import NOBODY, TAG, failures, owner
from aiproject.accounts.selfservice.recovery import Recovery
from aiproject.adapters.http.asgi import client_address
from aiproject.adapters.http.event_limits import EventRateLimiter, Rate
from aiproject.adapters.http.operation import Answer, BodyOperation, routes_of, succeed
from aiproject.codes import Detail, Success
from aiproject.errors import InvalidInput, NotFound

__all__ = ["OPERATIONS", "MailRoutes"]

MAIL_REQUESTS = Rate("request for mail", "20/minute")
"""By address. A class behind one address may forget its passwords; a flood of mail is stopped."""

MAIL_TOKEN = "Vq3xZ0e9mZr1f0n5sVJt8zqk7wQ2uB6cXyH4dL1aPoE"  # noqa: S105 - an example
MailToken = Annotated[str, Meta(description="邮件中的验证码，只能使用一次", examples=[MAIL_TOKEN])]


class VerifyEmail(Struct, kw_only=True):
    """The token of a verification e-mail."""

    token: MailToken


class AskReset(Struct, kw_only=True):
    """The account whose password is forgotten: its name or its e-mail address, not both."""

    username: Username | None = None
    email: Email | None = None


class ResetPassword(Struct, kw_only=True):
    """The token of a reset e-mail, and the new password."""

    token: MailToken
    new_password: NewPassword


SEND_VERIFICATION = BodyOperation(
    name="sendVerification",
    method="POST",
    path="/v1/account/email/verification",
    summary="发送验证邮件",
    tag=TAG,
    access=owner(Action.VERIFY_EMAIL),
    failures=failures(NotFound()),
    request=Confirmation,
    is_required=False,
    examples={"例": {"password": "correct horse"}},
    answers=(Answer(status=202, message=Success.VERIFICATION_SENT), Answer(message=Success.EMAIL_VERIFIED_BEFORE)),
)
VERIFY = BodyOperation(
    name="verifyEmail",
    method="POST",
    path="/v1/email/verification",
    summary="验证邮箱",
    tag=TAG,
    access=NOBODY,
    failures=failures(NotFound()),
    request=VerifyEmail,
    examples={"例": {"token": MAIL_TOKEN}},
    answers=(Answer(message=Success.EMAIL_VERIFIED),),
)
ASK_RESET = BodyOperation(
    name="askReset",
    method="POST",
    path="/v1/password-reset",
    summary="忘记密码；无论账号是否存在，应答都相同",
    tag=TAG,
    access=NOBODY,
    failures=failures(NotFound()),
    request=AskReset,
    body={"minProperties": 1, "maxProperties": 1},
    examples={"例": {"username": "小明"}},
    answers=(Answer(status=202, message=Success.RESET_REQUESTED),),
)
RESET = BodyOperation(
    name="resetPassword",
    method="POST",
    path="/v1/password-reset/confirm",
    summary="用邮件中的验证码设置新密码",
    tag=TAG,
    access=NOBODY,
    failures=failures(NotFound()),
    request=ResetPassword,
    examples={"例": {"token": MAIL_TOKEN, "new_password": "another long passphrase"}},
    answers=(Answer(message=Success.PASSWORD_RESET),),
)

OPERATIONS = (SEND_VERIFICATION, VERIFY, ASK_RESET, RESET)
"""For the description, see `aiproject.web.openapi`."""


class MailRoutes:
    """The endpoints; `aiproject.web` mounts `routes`."""

    def __init__(self, recovery: Recovery, access: Authorizer, limiter: EventRateLimiter) -> None:
        self._recovery = recovery
        self._access = access
        self._limiter = limiter

    def routes(self) -> list[Route]:
        """Return the routes."""
        return routes_of(
            (
                (SEND_VERIFICATION, self.send_verification),
                (VERIFY, self.verify),
                (ASK_RESET, self.ask_reset),
                (RESET, self.reset),
            )
        )

    async def send_verification(self, request: Request) -> Response:
        """Send an e-mail with a token to the account's own address."""
        principal = await self._access.enter(request, Action.VERIFY_EMAIL)
        shown = await SEND_VERIFICATION.read(request)
        await self._access.confirm(request, principal, Action.VERIFY_EMAIL, shown.password)
        self._recovery.require_mail()
        if principal.account.email_verified_at is not None:
            return succeed(request, Success.EMAIL_VERIFIED_BEFORE)
        await self._limiter.hit(MAIL_REQUESTS, client_address(request.scope))
        await self._recovery.send_verification(principal.account)
        return succeed(request, Success.VERIFICATION_SENT, status=202)

    async def verify(self, request: Request) -> Response:
        """Take the ``token`` of such an e-mail. It proves whose address it is, so no other credential is needed."""
        shown = await VERIFY.read(request)
        await self._recovery.verify(shown.token, address=client_address(request.scope))
        return succeed(request, Success.EMAIL_VERIFIED)

    async def ask_reset(self, request: Request) -> Response:
        """Have an e-mail sent to the verified address of an account, named by ``username`` or ``email``."""
        asked = await ASK_RESET.read(request)
        if (asked.username is None) == (asked.email is None):
            raise InvalidInput(Detail.NOT_EXACTLY_ONE_FIELD_OF_TWO, first="username", second="email")
        self._recovery.require_mail()
        await self._limiter.hit(MAIL_REQUESTS, client_address(request.scope))
        self._recovery.ask_reset(username=asked.username, email=asked.email)
        return succeed(request, Success.RESET_REQUESTED, status=202)

    async def reset(self, request: Request) -> Response:
        """Set ``new_password`` by the ``token`` of such an e-mail."""
        shown = await RESET.read(request)
        await self._recovery.reset(shown.token, shown.new_password, address=client_address(request.scope))
        return succeed(request, Success.PASSWORD_RESET)
