"""An API in as few lines as can be, as an example: a question in plain text, answered in plain text as it comes."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route

from aiproject.adapters.http.asgi import Receive, Scope, Send
from aiproject.adapters.http.bodies import read_body
from aiproject.calls.chat import ChatAnswer
from aiproject.calls.incoming import IncomingCall
from aiproject.calls.services import CallServices
from aiproject.errors import AiProjectError
from aiproject.protocols.chat import ChatMessage, ChatRequest
from aiproject.protocols.dialects import ErrorAnswer, FailedRequest
from aiproject.wiring import Api

__all__ = ["TOY_API"]


class PlainWriter:
    """Implements `ChatWriter`."""

    is_streaming = True

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def write(self, answer: ChatAnswer) -> None:
        try:
            is_complete = False
            while not is_complete:
                events = await answer.receive()
                is_complete = events[-1].is_last
                if is_complete:
                    await answer.settle(answer.text.encode() if answer.is_stored else None)
                await self._piece("".join(event.text for event in events).encode())
        except AiProjectError as error:
            if not self.has_begun:
                raise
            await answer.fail(error)
            await self._piece(f"\n[{type(error).__name__}]".encode())
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def repeat(self, written: bytes) -> None:
        await self._piece(written)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _piece(self, body: bytes) -> None:
        if not self.has_begun:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            self.has_begun = True
        await self._send({"type": "http.response.body", "body": body, "more_body": True})


class Ask:
    """``POST /toy/ask``; errors before the first word are left to the dialect."""

    def __init__(self, services: CallServices) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        with services.running.enter():
            principal = await services.authenticator.of_headers(scope)
            body = await read_body(receive, scope["headers"], limit=65_536)
            request = ChatRequest((ChatMessage("user", body.decode()),), max_tokens=1000)
            await services.chats.run(IncomingCall(scope, receive, principal, body), request, PlainWriter(send))


class PlainDialect:
    """Implements `Dialect`: an error is its name, with a status of two kinds."""

    prefix = "/toy/"

    def render(self, error: BaseException, request: FailedRequest) -> ErrorAnswer:
        is_ours = not isinstance(error, AiProjectError)
        name = "oops" if is_ours else type(error).__name__
        return ErrorAnswer(500 if is_ours else 400, f"{name}\n".encode(), name, b"text/plain")


def _routes(services: CallServices) -> Sequence[BaseRoute]:
    return [Route("/toy/ask", Ask(services), methods=["POST"])]


TOY_API = Api(PlainDialect(), _routes)
