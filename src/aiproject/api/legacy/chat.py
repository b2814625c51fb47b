"""``/textModel/chat`` and ``/textModel/stream``: a question, answered in one piece or frame by frame."""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

import msgspec

from aiproject.accounts.identity.authenticator import Authenticator, bearer_of
from aiproject.accounts.principal.principal import Principal
from aiproject.adapters.http.asgi import Receive, Scope, Send, note, send_json
from aiproject.adapters.http.bodies import read_body
from aiproject.adapters.http.errors import note_error
from aiproject.adapters.http.receive_budget import FREE_BYTES
from aiproject.api.endpoint import Endpoint, read_identified
from aiproject.api.legacy.bodies import BrowserChat, ChatBody, DialogMessage, KeyChat, PairChat
from aiproject.api.stream import ChunkedStream
from aiproject.calls.chat import ChatAnswer, ChatCalls, ChatWriter
from aiproject.calls.incoming import IncomingCall
from aiproject.calls.running import RunningCalls
from aiproject.codes import Detail, Success
from aiproject.errors import AiProjectError, InvalidInput
from aiproject.ledger.model import Meter
from aiproject.messages.formatting import Language, format_message
from aiproject.protocols.chat import ChatMessage, ChatRequest
from aiproject.protocols.iflytek.spark.frames import error_frame, render, with_usage
from aiproject.protocols.legacy import error_number, failure_of, json_bytes, success

__all__ = ["ChatDefaults", "TextChat", "TextStream"]

JSON_LINES: Final = b"application/json; charset=utf-8"
"""Media type of a stream of frames, one a line, as the legacy API has it."""

ANSWERED: Final = format_message(Success.CHAT_ANSWERED, Language.ZH)

MAX_DIALOG_BYTES = 2 * 1024 * 1024
"""Bytes of a body. A dialog that fills the largest context (128K tokens, about 200,000 Chinese characters) has 600 KB
in UTF-8."""

MAX_MESSAGES = 2000
"""Messages of a dialog. This bounds the work and is far above what any context holds."""


_decode_call = msgspec.json.Decoder(PairChat).decode
_decode_key_call = msgspec.json.Decoder(KeyChat).decode
_decode_browser_call = msgspec.json.Decoder(BrowserChat).decode


class ChatDefaults(msgspec.Struct, frozen=True):
    """The parameters of the question that the legacy API has no fields for; see `ChatRequest`."""

    max_tokens: int
    temperature: float
    top_k: int


