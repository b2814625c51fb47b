"""``/textModel/chat`` and ``/textModel/stream``: a question, answered whole or frame by frame."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Literal

import msgspec

from aiproject.accounts.identity.authenticator import Authenticator, bearer_of
from aiproject.accounts.principal.principal import Principal
from aiproject.adapters.fault_points import fault_point
from aiproject.adapters.http.asgi import CHUNKS, Receive, Scope, Send, note, reader_of, request_id, send_json
from aiproject.adapters.http.bodies import ClientGone, read_body
from aiproject.adapters.http.receive_budget import FREE_BYTES
from aiproject.adapters.log import get_logger
from aiproject.api.legacy.endpoint import ClientWatch, Endpoint, read_identified
from aiproject.calls.idempotency import IdempotencyClaim, IdempotencyStore
from aiproject.calls.limits import CallLimits
from aiproject.calls.running import RunningCalls
from aiproject.calls.settlement import CallSettlement, outcome_of
from aiproject.codes import Code
from aiproject.errors import AiProjectError, InvalidInput, UpstreamTimeout
from aiproject.ledger import Hold, Meter, Outcome, Quotas, Stage
from aiproject.protocols.chat import ChatEvent, ChatMessage, ChatRequest, Usage
from aiproject.protocols.iflytek.spark.estimate import estimate_tokens
from aiproject.protocols.iflytek.spark.frames import error_frame, render, with_usage
from aiproject.protocols.legacy import error_number, json_bytes, success
from aiproject.providers import ChatStream, ChatUpstream

__all__ = ["ChatDefaults", "TextChat", "TextStream"]

log = get_logger("relay")

MAX_DIALOG_BYTES = 2 * 1024 * 1024
"""A dialog that fills the largest context (128K tokens, some 200,000 Chinese characters) has 600 KB in UTF-8."""

MAX_MESSAGES = 2000
"""Turns of a dialog; a bound on the work, far over what a context holds."""

TOLERATED_DELAY = 1.0
"""Seconds that an answer may wait for its reader, in all, before a call that runs out of time is the reader's doing:
bursts fill a quick reader's buffers, too."""

LAST_WORDS = 5.0
"""Seconds within which an error must have been written to the client of a call that ran out of time."""


class _Message(msgspec.Struct):
    role: Literal["system", "user", "assistant"]
    content: str


class _Call(msgspec.Struct):
    uuid: str
    username: str
    dialog: list[_Message]


class _KeyCall(msgspec.Struct):
    """The body beside an API key: who calls is not looked for in it."""

    dialog: list[_Message]


class _BrowserCall(msgspec.Struct):
    """The body beside a session's cookie, which says who calls unless the body does."""

    dialog: list[_Message]
    uuid: str | None = None
    username: str | None = None


_decode_call = msgspec.json.Decoder(_Call).decode
_decode_key_call = msgspec.json.Decoder(_KeyCall).decode
_decode_browser_call = msgspec.json.Decoder(_BrowserCall).decode


class ChatDefaults(msgspec.Struct, frozen=True):
    """What is asked of the model beside the dialog: see `ChatRequest`.

    Attributes:
        model: its name, to which API keys can be held.
        drain_seconds: how long an answer is read on after its client hung up; 0 cuts it off at once.
        call_seconds: how long a whole call may take, whoever holds it up.
    """

    max_tokens: int
    temperature: float
    top_k: int
    drain_seconds: float
    call_seconds: float
    model: str


class _Answer:
    """An answer on its way: the question, what came of it so far, and what it costs."""

    def __init__(self, request: ChatRequest) -> None:
        self.request = request
        self.parts: list[str] = []
        self._beside: list[str] = []

    def take_beside(self, event: ChatEvent) -> None:
        """Keep what the model generated beside the answer's text, which counts in the estimate alike."""
        self._beside.append(event.reasoning)
        if event.tool_call is not None:
            self._beside += (event.tool_call.name, event.tool_call.arguments)

    def estimate(self) -> Usage:
        """Return our estimate, for answers of which upstream tells no usage."""
        prompt = _prompt_tokens(self.request.messages)
        completion = estimate_tokens("".join(self.parts)) + estimate_tokens("".join(self._beside))
        return Usage(prompt, completion, prompt + completion)

    def prompt_tokens(self) -> int:
        """Return our estimate of the question alone."""
        return _prompt_tokens(self.request.messages)


