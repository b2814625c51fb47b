"""What every address of the administration passes: the JWT, the role, and the shapes of refusals.

HTTP 200 with a code for what is refused, as the original's console reads it; 401 and 422 with ``msg`` alone where its
JWT layer refuses. Source: the original's clients, section 8.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from aiproject.adapters.http.asgi import client_address, note, request_id
from aiproject.adapters.http.json import answer, answer_failure
from aiproject.administration.jwts import Kind, bearer
from aiproject.administration.model import JwtRefused, NotPermitted, is_allowed
from aiproject.administration.service import Administrators, Session
from aiproject.audit.model import Actor, ActorKind, AuditContext
from aiproject.codes import Code
from aiproject.errors import (
    AiProjectError,
    BodyEncoded,
    BodyTooLarge,
    BodyTooSlow,
    InvalidInput,
    Misconfigured,
    TooManyRequests,
    Unavailable,
)
from aiproject.messages.formatting import Language, format_message

__all__ = ["Call", "Door", "Refusals", "Told", "told"]

Told = tuple[Code, str]
"""A code and its message."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was let in.

    Attributes:
        origin: who calls, and whence, for the audit log.
    """

    request: Request
    session: Session
    origin: AuditContext


@dataclass(frozen=True, slots=True)
class Refusals:
    """How one address tells what it refuses.

    Attributes:
        otherwise: for everything that is not in ``known``; the reason is added where there is one in Chinese.
    """

    otherwise: Told
    known: Mapping[type[AiProjectError], Told] = field(default_factory=dict)

    def of(self, error: AiProjectError) -> Told:
        for kind, told in self.known.items():
            if isinstance(error, kind):
                return told
        if isinstance(error, NotPermitted):
            return Code.PERMISSION_NOT_ALLOW, format_message(Code.PERMISSION_NOT_ALLOW, Language.ZH)
        code, msg = self.otherwise
        detail = error.detail if isinstance(error, InvalidInput) else ""
        # What the command line says in English is not for the console.
        return code, msg if not detail or detail.isascii() else f"{msg}：{detail}"


Handler = Callable[[Call], Awaitable[Mapping[str, Any] | Response]]


class Door:
    """Lets calls in, or tells why not."""

    def __init__(self, administrators: Administrators) -> None:
        self._administrators = administrators

    def behind(
        self, handler: Handler, refusals: Refusals, *, kind: Kind = "access"
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that calls ``handler`` for those whose JWT is good and whose role is allowed to.

        Args:
            kind: which of the two tokens it takes.
        """

        async def endpoint(request: Request) -> Response:
            try:
                session = await self._administrators.authenticate(
                    bearer(request.headers.get("authorization")), kind
                )  # fmt: skip
                return await self._admitted(request, session, handler)
            except AiProjectError as error:
                return told(request, error, refusals)

        return endpoint

    async def _admitted(self, request: Request, session: Session, handler: Handler) -> Response:
        administrator = session.administrator
        note(request.scope, administrator=administrator.admin_id, role=str(administrator.role))
        # HEAD, which comes with every GET route, is not listed: one of these GETs changes something.
        if not is_allowed(administrator.role, request.method, request.url.path):
            raise NotPermitted
        origin = AuditContext(
            Actor(ActorKind.ADMINISTRATOR, administrator.name),
            client_address(request.scope),
            request_id(request.scope),
        )
        result = await handler(Call(request, session, origin))
        note(request.scope, outcome="ok")
        return result if isinstance(result, Response) else answer(result)


def told(request: Request, error: AiProjectError, refusals: Refusals) -> Response:
    """Return how an address tells ``error``, and leave it in the log's line."""
    if isinstance(error, JwtRefused):
        note(request.scope, outcome="jwt refused", error=str(error))
        return answer({"msg": error.detail}, error.status, {"WWW-Authenticate": "Bearer"})
    if isinstance(error, BodyEncoded | BodyTooLarge | BodyTooSlow | TooManyRequests | Unavailable | Misconfigured):
        return answer_failure(request, error, Code.APP_INTERNAL_ERROR)
    code, msg = refusals.of(error)
    note(request.scope, outcome=str(code), error=type(error).__name__)
    return answer({"code": str(code), "msg": msg})
