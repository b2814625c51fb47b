"""A provider in as few lines as can be, as an example of the contract: it says the question back, word by word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from aiproject.codes import Detail
from aiproject.errors import InvalidInput, Reason, UpstreamFailed, UpstreamTimeout, UpstreamTruncated
from aiproject.protocols.chat import ChatEvent, ChatMessage, ChatRequest, FinishReason, Usage
from aiproject.providers.base import ModelLimits

__all__ = ["EchoProvider"]


class EchoStream:
    """Implements `ChatStream`. An event that is an exception stands for the failure of the far end."""

    native_format, is_warm, sid = None, True, None

    def __init__(self, events: list[ChatEvent | Exception], usage: Usage, is_open: set[object]) -> None:
        self.usage: Usage | None = usage
        self._events, self._open = events, is_open
        self._aborted = asyncio.get_running_loop().create_future()
        self._open.add(self)

    async def receive(self) -> list[ChatEvent]:
        if not self._aborted.done() and isinstance(self._events[0], UpstreamTimeout):
            await asyncio.wait([self._aborted], timeout=self._events[0].seconds)
        if self._aborted.done():
            raise self._aborted.result()
        event = self._events.pop(0)
        if isinstance(event, Exception):
            raise event
        return [event]

    def abort(self, reason: BaseException) -> None:
        if not self._aborted.done():
            self._aborted.set_result(reason)

    def close(self) -> None:
        self._open.discard(self)


class EchoProvider:
    """Implements `ChatProvider`. ``fails`` is what becomes of the next answer, and after how many of its words."""

    def __init__(self) -> None:
        self.open: set[object] = set()
        self.fails: tuple[int, Exception] | None = None

    def limits(self, model: str) -> ModelLimits:
        return ModelLimits(4096, 4096)

    def estimate_tokens(self, text: str) -> int:
        return len(text)

    def estimate_prompt(self, messages: Iterable[ChatMessage]) -> int:
        return sum(len(message.text) for message in messages)

    async def ask(self, request: ChatRequest, *, on_sent: Callable[[], None] = lambda: None) -> EchoStream:
        last = request.messages[-1]
        if last.role != "user" or not last.text.strip():
            raise InvalidInput(Detail.DIALOG_WITHOUT_QUESTION)
        if request.tools or request.stop or request.response_format.kind != "text" or not isinstance(last.content, str):
            raise InvalidInput(Detail.FIELD_NOT_SUPPORTED, field="messages")
        on_sent()
        prompt = self.estimate_prompt(request.messages)
        usage = Usage(prompt, len(last.text), prompt + len(last.text))
        events: list[ChatEvent | Exception] = [ChatEvent(f"{word} ") for word in last.text.split()]
        events.append(ChatEvent(usage=usage, is_last=True, finish_reason=FinishReason.STOP))
        at, failure = self.fails or (len(events), LookupError())
        self.fails = None
        if at == 0:
            if isinstance(failure, UpstreamTimeout):
                await asyncio.sleep(failure.seconds)
            raise failure
        return EchoStream([*events[:at], failure], usage, self.open)


class EchoSubject:
    """Brings an echo into the states that `provider_suite.ChatProviderSuite` asks for."""

    secret = "no credentials"
    reasons = tuple(Reason)

    def __init__(self) -> None:
        self.provider = EchoProvider()

    def refuse_next(self, reason: Reason) -> None:
        self.provider.fails = (0, UpstreamFailed("refused", reason=reason))

    def break_next(self) -> None:
        self.provider.fails = (1, UpstreamTruncated())

    def stall_next(self, *, after_first: bool) -> None:
        self.provider.fails = (int(after_first), UpstreamTimeout("gap", 0.3))

    async def open_calls(self) -> int:
        return len(self.provider.open)