@dataclass(frozen=True, slots=True)
class _Turn:
    """Everything that one answer's way to its client needs."""

    scope: Scope
    send: Send
    stream: ChatStream
    answer: _Answer
    charge: CallSettlement
    claim: IdempotencyClaim
    client: ClientWatch


class _TimeLimit:
    """Ends a call that takes too long, while inside, whether it waits for upstream or for its own reader.

    A call whose reader kept it waiting would have had time left without that: it ends as if the client had hung up.
    Otherwise it is upstream that took too long.

    Args:
        seconds: that the whole call may take.
        ends_at: when they are over, in the loop's time.
    """

    __slots__ = ("_client", "_loop", "_scope", "_seconds", "_stream", "_timer")

    def __init__(
        self,
        scope: Scope,
        stream: ChatStream,
        client: ClientWatch,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        ends_at: float,
    ) -> None:
        self._scope = scope
        self._stream = stream
        self._client = client
        self._loop = loop
        self._seconds = seconds
        self._timer = loop.call_at(ends_at, self._end)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        reader = reader_of(self._scope)
        if self._client.is_gone:
            self._stream.abort(ClientGone())
        elif reader is not None and (reader.is_behind or reader.seconds_behind > TOLERATED_DELAY):
            note(self._scope, seconds_behind=round(reader.seconds_behind, 1))
            self._stream.abort(ClientGone())
            reader.cut()
        else:
            self._stream.abort(UpstreamTimeout("call", self._seconds, sid=self._stream.sid))
            if reader is not None:
                self._timer = self._loop.call_later(LAST_WORDS, reader.cut)


