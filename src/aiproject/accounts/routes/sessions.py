"""``/v1/sessions``, ``/v1/account/session`` and ``/v1/account/sessions``: browsers sign in and out."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiproject.accounts.core.model import Account
from aiproject.accounts.core.service import Accounts
from aiproject.accounts.identity.authorizer import Authorizer
from aiproject.accounts.principal.permissions import Action
from aiproject.accounts.principal.principal import Principal
from aiproject.accounts.routes.field_types import Confirmation, CsrfToken, Password, Username
from aiproject.accounts.routes.operations import NOBODY, TAG, failures, owner
from aiproject.accounts.sessions.cookies import BrowserRules, csrf_token
from aiproject.accounts.sessions.service import OpenSession, Session, Sessions
from aiproject.adapters.http.asgi import client_address, note
from aiproject.adapters.http.operation import Answer, BodyOperation, Operation, routes_of, succeed
from aiproject.adapters.http.timestamps import Timestamp, format_timestamp
from aiproject.codes import Success
from aiproject.errors import LoginFailed, NotAllowed, NotFound, NotSignedIn

__all__ = ["OPERATIONS", "SessionRoutes"]


class SignIn(Struct, kw_only=True):
    """The name and password of an account."""

    username: Username
    password: Password


class BrowserSession(Struct, kw_only=True):
    """A browser's session as its owner sees it."""

    id: Annotated[str, Meta(description="会话的公开名称，不是凭证", examples=["5f0c6e2b9a7d4813"])]
    created_at: Annotated[Timestamp, Meta(description="登录的时间")]
    seen_at: Annotated[Timestamp, Meta(description="最近一次使用，精确到分钟")]
    expires_at: Annotated[Timestamp, Meta(description="最迟在此时结束")]
    address: Annotated[str, Meta(description="登录时的 IP 地址", examples=["192.0.2.7"])]
    user_agent: Annotated[str, Meta(description="登录时的浏览器", examples=["Mozilla/5.0"])]
    is_current: Annotated[bool, Meta(description="是否为发出此请求的会话")]


class SignedIn(Struct, kw_only=True):
    """The current session of a browser."""

    username: Username
    csrf_token: CsrfToken
    session: BrowserSession


class SessionList(Struct, kw_only=True):
    """The sessions of an account, the one used last first."""

    sessions: list[BrowserSession]


class EndedSessions(Struct, kw_only=True):
    """How many sessions were ended."""

    ended: Annotated[int, Meta(description="结束的会话数", examples=[2])]


SESSION = BrowserSession(
    id="5f0c6e2b9a7d4813",
    created_at="2026-03-01T12:30:45.123Z",
    seen_at="2026-03-01T12:41:02.000Z",
    expires_at="2026-03-31T12:30:45.123Z",
    address="192.0.2.7",
    user_agent="Mozilla/5.0",
    is_current=True,
)
SIGNED_IN = SignedIn(
    username="小明",
    csrf_token="9f2c7d4e8a4f7f9a3d5c1e6b8a7f200b9f2c7d4e8a4f7f9a3d5c1e6b8a7f200b",  # noqa: S106 - an example
    session=SESSION,
)
CLEARS_COOKIE = {"Set-Cookie": "清除会话的 Cookie"}

SIGN_IN = BodyOperation(
    name="signIn",
    method="POST",
    path="/v1/sessions",
    summary="浏览器登录",
    tag=TAG,
    access=NOBODY,
    failures=failures(LoginFailed(), NotAllowed()),
    request=SignIn,
    examples={"例": {"username": "小明", "password": "correct horse"}},
    answers=(
        Answer(
            status=201, message=Success.SIGNED_IN, body=SIGNED_IN, headers={"Set-Cookie": "HttpOnly; SameSite=Strict"}
        ),
    ),
)
CURRENT = Operation(
    name="showSession",
    method="GET",
    path="/v1/account/session",
    summary="当前会话",
    tag=TAG,
    access=owner(Action.USE_SESSION, changes=False),
    answers=(Answer(message=Success.FOUND, body=SIGNED_IN),),
)
SIGN_OUT = Operation(
    name="signOut",
    method="DELETE",
    path="/v1/account/session",
    summary="退出登录",
    tag=TAG,
    access=owner(Action.USE_SESSION),
    answers=(Answer(message=Success.SIGNED_OUT, headers=CLEARS_COOKIE),),
)
LIST = Operation(
    name="listSessions",
    method="GET",
    path="/v1/account/sessions",
    summary="会话列表",
    tag=TAG,
    access=owner(Action.READ, changes=False),
    answers=(Answer(message=Success.FOUND, body=SessionList(sessions=[SESSION])),),
)
END_ALL = BodyOperation(
    name="endSessions",
    method="DELETE",
    path="/v1/account/sessions",
    summary="结束所有会话",
    tag=TAG,
    access=owner(Action.END_SESSIONS),
    request=Confirmation,
    is_required=False,
    examples={"例": {"password": "correct horse"}},
    answers=(Answer(message=Success.SESSIONS_ENDED, body=EndedSessions(ended=2)),),
)
END = BodyOperation(
    name="endSession",
    method="DELETE",
    path="/v1/account/sessions/{session_id}",
    summary="结束一个会话",
    tag=TAG,
    path_parameters={"session_id": "会话的 id"},
    access=owner(Action.END_SESSIONS),
    failures=failures(NotFound()),
    request=Confirmation,
    is_required=False,
    examples={"例": {"password": "correct horse"}},
    answers=(Answer(message=Success.SESSION_ENDED),),
)

