"""``/textModel/chat`` and ``/textModel/stream``: a question, answered whole or frame by frame."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Any, Literal

import msgspec

from aiproject.accounts import Accounts
from aiproject.adapters.asgi import Receive, Scope, Send, note, request_id, send_json
from aiproject.adapters.log import get_logger
from aiproject.adapters.uploads import ClientGone, read_body
from aiproject.codes import Code
from aiproject.errors import AiProjectError, InvalidInput, QuotaExhausted
from aiproject.protocols.chat import ChatMessage, ChatRequest, Usage
from aiproject.protocols.seed import error_number, json_bytes, success
from aiproject.protocols.spark import error_frame, estimate_tokens, render, with_usage
from aiproject.protocols.vendor_codes import Service
from aiproject.quotas import Capability, Hold, Quotas
from aiproject.relay.calls import RunningCalls
from aiproject.relay.endpoint import Endpoint, watch_client
from aiproject.upstreams import ChatStream, ChatUpstream

__all__ = ["ChatDefaults", "TextChat", "TextStream"]

log = get_logger("relay")

MAX_DIALOG_BYTES = 2 * 1024 * 1024
"""A dialog that fills the largest context (128K tokens, some 200,000 Chinese characters) has 600 KB in UTF-8."""

MAX_MESSAGES = 2000
"""Turns of a dialog; a bound on the work, far over what a context holds."""


class _Message(msgspec.Struct):
    role: Literal["system", "user", "assistant"]
    content: str


class _Call(msgspec.Struct):
    uuid: str
    username: str
    dialog: list[_Message]


_decode_call = msgspec.json.Decoder(_Call).decode


class ChatDefaults(msgspec.Struct, frozen=True):
    """What is asked of the model beside the dialog: see `ChatRequest`."""

    max_tokens: int
    temperature: float
    top_k: int


class _TextEndpoint(Endpoint):
    failure_code = Code.MODEL_ERROR
    service = Service.SPARK

    def __init__(
        self,
        calls: RunningCalls,
        accounts: Accounts,
        quotas: Quotas,
        upstream: ChatUpstream,
        defaults: ChatDefaults,
    ) -> None:
        super().__init__(calls)
        self._accounts = accounts
        self._quotas = quotas
        self._upstream = upstream
        self._defaults = defaults

    async def admit(self, scope: Scope, receive: Receive) -> tuple[ChatRequest, Hold]:
        """Read and check the call, find its account, hold what it may cost at most."""
        call = _parse(await read_body(receive, scope["headers"], limit=MAX_DIALOG_BYTES))
        account = await self._accounts.identify(call.uuid, [call.username])
        note(scope, account=account.account_id)
        messages = tuple(ChatMessage(message.role, message.content) for message in call.dialog)
        prompt = sum(estimate_tokens(message.content) for message in messages if message.content)
        defaults = self._defaults
        hold = await self._quotas.hold(
            account, Capability.TOKENS, prompt + defaults.max_tokens, request_id=request_id(scope)
        )
        if hold.amount <= prompt:
            await self._quotas.release(hold)
            raise QuotaExhausted(Capability.TOKENS)
        # A small balance gives a short answer rather than a refusal.
        completion = min(defaults.max_tokens, hold.amount - prompt)
        return ChatRequest(messages, completion, defaults.temperature, defaults.top_k), hold

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, hold = await self.admit(scope, receive)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an endpoint runs in a task
        with watch_client(receive, task.cancel) as client:
            try:
                stream = await self._upstream.ask(request)
            except asyncio.CancelledError:
                await self._quotas.release(hold)
                if not client.is_gone:
                    raise
                task.uncancel()
                raise ClientGone from None
            except AiProjectError:
                await self._quotas.release(hold)
                raise
            client.on_gone = lambda: stream.abort(ClientGone())
            try:
                with self._calls.streaming(stream):
                    await self.relay(scope, send, stream, request, hold)
            finally:
                stream.close()
                note(scope, sid=stream.sid)

    @abstractmethod
    async def relay(self, scope: Scope, send: Send, stream: ChatStream, request: ChatRequest, hold: Hold) -> None:
        """Pass the answer on and settle the hold."""

    async def settle(
        self, scope: Scope, hold: Hold, stream: ChatStream, request: ChatRequest, parts: list[str]
    ) -> Usage:
        """Take what the finished answer cost, what upstream reported or, if it forgot to, our estimate; return it."""
        usage = stream.usage
        if usage is None:
            prompt, completion = _estimate(request, parts)
            usage = Usage(prompt, completion, prompt + completion)
            note(scope, tokens_estimated=True)
            log.warning("upstream told no usage; the estimate is charged", request_id=hold.request_id)
        taken = await self._quotas.capture(hold, usage.total_tokens)
        note(scope, tokens=usage.total_tokens)
        if taken != usage.total_tokens:
            note(scope, taken=taken)
        return usage

    async def settle_cut(self, scope: Scope, hold: Hold, request: ChatRequest, parts: list[str]) -> None:
        """Charge a client that hung up for what was generated until then, estimated; upstream is cut off.

        Upstream tells the usage only in the last frame, which never comes: an answer read up to there would be free.
        """
        taken = await self._quotas.capture(hold, sum(_estimate(request, parts)))
        note(scope, outcome="client gone", tokens=taken, tokens_estimated=True)


class TextChat(_TextEndpoint):
    """The whole answer in one JSON object: ``code``, ``msg``, ``content``, ``consume_token``."""

    async def relay(self, scope: Scope, send: Send, stream: ChatStream, request: ChatRequest, hold: Hold) -> None:
        parts: list[str] = []
        try:
            while True:
                event = await stream.receive()
                parts.append(event.text)
                if event.is_last:
                    break
        except ClientGone:
            await self.settle_cut(scope, hold, request, parts)
            raise
        except AiProjectError:
            await self._quotas.release(hold)
            raise
        usage = await self.settle(scope, hold, stream, request, parts)
        note(scope, outcome="ok")
        answer = success("文本大模型回复成功", content="".join(parts), consume_token=usage.total_tokens)
        await send_json(send, 200, json_bytes(answer))


class TextStream(_TextEndpoint):
    """Upstream's frames, each in an HTTP chunk of its own the moment it arrives; or as server-sent events."""

    async def relay(self, scope: Scope, send: Send, stream: ChatStream, request: ChatRequest, hold: Hold) -> None:
        as_events = _wants_event_stream(scope["headers"])
        prefix, suffix = (b"data: ", b"\n\n") if as_events else (b"", b"\n")
        parts: list[str] = []
        started = False
        sequence = 0

        async def pass_on(frame: bytes) -> None:
            nonlocal started
            if not started:
                started = True
                await send(_stream_start(as_events))
            await send({"type": "http.response.body", "body": b"%b%b%b" % (prefix, frame, suffix), "more_body": True})

        try:
            while True:
                event = await stream.receive()
                if event.text:
                    parts.append(event.text)
                frame = event.spark_frame
                if frame is None and (event.text or event.is_last):
                    frame = render(event, sid=stream.sid or "", seq=sequence, first=not started)
                if event.is_last:
                    # Booked before the client holds the whole answer: it never asks again and counts for itself.
                    usage = await self.settle(scope, hold, stream, request, parts)
                    if stream.usage is None and frame is not None:
                        frame = with_usage(frame, usage)
                if frame is not None:
                    sequence += 1
                    await pass_on(frame)
                if event.is_last:
                    break
            note(scope, outcome="ok", frames=sequence)
        except ClientGone:
            await self.settle_cut(scope, hold, request, parts)
            raise
        except AiProjectError as error:
            await self._quotas.release(hold)
            if not started:
                raise
            # The status is gone; the failure is told inside the stream, in the dialect that its client knows.
            failure = self.failure(scope, error)
            await pass_on(error_frame(code=error_number(error), message=failure.msg, sid=stream.sid))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _parse(body: bytes) -> _Call:
    try:
        call = _decode_call(body)
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


def _estimate(request: ChatRequest, parts: list[str]) -> tuple[int, int]:
    """Return the tokens of the prompt and of what was answered."""
    return sum(estimate_tokens(message.content) for message in request.messages), estimate_tokens("".join(parts))


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