class _TextEndpoint(Endpoint):
    """What both endpoints share.

    Attributes:
        passes_on: the client sees an answer while it comes, so that it has seen some of one that fails.
    """

    failure_code = Code.MODEL_ERROR
    passes_on: bool

    def __init__(
        self,
        calls: RunningCalls,
        authenticator: Authenticator,
        quotas: Quotas,
        upstream: ChatUpstream,
        defaults: ChatDefaults,
        idempotency: IdempotencyStore,
        limits: CallLimits,
    ) -> None:
        super().__init__(calls)
        self._authenticator = authenticator
        self._quotas = quotas
        self._upstream = upstream
        self._defaults = defaults
        self._idempotency = idempotency
        self._limits = limits

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        known, body = await self._read(scope, receive)
        principal, dialog = await self._caller_and_dialog(scope, known, body)
        principal.require(Meter.TOKENS, self._defaults.model)
        async with (
            self._limits.enter(scope, principal, tokens=lambda: self._most(dialog)) as running,
            self._idempotency.claim(scope, principal.account.account_id, body) as claim,
        ):
            if claim.answer is not None:
                await self.repeat(scope, send, claim.answer)
                return
            request, hold = await self.admit(scope, dialog, principal)
            answer = _Answer(request)

            def consumed() -> int:
                return answer.estimate().total_tokens

            seen = consumed if self.passes_on else answer.prompt_tokens
            async with CallSettlement(self._quotas, hold, estimate=consumed, seen=seen) as charge:
                running.consumed = lambda: charge.charged
                await self.converse(scope, receive, send, answer, charge, claim)

    async def _caller_and_dialog(
        self, scope: Scope, known: Principal | None, body: bytes
    ) -> tuple[Principal, list[_Message]]:
        """Return who calls, and the dialog.

        Decoded, a dialog takes up to four times the memory of its body, which the receive budget does not count. So a
        large one is not kept while the caller is looked up who may be nobody: it is decoded again afterwards.
        """
        has_cookie = self._authenticator.has_cookie(scope)
        call = _parse(body, has_key=known is not None, has_cookie=has_cookie)
        if known is not None:
            return known, call.dialog
        uuid, username = (None, None) if isinstance(call, _KeyCall) else (call.uuid, call.username)
        dialog = call.dialog if len(body) <= FREE_BYTES else None
        del call
        principal = await self._authenticator.of_fields(
            scope, uuid, username, is_confirmed_later=not self._idempotency.is_asked(scope)
        )
        return principal, dialog or _parse(body, has_key=False, has_cookie=has_cookie).dialog

    async def _read(self, scope: Scope, receive: Receive) -> tuple[Principal | None, bytes]:
        """Return who calls, where the headers alone say so, and the body.

        They do with an API key. A cookie does not: it is looked at only where the body names no ``uuid``.
        """

        async def read() -> bytes:
            return await read_body(receive, scope["headers"], limit=MAX_DIALOG_BYTES)

        if bearer_of(scope) is None:
            return None, await read()
        return await read_identified(scope, receive, lambda: self._of_key(scope), read)

    async def _of_key(self, scope: Scope) -> Principal:
        principal = await self._authenticator.of_headers(scope)
        principal.require(Meter.TOKENS, self._defaults.model)
        return principal

    def _most(self, dialog: list[_Message]) -> int:
        """Return the tokens that a call may consume at most, by our estimate."""
        return _prompt_tokens(dialog) + self._defaults.max_tokens

    async def admit(self, scope: Scope, dialog: list[_Message], principal: Principal) -> tuple[ChatRequest, Hold]:
        """Hold what the call may cost at most."""
        messages = tuple(ChatMessage(message.role, message.content) for message in dialog)
        prompt = _prompt_tokens(messages)
        defaults = self._defaults
        hold = await self._quotas.hold(
            principal.account,
            Meter.TOKENS,
            prompt + defaults.max_tokens,
            need=prompt + 1,
            request_id=request_id(scope),
            key_id=principal.key_id,
            pair=principal.unconfirmed,
            prompt_estimate=prompt,
            completion_limit=defaults.max_tokens,
        )
        # A small balance, or a small rest of what the key may spend, gives a short answer rather than a refusal.
        completion = min(defaults.max_tokens, hold.amount - prompt)
        return ChatRequest(messages, completion, defaults.temperature, defaults.top_k), hold

    async def converse(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        answer: _Answer,
        charge: CallSettlement,
        claim: IdempotencyClaim,
    ) -> None:
        """Ask upstream and pass its answer on; a client that hangs up is noticed at any time."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an endpoint runs in a task
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._defaults.call_seconds
        # Whoever gave a key comes back for the answer, and is charged for the whole of it then.
        on_gone = _go_on if claim.is_wanted else task.cancel
        with ClientWatch(scope, receive, on_gone) as client:
            try:
                stream = await self._upstream.ask(answer.request, on_sent=partial(charge.reached, Stage.SENT))
            except asyncio.CancelledError:
                if not client.is_gone:
                    raise
                task.uncancel()
                raise ClientGone from None
            note(scope, warm=stream.is_warm)
            charge.reached(Stage.FIRST_FRAME, sid=stream.sid)
            drain: asyncio.TimerHandle | None = None

            def client_gone() -> None:
                # What is generated is being paid for: read it to its end, for a while, to know the real usage. Whoever
                # gave a key comes back for the whole answer: cut, it would be charged twice.
                nonlocal drain
                if claim.is_wanted:
                    return
                drain = loop.call_later(self._defaults.drain_seconds, stream.abort, ClientGone())

            client.on_gone = client_gone
            time_limit = _TimeLimit(scope, stream, client, loop, self._defaults.call_seconds, ends_at)
            try:
                with self._calls.streaming(stream), time_limit:
                    await self.relay(_Turn(scope, send, stream, answer, charge, claim, client))
            finally:
                stream.close()
                if drain is not None:
                    drain.cancel()
                note(scope, sid=stream.sid)
                if client.is_gone:
                    note(scope, outcome="client gone")

    @abstractmethod
    async def relay(self, turn: _Turn) -> None:
        """Pass the answer on and settle its charge."""

    @abstractmethod
    async def repeat(self, scope: Scope, send: Send, stored: bytes) -> None:
        """Give the stored answer of an earlier call with the same key."""

    async def settle(self, turn: _Turn, stored: Callable[[Usage], tuple[str, str, bytes] | None]) -> Usage:
        """Take what the whole answer cost; return the usage by which it was charged."""
        scope, reported = turn.scope, turn.stream.usage
        turn.charge.reached(Stage.LAST_FRAME, sid=turn.stream.sid)
        usage = turn.answer.estimate() if reported is None else reported
        if reported is None:
            note(scope, tokens_estimated=True)
            log.warning("upstream told no usage; the estimate is charged", request_id=turn.charge.hold.request_id)
        taken = await turn.charge.settle(
            Outcome.CLIENT_GONE if turn.client.is_gone else Outcome.FINISHED,
            reported=None if reported is None else usage.total_tokens,
            answer=stored(usage),
        )
        note(scope, tokens=usage.total_tokens)
        if taken != usage.total_tokens:
            note(scope, taken=taken)
        return usage


class TextChat(_TextEndpoint):
    """The whole answer in one JSON object: ``code``, ``msg``, ``content``, ``consume_token``."""

    passes_on = False

    async def relay(self, turn: _Turn) -> None:
        parts = turn.answer.parts
        is_whole = False
        while not is_whole:
            for event in await turn.stream.receive():
                parts.append(event.text)
                if event.reasoning or event.tool_call is not None:
                    turn.answer.take_beside(event)
                is_whole = event.is_last

        answer = b""

        def stored(usage: Usage) -> tuple[str, str, bytes] | None:
            nonlocal answer
            content = "".join(parts)
            answer = json_bytes(success("文本大模型回复成功", content=content, consume_token=usage.total_tokens))
            return turn.claim.stored(answer)

        await self.settle(turn, stored)
        note(turn.scope, outcome="ok")
        fault_point("before reply")
        await send_json(turn.send, 200, answer)

    async def repeat(self, scope: Scope, send: Send, stored: bytes) -> None:
        await send_json(send, 200, stored)


class TextStream(_TextEndpoint):
    """Upstream's frames, each in an HTTP chunk of its own the moment it arrives; or as server-sent events."""

    passes_on = True

    async def relay(self, turn: _Turn) -> None:
        out = _Frames(turn.scope, turn.send)
        stream, parts = turn.stream, turn.answer.parts
        kept: list[bytes] = []
        try:
            is_whole = False
            while not is_whole:
                frames: list[bytes] = []
                for event in await stream.receive():
                    if event.text:
                        parts.append(event.text)
                    if event.reasoning or event.tool_call is not None:
                        turn.answer.take_beside(event)
                    is_whole = event.is_last
                    frame = event.spark_frame
                    if frame is None and (event.text or is_whole):
                        seq = out.count + len(frames)
                        frame = render(event, sid=stream.sid or "", seq=seq, first=not seq)
                    if frame is not None:
                        frames.append(frame)
                if turn.claim.is_wanted:
                    kept += frames
                last = frames.pop() if is_whole and frames else None
                await out.send(frames)
                if is_whole:
                    last = await self._finish(turn, kept, last)
                    fault_point("before reply")
                    await out.send([] if last is None else [last])
            note(turn.scope, outcome="ok", frames=out.count)
        except AiProjectError as error:
            if not out.count:
                raise
            await turn.charge.settle(outcome_of(error))
            # The status is gone; the failure is told inside the stream, in the dialect that its client knows.
            failure = self.failure(turn.scope, error)
            await out.send([error_frame(code=error_number(error), message=failure.msg, sid=stream.sid)])
        await out.end()

    async def _finish(self, turn: _Turn, kept: list[bytes], frame: bytes | None) -> bytes | None:
        """Book the answer before the client holds all of it: it never asks again and counts for itself."""

        def last(usage: Usage) -> bytes | None:
            return with_usage(frame, usage) if turn.stream.usage is None and frame is not None else frame

        def stored(usage: Usage) -> tuple[str, str, bytes] | None:
            whole = [*kept[:-1], last(usage) or b""] if kept else []
            return turn.claim.stored(b"\n".join(whole))

        return last(await self.settle(turn, stored))

    async def repeat(self, scope: Scope, send: Send, stored: bytes) -> None:
        out = _Frames(scope, send)
        await out.send(stored.split(b"\n"))
        await out.end()


