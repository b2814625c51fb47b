"""Middleware for every request: a request id, a log line, CORS, limits on the body, and a JSON response to a bug."""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from aiproject.adapters.http.asgi import (
    RECORD,
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    answer_headers,
    client_address,
    client_site,
    is_received,
)
from aiproject.adapters.http.errors import DIALECTS_KEY, note_error, send_error
from aiproject.adapters.http.rate_limiter import RateLimiter
from aiproject.adapters.http.receive_budget import FREE_BYTES, ReceiveBudget
from aiproject.adapters.http.receiving import BudgetedReceive, PacedReceive
from aiproject.adapters.log import get_logger
from aiproject.errors import AiProjectError, BodyEncoded, HttpFault
from aiproject.protocols.dialects import Dialects
from aiproject.protocols.forwarding import TrustedProxies
from aiproject.web.dialects import DIALECTS
from aiproject.web.forwarding import Forwarding
from aiproject.web.limits import AddressLimits
from aiproject.web.websockets import answer_faults, log_websocket

__all__ = ["BODY_TIMEOUT", "OPEN", "EdgePolicy", "with_middleware"]

log = get_logger("web")

QUIET_PATHS = frozenset({"/health", "/ready"})
"""Paths that probes request every few seconds; logged at level debug."""

BODY_TIMEOUT = 30.0
"""The default timeout: seconds without a byte of a request's body."""

MAX_LENGTH_DIGITS = 18
"""Digits of a ``Content-Length`` that is read as a number; Python refuses to convert thousands of them."""

_CREDENTIAL = re.compile(r"(sk-[0-9A-Za-z]{10})[0-9A-Za-z]{8,}|[\w.-]{32,}")
"""Matches API keys, whose prefix may be logged, and uuids, tokens and JWTs. No segment of AiProject's own paths is as
long."""

NOSNIFF = (b"x-content-type-options", b"nosniff")
TLS_ONLY = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")


@dataclass(frozen=True, slots=True)
class EdgePolicy:
    """How clients are identified, how often each may call, and how much memory bodies may take.

    Attributes:
        proxies: the proxies whose forwarding headers are trusted.
        rate_limiter: ``None``: no limits.
        address_requests_per_minute: the limit for each address.
        budget: the memory for request bodies; ``None``: unlimited.
    """

    proxies: TrustedProxies
    rate_limiter: RateLimiter | None
    address_requests_per_minute: int
    budget: ReceiveBudget | None = None


class RequestsMiddleware:
    """The outermost layer: every request gets an id, which its response carries, and a log line."""

    def __init__(self, app: ASGIApp, dialects: Dialects = DIALECTS) -> None:
        self._dialects = dialects
        self._app = app
        self._request_ids = _request_ids()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        identity = next(self._request_ids)
        record: dict[str, object] = {"request_id": identity}
        scope[RECORD] = record
        scope[DIALECTS_KEY] = self._dialects
        # Inner layers may add header fields to it until the response starts.
        headers = answer_headers(scope)
        headers[b"x-request-id"] = identity.encode()
        if scope["type"] == "websocket":
            await log_websocket(self._app, scope, receive, send, path_to_log)
            return
        status = 0
        began = time.perf_counter()

        def send_with_id(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *headers.items(), NOSNIFF]
                if scope["scheme"] == "https":
                    message["headers"].append(TLS_ONLY)
            return send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            write = log.debug if scope["path"] in QUIET_PATHS else log.info
            write(
                "request",
                method=scope["method"],
                path=path_to_log(scope["path"]),
                client=client_address(scope),
                status=status,
                ms=round((time.perf_counter() - began) * 1000, 1),
                **record,
            )


def _request_ids() -> Iterator[str]:
    """Yield 24 hexadecimal digits for each request: 11 for the clock's milliseconds, and 13 random ones.

    Ids in the order of time are adjacent in the index of the holds; with fully random ids, nearly every insertion would
    write a page of its own. Random digits are requested from the system for 128 ids at a time: each request releases
    the interpreter lock, and while another thread is busy (SQLite's) it takes some time to get it back.
    """
    while True:
        drawn = secrets.token_hex(13 * 128)
        for start in range(0, len(drawn), 13):
            yield f"{time.time_ns() // 1_000_000:011x}{drawn[start : start + 13]}"


def path_to_log(path: str) -> str:
    """Return a path without possible credentials: clients may send a whole key where its public prefix belongs."""
    return _CREDENTIAL.sub(lambda found: f"{found[1] or ''}…", path)


