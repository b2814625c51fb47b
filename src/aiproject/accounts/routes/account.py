"""``/v1/account``: the profile, the password, the uuid, and the end."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiproject.accounts.core.model import Account
from aiproject.accounts.core.profiles import Profiles
from aiproject.accounts.core.service import Accounts
from aiproject.accounts.identity.authorizer import Authorizer
from aiproject.accounts.principal.permissions import Action
from aiproject.accounts.principal.principal import Credential, Principal
from aiproject.accounts.routes.sessions import SessionRoutes
from aiproject.accounts.selfservice.deletion import Closing
from aiproject.accounts.sessions import store as session_store
from aiproject.accounts.sessions.cookies import csrf_token
from aiproject.accounts.sessions.service import Sessions
from aiproject.adapters.db.engine import Connection
from aiproject.adapters.http.account_dialect import read_optional_fields, v1_route
from aiproject.adapters.http.asgi import client_address
from aiproject.adapters.http.json import answer, optional_text_field, read_fields, text_field
from aiproject.adapters.http.timestamps import told
from aiproject.errors import AccountUnknown, InvalidInput, LoginFailed
from aiproject.protocols.legacy import success

__all__ = ["AccountRoutes"]


class AccountRoutes:
    """The endpoints; `aiproject.web` mounts `routes`."""

    def __init__(
        self,
        accounts: Accounts,
        profiles: Profiles,
        closing: Closing,
        sessions: Sessions,
        browsers: SessionRoutes,
        access: Authorizer,
    ) -> None:
        self._accounts = accounts
        self._profiles = profiles
        self._closing = closing
        self._sessions = sessions
        self._browsers = browsers
        self._access = access

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            v1_route("/v1/account", {"GET": self.show, "PATCH": self.edit, "DELETE": self.close}),
            v1_route("/v1/account/password", {"POST": self.change_password}),
            v1_route("/v1/account/uuid", {"POST": self.rotate_uuid}),
        ]

    async def show(self, request: Request) -> Response:
        """Tell the profile; never the uuid, which is a credential."""
        principal = await self._access.enter(request, Action.READ)
        return answer(success("查询成功", **_profile(principal.account)))

    async def edit(self, request: Request) -> Response:
        """Change ``email`` and ``academy``, whichever is there; another e-mail address is unverified."""
        principal = await self._access.enter(request, Action.EDIT)
        fields = await read_fields(request)
        if not fields.keys() & {"email", "academy"}:
            raise InvalidInput("缺少 email 或 academy")
        email, academy = optional_text_field(fields, "email"), optional_text_field(fields, "academy")
        changes_email = "email" in fields and (email or "").strip() != principal.account.email
        await self._access.confirm(request, principal, Action.CHANGE_EMAIL if changes_email else Action.EDIT, fields)
        account = await self._profiles.edit(
            principal.account,
            email=(email or "") if changes_email else None,
            academy=(academy or "") if "academy" in fields else None,
        )
        return answer(success("账号信息已修改", **_profile(account)))

    async def close(self, request: Request) -> Response:
        """Delete the account: the person is removed, the books stay."""
        principal = await self._access.enter(request, Action.DELETE)
        await self._access.confirm(request, principal, Action.DELETE, await read_optional_fields(request))
        await self._closing.close(principal.account)
        headers = None if principal.session_id is None else self._browsers.taken_back(request)
        return answer(success("账号已注销"), 200, headers)

    async def change_password(self, request: Request) -> Response:
        """Change the password; all other sessions end, and, unless it is refused, the uuid is another."""
        principal = await self._access.enter(request, Action.CHANGE_PASSWORD)
        fields = await read_fields(request)
        current = self._access.password(principal, Action.CHANGE_PASSWORD, fields, "current_password")
        new = text_field(fields, "new_password")
        everywhere = fields.get("sign_out_everywhere", True)
        if not isinstance(everywhere, bool):
            raise InvalidInput("sign_out_everywhere 应为布尔值")

        async def end_sessions(connection: Connection) -> None:
            await session_store.end_all(connection, principal.account.account_id)

        try:
            account = await self._accounts.change_password(
                principal.account,
                current or "",
                new,
                sign_out_everywhere=everywhere,
                address=client_address(request.scope),
                within=end_sessions,
            )
        except LoginFailed:
            raise LoginFailed("当前密码不正确") from None
        return await self._told(request, principal, account, "密码已修改")

    async def rotate_uuid(self, request: Request) -> Response:
        """Give the account another uuid; every app has to sign in again."""
        principal = await self._access.enter(request, Action.ROTATE_UUID)
        await self._access.confirm(request, principal, Action.ROTATE_UUID, await read_optional_fields(request))
        try:
            uuid = await self._accounts.rotate_uuid(principal.account)
        except AccountUnknown:
            raise LoginFailed from None
        return answer(success("uuid 已更换", uuid=uuid))

    async def _told(self, request: Request, principal: Principal, account: Account, msg: str) -> Response:
        """Answer the owner with the uuid; a browser goes on in a session of its own with a new token."""
        if principal.credential is not Credential.SESSION:
            return answer(success(msg, uuid=account.uuid))
        opened = await self._browsers.open(request, account, checked_at=self._sessions.now())
        body = success(msg, uuid=account.uuid, csrf_token=csrf_token(opened.token))
        return answer(body, 200, self._browsers.handed_out(request, opened))


def _profile(account: Account) -> dict[str, Any]:
    return {
        "username": account.username,
        "email": account.email,
        "email_verified": account.email_verified_at is not None,
        "academy": account.academy,
        "balances": {"tokens": account.tokens, "pic_times": account.pic_times, "voice_ms": account.voice_ms},
        "opened_at": told(account.created_at),
    }
