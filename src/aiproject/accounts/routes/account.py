"""``/v1/account``: the profile, the password, the uuid, and the deletion of the account."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiproject.accounts.core.model import Account
from aiproject.accounts.core.profiles import Profiles
from aiproject.accounts.core.service import Accounts
from aiproject.accounts.identity.authorizer import Authorizer
from aiproject.accounts.principal.permissions import Action
from aiproject.accounts.principal.principal import Credential, Principal
from aiproject.accounts.routes.field_types import (
    UUID_EXAMPLE,
    Academy,
    Confirmation,
    CsrfToken,
    Email,
    NewPassword,
    Password,
    Pictures,
    Tokens,
    Username,
    Uuid,
    VoiceMilliseconds,
)
from aiproject.accounts.routes.operations import TAG, owner
from aiproject.accounts.routes.sessions import SessionRoutes
from aiproject.accounts.selfservice.deletion import AccountDeletion
from aiproject.accounts.sessions import store as session_store
from aiproject.accounts.sessions.cookies import csrf_token
from aiproject.accounts.sessions.service import Sessions
from aiproject.adapters.db.engine import Connection
from aiproject.adapters.http.asgi import client_address
from aiproject.adapters.http.operation import Answer, BodyOperation, Operation, routes_of, succeed
from aiproject.adapters.http.timestamps import Timestamp, format_timestamp
from aiproject.codes import Detail, Success
from aiproject.errors import AccountUnknown, InvalidInput, LoginFailed

__all__ = ["OPERATIONS", "AccountRoutes"]


class Balances(Struct, kw_only=True):
    """What an account may still use."""

    tokens: Tokens
    pic_times: Pictures
    voice_ms: VoiceMilliseconds


class Profile(Struct, kw_only=True):
    """An account as its owner sees it; never the uuid, which is a credential."""

    username: Username
    email: Email
    email_verified: Annotated[bool, Meta(description="邮箱是否经过验证")]
    academy: Academy | None
    balances: Balances
    opened_at: Annotated[Timestamp | None, Meta(description="账号建立的时间")]


class EditAccount(Confirmation, kw_only=True):
    """Changes to a profile; a field that is missing stays as it is."""

    email: Annotated[Email | None, Meta(description="新邮箱，未经验证；null 或空表示清除")] | UnsetType = UNSET
    academy: Annotated[Academy | None, Meta(description="新学院；null 或空表示清除")] | UnsetType = UNSET


class ChangePassword(Struct, kw_only=True):
    """The current password and the new one."""

    # Optional for the check alone: which credentials need it is decided by `NEEDS`, with a refusal of its own.
    current_password: Annotated[Password | None, Meta(description="当前密码，用于确认")] = None
    new_password: NewPassword
    sign_out_everywhere: Annotated[
        bool, Meta(description="同时更换 uuid，使所有应用重新登录（默认 true）；其他浏览器会话总会结束")
    ] = True


class Credentials(Struct, kw_only=True):
    """The credentials that are valid from now on."""

    uuid: Uuid
    csrf_token: CsrfToken | UnsetType = UNSET


PROFILE = Profile(
    username="小明",
    email="ming@example.com",
    email_verified=True,
    academy=None,
    balances=Balances(tokens=9946, pic_times=8, voice_ms=None),
    opened_at="2026-03-01T12:30:45.123Z",
)
CREDENTIALS = Credentials(uuid=UUID_EXAMPLE)

SHOW = Operation(
    name="showAccount",
    method="GET",
    path="/v1/account",
    summary="账号信息",
    tag=TAG,
    access=owner(Action.READ, changes=False),
    answers=(Answer(message=Success.FOUND, body=PROFILE),),
)
EDIT = BodyOperation(
    name="editAccount",
    method="PATCH",
    path="/v1/account",
    summary="修改学院或邮箱；修改邮箱总是需要密码",
    tag=TAG,
    access=owner(Action.EDIT),
    request=EditAccount,
    examples={"例": {"academy": "文学院"}},
    answers=(Answer(message=Success.ACCOUNT_CHANGED, body=PROFILE),),
)
DELETE = BodyOperation(
    name="deleteAccount",
    method="DELETE",
    path="/v1/account",
    summary="注销账号：抹去个人信息，保留账目",
    tag=TAG,
    access=owner(Action.DELETE),
    request=Confirmation,
    is_required=False,
    examples={"例": {"password": "correct horse"}},
    answers=(Answer(message=Success.ACCOUNT_CLOSED),),
)
CHANGE_PASSWORD = BodyOperation(
    name="changePassword",
    method="POST",
    path="/v1/account/password",
    summary="修改密码",
    tag=TAG,
    access=owner(Action.CHANGE_PASSWORD),
    request=ChangePassword,
    examples={"例": {"current_password": "correct horse", "new_password": "another long passphrase"}},
    answers=(Answer(message=Success.PASSWORD_CHANGED, body=CREDENTIALS),),
)
ROTATE_UUID = BodyOperation(
    name="rotateUuid",
    method="POST",
    path="/v1/account/uuid",
    summary="更换 uuid，所有应用需要重新登录",
    tag=TAG,
    access=owner(Action.ROTATE_UUID),
    request=Confirmation,
    is_required=False,
    examples={"例": {"password": "correct horse"}},
    answers=(Answer(message=Success.UUID_CHANGED, body=CREDENTIALS),),
)

OPERATIONS = (SHOW, EDIT, DELETE, CHANGE_PASSWORD, ROTATE_UUID)
"""For the description, see `aiproject.web.openapi`."""


class AccountRoutes:
    """The endpoints; `aiproject.web` mounts `routes`."""

    def __init__(
        self,
        accounts: Accounts,
        profiles: Profiles,
        deletion: AccountDeletion,
        sessions: Sessions,
        browsers: SessionRoutes,
        access: Authorizer,
    ) -> None:
        self._accounts = accounts
        self._profiles = profiles
        self._deletion = deletion
        self._sessions = sessions
        self._browsers = browsers
        self._access = access

    def routes(self) -> list[Route]:
        """Return the routes."""
        return routes_of(
            (
                (SHOW, self.show),
                (EDIT, self.edit),
                (DELETE, self.close),
                (CHANGE_PASSWORD, self.change_password),
                (ROTATE_UUID, self.rotate_uuid),
            )
        )

    async def show(self, request: Request) -> Response:
        """Return the profile."""
        principal = await self._access.enter(request, Action.READ)
        return succeed(request, Success.FOUND, _profile(principal.account))

    async def edit(self, request: Request) -> Response:
        """Change ``email``, ``academy`` or both; a new e-mail address is unverified."""
        principal = await self._access.enter(request, Action.EDIT)
        wanted = await EDIT.read(request)
        if wanted.email is UNSET and wanted.academy is UNSET:
            raise InvalidInput(Detail.ONE_FIELD_OF_TWO_MISSING, first="email", second="academy")
        email = "" if wanted.email is None else wanted.email
        changes_email = email is not UNSET and email.strip() != principal.account.email
        action = Action.CHANGE_EMAIL if changes_email else Action.EDIT
        await self._access.confirm(request, principal, action, wanted.password)
        account = await self._profiles.edit(
            principal.account,
            email=None if email is UNSET or not changes_email else email,
            academy=None if wanted.academy is UNSET else wanted.academy or "",
        )
        return succeed(request, Success.ACCOUNT_CHANGED, _profile(account))

    async def close(self, request: Request) -> Response:
        """Delete the account: what names its owner is erased, the ledger stays."""
        principal = await self._access.enter(request, Action.DELETE)
        await self._access.confirm(request, principal, Action.DELETE, (await DELETE.read(request)).password)
        await self._deletion.delete(principal.account)
        headers = None if principal.session_id is None else self._browsers.expired_cookie_header(request)
        return succeed(request, Success.ACCOUNT_CLOSED, headers=headers)

    async def change_password(self, request: Request) -> Response:
        """Change the password and end all other sessions; replace the uuid unless the body says not to."""
        principal = await self._access.enter(request, Action.CHANGE_PASSWORD)
        change = await CHANGE_PASSWORD.read(request)
        account = await self._replace_password(request, principal, change)
        return await self._with_credentials(request, principal, account, Success.PASSWORD_CHANGED)

    async def _replace_password(self, request: Request, principal: Principal, change: ChangePassword) -> Account:
        async def end_sessions(connection: Connection) -> None:
            await session_store.end_all(connection, principal.account.account_id)

        if not change.current_password:
            # Refuses, unless the owner reauthenticates by another way than the password.
            await self._access.confirm(request, principal, Action.CHANGE_PASSWORD, None, field="current_password")
            return await self._accounts.set_password(
                principal.account,
                change.new_password,
                sign_out_everywhere=change.sign_out_everywhere,
                within=end_sessions,
            )
        try:
            # Not by `confirm` and `set_password`: of two changes at once only the one that knows what is stored wins.
            return await self._accounts.change_password(
                principal.account,
                change.current_password,
                change.new_password,
                sign_out_everywhere=change.sign_out_everywhere,
                address=client_address(request.scope),
                within=end_sessions,
            )
        except LoginFailed:
            raise LoginFailed(Detail.CURRENT_PASSWORD_WRONG) from None

    async def rotate_uuid(self, request: Request) -> Response:
        """Replace the uuid; every app has to sign in again."""
        principal = await self._access.enter(request, Action.ROTATE_UUID)
        await self._access.confirm(request, principal, Action.ROTATE_UUID, (await ROTATE_UUID.read(request)).password)
        try:
            uuid = await self._accounts.rotate_uuid(principal.account)
        except AccountUnknown:
            raise LoginFailed from None
        return succeed(request, Success.UUID_CHANGED, Credentials(uuid=uuid))

    async def _with_credentials(
        self, request: Request, principal: Principal, account: Account, message: Success
    ) -> Response:
        """Answer with the uuid; a browser, whose session has ended, also gets a new session."""
        if principal.credential is not Credential.SESSION:
            return succeed(request, message, Credentials(uuid=account.uuid))
        opened = await self._browsers.open(request, account, checked_at=self._sessions.now())
        credentials = Credentials(uuid=account.uuid, csrf_token=csrf_token(opened.token))
        return succeed(request, message, credentials, headers=self._browsers.cookie_header(request, opened))


def _profile(account: Account) -> Profile:
    return Profile(
        username=account.username,
        email=account.email,
        email_verified=account.email_verified_at is not None,
        academy=account.academy,
        balances=Balances(tokens=account.tokens, pic_times=account.pic_times, voice_ms=account.voice_ms),
        opened_at=format_timestamp(account.created_at),
    )
