"""What every address of the administration checks first: the JWT, and the role."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from aiproject.adapters.http.asgi import client_address, note, request_id
from aiproject.adapters.http.errors import error_response
from aiproject.adapters.http.json import answer
from aiproject.administration.jwts import Kind, bearer
from aiproject.administration.model import NotPermitted, is_allowed
from aiproject.administration.service import Administrators, Session
from aiproject.audit.model import Actor, ActorKind, AuditContext
from aiproject.errors import AiProjectError

__all__ = ["AuthGuard", "Call", "Handler"]


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was admitted.

    Attributes:
        origin: who calls, and from where, for the audit log.
    """

    request: Request
    session: Session
    origin: AuditContext


Handler = Callable[[Call], Awaitable[Mapping[str, Any] | Response]]


class AuthGuard:
    """Admits calls by their JWT and its administrator's role, or refuses them."""

    def __init__(self, administrators: Administrators) -> None:
        self._administrators = administrators

    def protect(self, handler: Handler, *, kind: Kind = "access") -> Callable[[Request], Awaitable[Response]]:
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
                return error_response(request, error)

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