OPERATIONS = (SIGN_IN, CURRENT, SIGN_OUT, LIST, END_ALL, END)
"""For the description, see `aiproject.web.openapi`."""


class SessionRoutes:
    """The endpoints; `aiproject.web` mounts `routes`."""

    def __init__(self, accounts: Accounts, sessions: Sessions, rules: BrowserRules, access: Authorizer) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._rules = rules
        self._access = access

    def routes(self) -> list[Route]:
        """Return the routes."""
        return routes_of(
            (
                (SIGN_IN, self.sign_in),
                (CURRENT, self.current),
                (SIGN_OUT, self.sign_out),
                (LIST, self.list),
                (END_ALL, self.end_all),
                (END, self.end),
            )
        )

    async def sign_in(self, request: Request) -> Response:
        """Check ``username`` and ``password``; open a session and set its cookie."""
        # Otherwise another site could sign a visitor in to an account of its own (login CSRF).
        self._rules.check_not_foreign(request.scope)
        shown = await SIGN_IN.read(request)
        checked_at = self._sessions.now()
        address = client_address(request.scope)
        account = await self._accounts.login(shown.username, shown.password, address=address)
        opened = await self.open(request, account, checked_at=checked_at)
        note(request.scope, account=account.account_id, session=opened.session.session_id)
        signed_in = SignedIn(
            username=account.username,
            csrf_token=csrf_token(opened.token),
            session=_session(opened.session, opened.session.session_id),
        )
        return succeed(request, Success.SIGNED_IN, signed_in, status=201, headers=self.cookie_header(request, opened))

    async def open(self, request: Request, account: Account, **options: Any) -> OpenSession:
        """Open a session for the requesting browser, replacing the one it had; see `Sessions.open`."""
        return await self._sessions.open(
            account,
            address=client_address(request.scope),
            user_agent=request.headers.get("user-agent", ""),
            replaced=self._rules.token(request.scope),
            **options,
        )

    def cookie_header(self, request: Request, opened: OpenSession) -> dict[str, str]:
        """Return the header that sets the cookie of a session."""
        return {"Set-Cookie": self._rules.cookie(request.scope, opened.token)}

    def expired_cookie_header(self, request: Request) -> dict[str, str]:
        """Return the header that makes the browser drop the cookie."""
        return {"Set-Cookie": self._rules.cookie(request.scope, "")}

    async def current(self, request: Request) -> Response:
        """Return the current session and its CSRF token, which a page needs after a reload."""
        principal = await self._access.enter(request, Action.USE_SESSION)
        token = self._rules.token(request.scope)
        mine = [
            each
            for each in await self._sessions.of_account(principal.account)
            if each.session_id == principal.session_id
        ]
        if token is None or not mine:
            raise NotSignedIn  # ended at this moment
        signed_in = SignedIn(
            username=principal.account.username,
            csrf_token=csrf_token(token),
            session=_session(mine[0], principal.session_id),
        )
        return succeed(request, Success.FOUND, signed_in)

    async def sign_out(self, request: Request) -> Response:
        """End the current session."""
        principal = await self._access.enter(request, Action.USE_SESSION)
        await self._sessions.end(principal.account, principal.session_id or "")
        return succeed(request, Success.SIGNED_OUT, headers=self.expired_cookie_header(request))

    async def list(self, request: Request) -> Response:
        """List the account's sessions, the one used last first."""
        principal = await self._access.enter(request, Action.READ)
        found = await self._sessions.of_account(principal.account)
        listed = SessionList(sessions=[_session(session, principal.session_id) for session in found])
        return succeed(request, Success.FOUND, listed)

    async def end(self, request: Request) -> Response:
        """End one session of the account."""
        principal = await self._confirmed(request, END)
        session_id = request.path_params["session_id"]
        await self._sessions.end(principal.account, session_id)
        headers = self.expired_cookie_header(request) if session_id == principal.session_id else None
        return succeed(request, Success.SESSION_ENDED, headers=headers)

    async def end_all(self, request: Request) -> Response:
        """End all sessions of the account, including the current one."""
        principal = await self._confirmed(request, END_ALL)
        ended = await self._sessions.end_all(principal.account)
        headers = None if principal.session_id is None else self.expired_cookie_header(request)
        return succeed(request, Success.SESSIONS_ENDED, EndedSessions(ended=ended), headers=headers)

    async def _confirmed(self, request: Request, operation: BodyOperation[Confirmation]) -> Principal:
        principal = await self._access.enter(request, Action.END_SESSIONS)
        shown = await operation.read(request)
        await self._access.confirm(request, principal, Action.END_SESSIONS, shown.password)
        return principal


def _session(session: Session, current: str | None) -> BrowserSession:
    return BrowserSession(
        id=session.session_id,
        created_at=format_timestamp(session.created_at),
        seen_at=format_timestamp(session.seen_at),
        expires_at=format_timestamp(session.expires_at),
        address=session.address,
        user_agent=session.user_agent,
        is_current=session.session_id == current,
    )
