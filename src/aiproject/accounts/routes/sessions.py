"""``/v1/sessions``, ``/v1/account/session`` and ``/v1/account/sessions``: browsers sign in and out."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiproject.accounts.core.model import Account
from aiproject.accounts.core.service import Accounts
from aiproject.accounts.identity.authorizer import Authorizer
from aiproject.accounts.principal.permissions import Action
from aiproject.accounts.principal.principal import Principal
from aiproject.accounts.sessions.cookies import BrowserRules, csrf_token
from aiproject.accounts.sessions.service import OpenSession, Session, Sessions
from aiproject.adapters.http.account_dialect import read_optional_fields, v1_route
from aiproject.adapters.http.asgi import client_address, note
from aiproject.adapters.http.json import answer, read_fields, text_field
from aiproject.adapters.http.timestamps import told
from aiproject.errors import NotSignedIn
from aiproject.protocols.legacy import success

__all__ = ["SessionRoutes"]


class SessionRoutes:
    """The endpoints; `aiproject.web` mounts `routes`."""

    def __init__(self, accounts: Accounts, sessions: Sessions, rules: BrowserRules, access: Authorizer) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._rules = rules
        self._access = access

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            v1_route("/v1/sessions", {"POST": self.sign_in}),
            v1_route("/v1/account/session", {"GET": self.current, "DELETE": self.sign_out}),
            v1_route("/v1/account/sessions", {"GET": self.list, "DELETE": self.end_all}),
            v1_route("/v1/account/sessions/{session_id}", {"DELETE": self.end}),
        ]

    async def sign_in(self, request: Request) -> Response:
        """Check ``username`` and ``password``; open a session and hand out its cookie."""
        # Else another site could sign somebody in to an account of its own.
        self._rules.check_not_foreign(request.scope)
        fields = await read_fields(request)
        username, password = text_field(fields, "username"), text_field(fields, "password")
        checked_at = self._sessions.now()
        account = await self._accounts.login(username, password, address=client_address(request.scope))
        opened = await self.open(request, account, checked_at=checked_at)
        note(request.scope, account=account.account_id, session=opened.session.session_id)
        body = success(
            "登录成功",
            username=account.username,
            csrf_token=csrf_token(opened.token),
            session=_session(opened.session, opened.session.session_id),
        )
        return answer(body, 201, self.handed_out(request, opened))

    async def open(self, request: Request, account: Account, **options: Any) -> OpenSession:
        """Open a session for the browser that asks, in place of the one that it had; see `Sessions.open`."""
        return await self._sessions.open(
            account,
            address=client_address(request.scope),
            user_agent=request.headers.get("user-agent", ""),
            replaced=self._rules.token(request.scope),
            **options,
        )

    def handed_out(self, request: Request, opened: OpenSession) -> dict[str, str]:
        """Return the header with the cookie of a session."""
        return {"Set-Cookie": self._rules.cookie(request.scope, opened.token)}

    def taken_back(self, request: Request) -> dict[str, str]:
        """Return the header that takes the cookie back."""
        return {"Set-Cookie": self._rules.cookie(request.scope, "")}

    async def current(self, request: Request) -> Response:
        """Tell about the session that asks, and its CSRF token: a page that was loaded anew needs it."""
        principal = await self._access.enter(request, Action.USE_SESSION)
        token = self._rules.token(request.scope)
        mine = [
            each
            for each in await self._sessions.of_account(principal.account)
            if each.session_id == principal.session_id
        ]
        if token is None or not mine:
            raise NotSignedIn  # ended at this moment
        body = success(
            "查询成功",
            username=principal.account.username,
            csrf_token=csrf_token(token),
            session=_session(mine[0], principal.session_id),
        )
        return answer(body)

    async def sign_out(self, request: Request) -> Response:
        """End the session that asks."""
        principal = await self._access.enter(request, Action.USE_SESSION)
        await self._sessions.end(principal.account, principal.session_id or "")
        return answer(success("已退出登录"), 200, self.taken_back(request))

    async def list(self, request: Request) -> Response:
        """List the account's sessions, the one used last first."""
        principal = await self._access.enter(request, Action.READ)
        found = await self._sessions.of_account(principal.account)
        return answer(success("查询成功", sessions=[_session(session, principal.session_id) for session in found]))

    async def end(self, request: Request) -> Response:
        """End one session of the account."""
        principal = await self._confirmed(request)
        session_id = request.path_params["session_id"]
        await self._sessions.end(principal.account, session_id)
        return answer(
            success("会话已结束"), 200, self.taken_back(request) if session_id == principal.session_id else None
        )

    async def end_all(self, request: Request) -> Response:
        """End all sessions of the account, the one that asks included."""
        principal = await self._confirmed(request)
        ended = await self._sessions.end_all(principal.account)
        headers = None if principal.session_id is None else self.taken_back(request)
        return answer(success("所有会话已结束", ended=ended), 200, headers)

    async def _confirmed(self, request: Request) -> Principal:
        principal = await self._access.enter(request, Action.END_SESSIONS)
        await self._access.confirm(request, principal, Action.END_SESSIONS, await read_optional_fields(request))
        return principal


def _session(session: Session, current: str | None) -> dict[str, Any]:
    return {
        "id": session.session_id,
        "created_at": told(session.created_at),
        "seen_at": told(session.seen_at),
        "expires_at": told(session.expires_at),
        "address": session.address,
        "user_agent": session.user_agent,
        "is_current": session.session_id == current,
    }