class _TextEndpoint(Endpoint):
    """Parses a call to either address and runs it."""

    def __init__(
        self, running: RunningCalls, authenticator: Authenticator, calls: ChatCalls, defaults: ChatDefaults
    ) -> None:
        super().__init__(running)
        self._authenticator = authenticator
        self._calls = calls
        self._defaults = defaults

    @abstractmethod
    def writer(self, scope: Scope, send: Send) -> ChatWriter:
        """Return the writer of one answer."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        known, body = await self._read(scope, receive)
        principal, dialog = await self._principal_and_dialog(scope, known, body)
        messages = tuple(ChatMessage(message.role, message.content) for message in dialog)
        defaults = self._defaults
        request = ChatRequest(messages, defaults.max_tokens, defaults.temperature, defaults.top_k)
        await self._calls.run(IncomingCall(scope, receive, principal, body), request, self.writer(scope, send))

    async def _principal_and_dialog(
        self, scope: Scope, known: Principal | None, body: bytes
    ) -> tuple[Principal, list[DialogMessage]]:
        """Return the caller and the dialog.

        A decoded dialog takes up to four times the memory of its body, which the receive budget does not count. A large
        one is therefore discarded while the caller is looked up, who may turn out to be unknown, and decoded again
        afterwards.
        """
        has_cookie = self._authenticator.has_cookie(scope)
        call = _parse(body, has_key=known is not None, has_cookie=has_cookie)
        if known is not None:
            return known, call.dialog
        uuid, username = (None, None) if isinstance(call, KeyChat) else (call.uuid, call.username)
        dialog = call.dialog if len(body) <= FREE_BYTES else None
        del call
        principal = await self._authenticator.of_fields(
            scope, uuid, username, is_confirmed_later=self._calls.confirms_principal(scope)
        )
        return principal, dialog or _parse(body, has_key=False, has_cookie=has_cookie).dialog

    async def _read(self, scope: Scope, receive: Receive) -> tuple[Principal | None, bytes]:
        """Return the caller, if the header fields alone identify it, and the body.

        An API key does. A cookie does not: it counts only if the body contains no ``uuid``.
        """
        if bearer_of(scope) is None:
            return None, await read_body(receive, scope["headers"], limit=MAX_DIALOG_BYTES)
        return await read_identified(
            scope,
            receive,
            lambda: self._principal_of_key(scope),
            lambda: read_body(receive, scope["headers"], limit=MAX_DIALOG_BYTES),
        )

    async def _principal_of_key(self, scope: Scope) -> Principal:
        principal = await self._authenticator.of_headers(scope)
        principal.require(Meter.TOKENS, self._calls.model)
        return principal


class TextChat(_TextEndpoint):
    """The answer in one JSON object: ``code``, ``msg``, ``content``, ``consume_token``."""

    def writer(self, scope: Scope, send: Send) -> ChatWriter:
        return _JsonWriter(scope, send)


class TextStream(_TextEndpoint):
    """The answer in Spark frames, each in an HTTP chunk of its own as soon as it arrives, or as server-sent events."""

    def writer(self, scope: Scope, send: Send) -> ChatWriter:
        return _FrameWriter(scope, send)


class _JsonWriter:
    """Writes an answer as one JSON object. Implements `ChatWriter`."""

    is_streaming = False

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send

    async def write(self, answer: ChatAnswer) -> None:
        while not answer.is_complete:
            await answer.receive()
        body = json_bytes(success(ANSWERED, content=answer.text, consume_token=answer.usage.total_tokens))
        # Stored as the client gets it: the last frame may have been replaced above.
        await answer.settle(body)
        note(self._scope, outcome="ok")
        await send_json(self._send, 200, body)

    async def repeat(self, written: bytes) -> None:
        await send_json(self._send, 200, written)


class _FrameWriter:
    """Writes an answer as Spark frames. Implements `ChatWriter`.

    Frames of a provider that speaks Spark are passed on unchanged; events of other providers are rendered.
    """

    is_streaming = True

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._out = ChunkedStream(scope, send, None if _wants_event_stream(scope["headers"]) else JSON_LINES)

    async def write(self, answer: ChatAnswer) -> None:
        out = self._out
        is_native = answer.native_format == "spark"
        stored: list[bytes] = []
        last: bytes | None = None
        try:
            is_complete = False
            while not is_complete:
                frames: list[bytes] = []
                for event in await answer.receive():
                    is_complete = event.is_last
                    frame = event.native if is_native else None
                    if frame is None and (event.text or is_complete):
                        # Numbered as the client receives them: events without text give no frame.
                        seq = out.count + len(frames)
                        frame = render(event, sid=answer.sid or "", seq=seq, first=not seq)
                    if frame is not None:
                        frames.append(frame)
                if answer.is_stored:
                    stored += frames
                # Withheld until the charge is committed.
                last = frames.pop() if is_complete and frames else None
                await out.send(frames)
            # Charged before the client has all of the answer: a client that has it has no reason to come back.
            if last is not None and not answer.has_reported_usage:
                last = with_usage(last, answer.usage)
            await answer.settle(
                b"\n".join([*stored[:-1], last or b""]) if stored else b"" if answer.is_stored else None
            )
            await out.end([] if last is None else [last])
            note(self._scope, outcome="ok", frames=out.count)
        except AiProjectError as error:
            # Nothing has been sent, so the error can still become a regular response.
            if not out.count:
                raise
            await answer.fail(error)
            # The status line has been sent, so the error becomes a frame of the stream, in the format its client reads.
            note_error(self._scope, error)
            message = failure_of(error, path=self._scope["path"]).msg
            await out.end([error_frame(code=error_number(error), message=message, sid=answer.sid)])

    async def repeat(self, written: bytes) -> None:
        await self._out.end(written.split(b"\n"))


def _parse(body: bytes, *, has_key: bool, has_cookie: bool) -> ChatBody:
    call: ChatBody
    try:
        decode = _decode_browser_call if has_cookie else _decode_call
        call = _decode_key_call(body) if has_key else decode(body)
    except msgspec.ValidationError as error:
        raise _malformed(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInput(Detail.DIALOG_NOT_JSON) from None
    if not call.dialog:
        raise InvalidInput(Detail.DIALOG_EMPTY)
    if len(call.dialog) > MAX_MESSAGES:
        raise InvalidInput(Detail.DIALOG_TOO_LONG, limit=MAX_MESSAGES)
    try:
        for message in call.dialog:
            message.content.encode()
    except UnicodeEncodeError:
        raise InvalidInput(Detail.DIALOG_HAS_SURROGATES) from None
    return call


def _malformed(error: msgspec.ValidationError) -> InvalidInput:
    # msgspec reports "Object missing required field `uuid`" or "Expected `str`, got `int` - at `$.dialog[0].content`".
    text = str(error)
    for field in ("uuid", "username", "dialog"):
        if text == f"Object missing required field `{field}`":
            return InvalidInput(Detail.DIALOG_FIELD_MISSING, field=field)
    location = text.rpartition(" - at `$.")[2].rstrip("`") if " - at `$." in text else ""
    if not location:
        return InvalidInput(Detail.DIALOG_NOT_OBJECT)
    return InvalidInput(Detail.DIALOG_FIELD_MALFORMED, field=location)


def _wants_event_stream(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"accept" and b"text/event-stream" in value.lower() for name, value in headers)