class FaultsMiddleware:
    """Turns any exception into a JSON response. It runs inside CORS, so that browsers may read the response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await answer_faults(self._app, scope, receive, send, partial(self._report_bug, scope))
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        def watched_send(message: Message) -> Awaitable[None]:
            nonlocal has_started
            has_started = True
            return send(message)

        try:
            await self._app(scope, receive, watched_send)
        except AiProjectError as error:
            await self._answer(scope, send, error, has_started=has_started)
        except Exception as error:  # noqa: BLE001 - answered as 500, logged loudly
            self._report_bug(scope, error)
            await self._answer(scope, send, error, has_started=has_started)

    def _report_bug(self, scope: Scope, error: Exception) -> None:
        # Only the place in the code is logged: an exception's text may quote the caller's input.
        path = path_to_log(scope["path"])
        log.error("bug", error=type(error).__name__, where=_where(error), path=path, **scope[RECORD])

    async def _answer(self, scope: Scope, send: Send, error: Exception, *, has_started: bool) -> None:
        if has_started:
            note_error(scope, error)
        else:
            await send_error(scope, send, error)


class BodiesMiddleware:
    """Limits the request bodies of all endpoints: they must not be encoded, too slow, or exceed the memory budget.

    Args:
        timeout: seconds without a byte after which the sender is disconnected.
        budget: ``None``: bodies may take any amount of memory.
    """

    def __init__(self, app: ASGIApp, timeout: float, budget: ReceiveBudget | None = None) -> None:
        self._app = app
        self._timeout = timeout
        self._budget = budget

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # The usual request gets no additional coroutine: whenever a call resumes, every coroutine around it is resumed
        # as well.
        size = _body_size(scope["headers"]) if scope["type"] == "http" else 0
        if size == 0 or (size <= FREE_BYTES and is_received(scope)):
            return self._app(scope, receive, send)
        if self._budget is None or size <= FREE_BYTES:
            return self._app(scope, PacedReceive(receive, self._timeout), send)
        return self._within(self._budget, scope, receive, send)

    async def _within(self, budget: ReceiveBudget, scope: Scope, receive: Receive, send: Send) -> None:
        with budget.enter(client_site(scope)) as body:
            await self._app(scope, BudgetedReceive(receive, self._timeout, body), send)


def _body_size(headers: Iterable[tuple[bytes, bytes]]) -> float:
    """Return the announced size of the body in bytes; infinite: unknown.

    Raises:
        BodyEncoded: the body is compressed or otherwise encoded.
    """
    size = 0.0
    for name, value in headers:
        if name == b"content-length":
            size = max(size, int(value)) if value.isdigit() and len(value) <= MAX_LENGTH_DIGITS else math.inf
        elif name == b"transfer-encoding":
            size = math.inf
            if value.strip().lower() != b"chunked":
                raise BodyEncoded
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise BodyEncoded
    return size


class _WithoutOrigin:
    """Bypasses CORS for calls of apps, since only browsers need it.

    Responses to POST are not cached, so they need no ``Vary: Origin``.
    """

    def __init__(self, app: ASGIApp, cors: ASGIApp) -> None:
        self._app = app
        self._cors = cors

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["method"] == "POST":
            for name, _ in scope["headers"]:
                if name == b"origin":
                    break
            else:
                return self._app(scope, receive, send)
        return self._cors(scope, receive, send)


class _Cors(CORSMiddleware):
    """Starlette's CORS middleware, with refused preflights answered in the address's dialect like every other error."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        return _RefusedPreflight(
            [(name, value) for name, value in response.raw_headers if not name.startswith(b"content-")]
        )


class _RefusedPreflight(Response):
    """The response to a preflight that CORS refuses: an HTTP error with the header fields of CORS."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        super().__init__(status_code=400)
        self._cors_headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_error(scope, send, HttpFault(400), headers=self._cors_headers)


OPEN = EdgePolicy(TrustedProxies(()), None, 0)
"""No proxies, no limits."""


def with_middleware(
    app: ASGIApp,
    origins: Sequence[str],
    edge_policy: EdgePolicy = OPEN,
    *,
    body_timeout: float = BODY_TIMEOUT,
    dialects: Dialects = DIALECTS,
) -> ASGIApp:
    """Wrap the application in the middleware for every request.

    Args:
        app: the application.
        origins: origins whose pages may make calls that are authorised by header or body, never with cookies.
        edge_policy: proxies, limits and memory.
        body_timeout: seconds without a byte of a request's body after which its sender is disconnected.
        dialects: the form of errors for each address.
    """
    if edge_policy.rate_limiter is not None:
        app = AddressLimits(app, edge_policy.rate_limiter, edge_policy.address_requests_per_minute)
    checked = FaultsMiddleware(BodiesMiddleware(app, body_timeout, edge_policy.budget))
    cors = _Cors(
        checked,
        allow_origins=list(origins),
        allow_methods=["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"],
        allow_headers=["*"],
        allow_credentials=False,
        expose_headers=["X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy"],
        max_age=600,
    )
    with_all = RequestsMiddleware(_WithoutOrigin(checked, cors), dialects)
    return Forwarding(with_all, edge_policy.proxies) if edge_policy.proxies else with_all


def _where(error: BaseException) -> list[str]:
    places = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return places[-12:]
