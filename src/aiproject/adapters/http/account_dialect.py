"""What the endpoints under ``/v1`` share: one route for all methods of an address, and errors in its dialect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiproject.adapters.http.asgi import note
from aiproject.adapters.http.errors import error_response
from aiproject.errors import AiProjectError

__all__ = ["Handler", "v1_route"]

Handler = Callable[[Request], Awaitable[Response]]
"""Answers a request; what it raises of the error tree becomes an answer in the dialect of ``/v1``."""


def v1_route(path: str, handlers: Mapping[str, Handler]) -> Route:
    """Return the route of an address.

    One for all methods, so that the answer to another method lists those that exist.

    Args:
        handlers: by method; a handler of ``GET`` answers ``HEAD``, too.
    """

    async def endpoint(request: Request) -> Response:
        handler = handlers["GET" if request.method == "HEAD" else request.method]
        try:
            response = await handler(request)
        except AiProjectError as error:
            return error_response(request, error)
        note(request.scope, outcome="ok")
        return response

    return Route(path, endpoint, methods=list(handlers))
