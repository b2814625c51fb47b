"""``POST /v1/chat/completions``: a chat, answered whole or as server-sent events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from aiproject.accounts.identity.authenticator import bearer_of
from aiproject.accounts.principal.principal import Principal
from aiproject.adapters.http.asgi import Receive, Scope, Send, note, request_id, send_json
from aiproject.adapters.http.bodies import read_body
from aiproject.adapters.http.errors import note_error
from aiproject.api.endpoint import Endpoint, read_identified
from aiproject.api.openai.models import Models
from aiproject.api.stream import ChunkedStream
from aiproject.calls.chat import ChatAnswer
from aiproject.calls.incoming import IncomingCall
from aiproject.calls.services import CallServices
from aiproject.errors import AiProjectError, NotSignedIn
from aiproject.ledger.model import Meter
from aiproject.protocols.chat import ChatEvent, ChatRequest, FinishReason, Usage
from aiproject.protocols.openai.answer import DONE, ChunkMaker, completion
from aiproject.protocols.openai.request import read_chat_completion, to_chat

__all__ = ["ChatCompletions"]

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""Bytes of a request; pictures stand in it as text. The smallest budget for bodies has room for one, see
`aiproject.adapters.http.receive_budget.MIN_BUDGET_BYTES`."""


class ChatCompletions(Endpoint):
    """The endpoint.

    Args:
        models: the public names.
        default_tokens: completion limit of a request that names none.
    """

    def __init__(self, services: CallServices, models: Models, default_tokens: int) -> None:
        super().__init__(services.running)
        self._services = services
        self._models = models
        self._default_tokens = default_tokens

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal, body = await read_identified(
            scope,
            receive,
            lambda: self._principal(scope),
            lambda: read_body(receive, scope["headers"], limit=MAX_BODY_BYTES),
        )
        asked = read_chat_completion(body)
        limits = self._models.limits(asked.model)
        request = to_chat(asked, self._default_tokens, limits.completion)
        writer = (
            _ChunkWriter(scope, send, request, includes_usage=asked.includes_usage)
            if asked.stream
            else _CompletionWriter(scope, send, request)
        )
        await self._services.chats.run(IncomingCall(scope, receive, principal, body), request, writer)

    async def _principal(self, scope: Scope) -> Principal:
        # A browser's cookie does not count: any site could have its visitor's browser send it.
        if bearer_of(scope) is None:
            raise NotSignedIn
        principal = await self._services.authenticator.of_headers(scope)
        principal.require(Meter.TOKENS, self._services.chats.model)
        return principal


def _finish_reason(events: Sequence[ChatEvent], request: ChatRequest, usage: Usage) -> FinishReason:
    """Return why an answer ended; some providers do not tell one that reached its limit from one that was done."""
    reason = events[-1].finish_reason or FinishReason.STOP
    is_full = usage.total_tokens - usage.prompt_tokens >= request.max_tokens
    return FinishReason.LENGTH if reason is FinishReason.STOP and is_full else reason


class _CompletionWriter:
    """Writes an answer as one object. Implements `ChatWriter`."""

    is_streaming = False

    def __init__(self, scope: Scope, send: Send, request: ChatRequest) -> None:
        self._scope = scope
        self._send = send
        self._request = request

    async def write(self, answer: ChatAnswer) -> None:
        events: list[ChatEvent] = []
        while not answer.is_complete:
            events += await answer.receive()
        usage = answer.usage
        reason = _finish_reason(events, self._request, usage)
        body = completion(request_id(self._scope), int(time.time()), self._request.model, events, usage, reason)
        await answer.settle(body)
        note(self._scope, outcome="ok")
        await send_json(self._send, 200, body)

    async def repeat(self, written: bytes) -> None:
        await send_json(self._send, 200, written)


class _ChunkWriter:
    """Writes an answer as server-sent events. Implements `ChatWriter`."""

    is_streaming = True

    def __init__(self, scope: Scope, send: Send, request: ChatRequest, *, includes_usage: bool) -> None:
        self._scope = scope
        self._request = request
        self._includes_usage = includes_usage
        self._make = ChunkMaker(request_id(scope), int(time.time()), request.model, includes_usage=includes_usage)
        self._out = ChunkedStream(scope, send)

    async def write(self, answer: ChatAnswer) -> None:
        out, make = self._out, self._make
        kept: list[bytes] = []
        events: Sequence[ChatEvent] = ()
        try:
            is_whole = False
            while not is_whole:
                events = await answer.receive()
                is_whole = events[-1].is_last
                chunks = [chunk for event in events if (chunk := make.chunk(event)) is not None]
                if answer.is_stored:
                    kept += chunks
                await out.send(chunks)
            usage = answer.usage
            last = [make.last(_finish_reason(events, self._request, usage))]
            if self._includes_usage:
                last.append(make.usage(usage))
            # Charged before the client holds all of it: a client that counts for itself never asks again.
            await answer.settle(b"\n".join([*kept, *last]) if answer.is_stored else None)
            note(self._scope, outcome="ok", frames=out.count + len(last))
            await out.end([*last, DONE])
        except AiProjectError as error:
            if not out.count:
                raise
            await answer.fail(error)
            await out.end([note_error(self._scope, error).body])

    async def repeat(self, written: bytes) -> None:
        await self._out.end([*written.split(b"\n"), DONE])