class _Frames:
    """The client's side of a stream: one frame, one HTTP chunk.

    Attributes:
        count: frames sent so far.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self.count = 0
        self._as_events = _wants_event_stream(scope["headers"])
        self._prefix, self._suffix = (b"data: ", b"\n\n") if self._as_events else (b"", b"\n")
        self._send = send
        self._send_chunks: Callable[[Sequence[bytes]], Awaitable[None]] | None = scope.get("extensions", {}).get(CHUNKS)

    async def send(self, frames: Sequence[bytes]) -> None:
        if not frames:
            return
        if not self.count:
            await self._send(_stream_start(self._as_events))
        self.count += len(frames)
        bodies = [b"%b%b%b" % (self._prefix, frame, self._suffix) for frame in frames]
        if self._send_chunks is not None:
            await self._send_chunks(bodies)
            return
        for body in bodies:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _go_on() -> None:
    """Let a client hang up without ending its call."""


def _prompt_tokens(messages: Iterable[ChatMessage | _Message]) -> int:
    """Return our estimate of a dialog. Messages of white space alone are not sent (`sendable_messages`)."""
    return sum(estimate_tokens(message.content) for message in messages if not message.content.isspace())


def _parse(body: bytes, *, has_key: bool, has_cookie: bool) -> _Call | _KeyCall | _BrowserCall:
    call: _Call | _KeyCall | _BrowserCall
    try:
        decode = _decode_browser_call if has_cookie else _decode_call
        call = _decode_key_call(body) if has_key else decode(body)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"请求参数错误：{_where(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInput("请求体不是合法的 JSON") from None
    if not call.dialog:
        raise InvalidInput("请求参数错误：dialog 不能为空")
    if len(call.dialog) > MAX_MESSAGES:
        raise InvalidInput(f"请求参数错误：dialog 不能超过 {MAX_MESSAGES} 条消息")
    try:
        for message in call.dialog:
            message.content.encode()
    except UnicodeEncodeError:
        raise InvalidInput("请求参数错误：content 含有不成对的代理字符") from None
    return call


def _where(error: msgspec.ValidationError) -> str:
    # msgspec says "Object missing required field `uuid`" or "Expected `str`, got `int` - at `$.dialog[0].content`".
    text = str(error)
    for field in ("uuid", "username", "dialog"):
        if text == f"Object missing required field `{field}`":
            return f"缺少 {field}"
    place = text.rpartition(" - at `$.")[2].rstrip("`") if " - at `$." in text else ""
    return f"{place} 格式不正确" if place else "应为包含 uuid、username 和 dialog 的对象"


def _wants_event_stream(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"accept" and b"text/event-stream" in value.lower() for name, value in headers)


def _stream_start(as_events: bool) -> dict[str, Any]:
    return {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"content-type", b"text/event-stream; charset=utf-8" if as_events else b"application/json; charset=utf-8"),
            (b"cache-control", b"no-store"),
            # nginx reads this one; no other way to switch its buffering off from behind.
            (b"x-accel-buffering", b"no"),
        ],
    }
