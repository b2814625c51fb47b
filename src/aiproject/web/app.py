"""The complete ASGI application with all endpoints."""

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
"""The addresses whose websocket handshakes are passed on to the application. Elsewhere an offered upgrade is ignored
and the request is answered as plain HTTP."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The handlers of the documented addresses."""

    auth: AuthRoutes
    calls: Mapping[str, ASGIApp]
    """The endpoints that run calls, by address; each takes ``POST``."""
    vouchers: VoucherRoutes
    usage: UsageRoutes
    more: Sequence[BaseRoute] = ()
    """Routes that their packages build themselves."""


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
    """Return the complete application.

    Args:
        endpoints: the handlers.
        readiness: called by ``/ready``.
        is_sandbox: whether the sandbox answers in place of the platform; ``/health`` reports it.
        cors_origins: origins whose pages may call the API.
        edge_policy: how clients are distinguished, and how often each may call.
        body_timeout: seconds without a byte of a request's body after which its sender is disconnected.
        dialects: the form of errors for each address.
    """

    app = Starlette(routes=documentation_routes())
    # "/health/" is a different address from "/health" and does not exist.
    app.router.redirect_slashes = False

    probe = probes.Probes(readiness, is_sandbox=is_sandbox)

    async def answer_error(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            error = HttpFault(error.status_code, error.headers or {})
        return error_response(request, error)

    async def client_gone(request: Request, error: Exception) -> Response:
        note(request.scope, outcome="client gone")
        return Response(status_code=400)  # never read: the client has disconnected

    app.add_exception_handler(HTTPException, answer_error)
    app.add_exception_handler(AiProjectError, answer_error)
    app.add_exception_handler(ClientGone, client_gone)
    # Without this handler, Starlette would answer a bug in plain text before `RequestsMiddleware` sees it. Starlette
    # raises the exception again afterwards.
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
    """Dispatches calls directly to their endpoints.

    These endpoints answer all of their errors themselves, so Starlette's layers between the application and a route do
    nothing for them, but cost a tenth of a whole chat. The routes are also registered in the router, which answers
    requests with a wrong method or address.
    """

    def __init__(self, calls: Mapping[str, ASGIApp], app: ASGIApp) -> None:
        self._calls = calls
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        endpoint = self._calls.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        return (endpoint or self._app)(scope, receive, send)
