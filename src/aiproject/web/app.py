"""Mounts all endpoints: the whole application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from aiproject.accounts.routes import legacy
from aiproject.accounts.routes.legacy import AuthRoutes
from aiproject.adapters.http.asgi import ASGIApp, Receive, Scope, Send, note
from aiproject.adapters.http.bodies import ClientGone
from aiproject.adapters.http.errors import error_response
from aiproject.adapters.http.operation import route_of
from aiproject.errors import AiProjectError, HttpFault
from aiproject.ledger import routes as usage
from aiproject.ledger.routes import UsageRoutes
from aiproject.protocols.dialects import Dialects
from aiproject.vouchers import routes as vouchers
from aiproject.vouchers.routes import VoucherRoutes
from aiproject.web import probes
from aiproject.web.dialects import DIALECTS
from aiproject.web.documentation import documentation_routes
from aiproject.web.middleware import BODY_TIMEOUT, OPEN, EdgePolicy, with_middleware
from aiproject.web.pages import WithPages
from aiproject.web.probes import Readiness

__all__ = ["WEBSOCKET_PATHS", "Endpoints", "Readiness", "build_app"]

WEBSOCKET_PATHS = frozenset[str]()
"""Where a handshake is passed on to the application. An offer of a websocket anywhere else is answered as the plain
request that it also is, so that there is nothing to refuse."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What stands behind the documented addresses."""

    auth: AuthRoutes
    calls: Mapping[str, ASGIApp]
    """The endpoints that run calls, by address; each takes ``POST``."""
    vouchers: VoucherRoutes
    usage: UsageRoutes
    more: Sequence[BaseRoute] = ()
    """Routes that their packages make themselves."""


def build_app(
    endpoints: Endpoints,
    *,
    readiness: Callable[[], Awaitable[Readiness]],
    is_sandbox: bool,
    cors_origins: Sequence[str],
    edge_policy: EdgePolicy = OPEN,
    body_timeout: float = BODY_TIMEOUT,
    dialects: Dialects = DIALECTS,
) -> ASGIApp:
    """Return the whole application.

    Args:
        readiness: asked by ``/ready``.
        is_sandbox: whether the sandbox answers instead of the platform; ``/health`` says so.
        edge_policy: how clients are distinguished, and how often each may call.
        body_timeout: seconds without a byte of a request's body until its sender is cut.
        dialects: how each address answers errors.
    """

    app = Starlette(routes=documentation_routes())
    # "/health/" is another address than "/health", and not there.
    app.router.redirect_slashes = False

    probe = probes.Probes(readiness, is_sandbox=is_sandbox)

    async def answer_error(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            error = HttpFault(error.status_code, error.headers or {})
        return error_response(request, error)

    async def client_gone(request: Request, error: Exception) -> Response:
        note(request.scope, outcome="client gone")
        return Response(status_code=400)  # nobody reads it

    app.add_exception_handler(HTTPException, answer_error)
    app.add_exception_handler(AiProjectError, answer_error)
    app.add_exception_handler(ClientGone, client_gone)
    # Starlette answers a bug in plain text otherwise, before `RequestsMiddleware` sees it; it raises it again
    # afterwards.
    app.add_exception_handler(Exception, answer_error)
    app.router.routes += [
        route_of(legacy.REGISTER, endpoints.auth.register),
        route_of(legacy.LOGIN, endpoints.auth.login),
        *(Route(path, endpoint, methods=["POST"]) for path, endpoint in endpoints.calls.items()),
        route_of(vouchers.REDEEM, endpoints.vouchers.redeem),
        route_of(usage.ENTRIES, endpoints.usage.entries),
        route_of(usage.SHOW, endpoints.usage.receipt),
        route_of(probes.HEALTH, probe.health),
        route_of(probes.READY, probe.ready),
        *endpoints.more,
    ]
    served = CallsFirst(endpoints.calls, WithPages(app))
    return with_middleware(served, cors_origins, edge_policy, body_timeout=body_timeout, dialects=dialects)


class CallsFirst:
    """Hands calls straight to their endpoints.

    They answer every fault of theirs themselves, so that the layers between the application and a route have nothing
    to do for them, and those cost a tenth of a whole chat. The routes stay listed in the router as well, which
    answers what is wrong with the method or the address.
    """

    def __init__(self, calls: Mapping[str, ASGIApp], app: ASGIApp) -> None:
        self._calls = calls
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        endpoint = self._calls.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        return (endpoint or self._app)(scope, receive, send)
