"""What every provider must do, as suites: `ChatProviderSuite`, and `UnaryProviderSuite` for dictation and picture text.

A new provider passes one by giving it a subject, which knows how to bring the provider's far end into each state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import pytest

from aiproject.errors import InvalidInput, Reason, UpstreamFailed, UpstreamTimeout
from aiproject.protocols.chat import (
    ChatEvent,
    ChatMessage,
    ChatRequest,
    FinishReason,
    PicturePart,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCall,
)
from aiproject.providers.base import ChatProvider, ChatStream, RecognizedText

__all__ = ["ChatProviderSuite", "ChatSubject", "UnaryProviderSuite", "UnarySubject", "read_all"]

QUESTION = ChatRequest((ChatMessage("user", "你好，请介绍一下你自己"),), max_tokens=200)


class ChatSubject(Protocol):
    """A provider under test and its far end.

    Attributes:
        provider: with time limits of at most a second between messages.
        secret: part of its credentials; must not reach an error.
        reasons: that its far end can be made to give before the first event.
    """

    provider: ChatProvider
    secret: str
    reasons: Sequence[Reason]

    def refuse_next(self, reason: Reason) -> None:
        """Have the next question refused before the first event, however often it is asked again."""
        ...

    def break_next(self) -> None:
        """Have the connection of the next answer end after some events."""
        ...

    def stall_next(self, *, after_first: bool) -> None:
        """Have the next answer fall silent, before its first event or after it."""
        ...

    async def open_calls(self) -> int:
        """Return how many calls are open at the far end, a moment after the provider was let go of."""
        ...


async def read_all(stream: ChatStream) -> list[ChatEvent]:
    """Return all events of an answer and close it."""
    events: list[ChatEvent] = []
    try:
        while not events or not events[-1].is_last:
            received = await stream.receive()
            assert received, "at least one event at a time"
            events += received
        return events
    finally:
        stream.close()


async def receive_on(stream: ChatStream, events: list[ChatEvent]) -> None:
    """Receive until the stream raises."""
    while True:
        events += await stream.receive()


class ChatProviderSuite:
    """Subclasses give a fixture ``subject``."""

    async def test_an_answer_has_one_end_with_a_reason_and_usage_within_bounds(self, subject: ChatSubject) -> None:
        sent = 0

        def on_sent() -> None:
            nonlocal sent
            sent += 1

        stream = await subject.provider.ask(QUESTION, on_sent=on_sent)
        assert sent >= 1, "said before the first event that the question may be billed"
        events = await read_all(stream)
        assert "".join(event.text for event in events).strip()
        assert [event.is_last for event in events] == [False] * (len(events) - 1) + [True]
        assert isinstance(events[-1].finish_reason, FinishReason)
        assert not any(event.finish_reason for event in events[:-1])
        if stream.usage is not None:
            usage = stream.usage
            assert events[-1].usage == usage
            assert 0 <= usage.cached_tokens <= usage.prompt_tokens
            assert 0 <= usage.reasoning_tokens <= usage.completion_tokens
            assert usage.total_tokens >= usage.prompt_tokens + usage.completion_tokens > 0
        assert await subject.open_calls() == 0

    async def test_native_messages_are_single_lines_of_a_named_format(self, subject: ChatSubject) -> None:
        stream = await subject.provider.ask(QUESTION)
        native = [event.native for event in await read_all(stream) if event.native is not None]
        assert bool(native) == (stream.native_format is not None)
        assert not any(b"\n" in message or b"\r" in message for message in native)

    async def test_answers_at_once_do_not_mix(self, subject: ChatSubject) -> None:
        async def ask(number: int) -> str:
            request = ChatRequest((ChatMessage("user", f"question number {number}?"),), max_tokens=200)
            stream = await subject.provider.ask(request)
            return "".join(event.text for event in await read_all(stream))

        answers = await asyncio.gather(*(ask(number) for number in range(8)))
        assert len(set(answers)) == len(answers)

    async def test_each_reason_is_named_and_keeps_secrets(self, subject: ChatSubject) -> None:
        assert subject.reasons
        for reason in subject.reasons:
            subject.refuse_next(reason)
            with pytest.raises(UpstreamFailed) as caught:
                await read_all(await subject.provider.ask(QUESTION))
            assert caught.value.reason is reason
            assert caught.value.may_reroute != reason.is_callers
            shown = f"{caught.value} {caught.value.detail} {caught.value.hint} {caught.value.args}"
            assert subject.secret not in shown
            assert await subject.open_calls() == 0

    async def test_an_answer_that_breaks_gives_what_came_first(self, subject: ChatSubject) -> None:
        subject.break_next()
        stream = await subject.provider.ask(QUESTION)
        events: list[ChatEvent] = []
        with pytest.raises(UpstreamFailed) as caught:
            await receive_on(stream, events)
        stream.close()
        assert caught.value.reason is Reason.TRUNCATED
        assert "".join(event.text for event in events)
        assert not any(event.is_last for event in events)
        assert not caught.value.retryable, "something may have reached the caller"

    @pytest.mark.parametrize("after_first", [False, True])
    async def test_silence_is_given_up(self, subject: ChatSubject, after_first: bool) -> None:
        subject.stall_next(after_first=after_first)
        with pytest.raises(UpstreamTimeout) as caught:
            await asyncio.wait_for(read_all(await subject.provider.ask(QUESTION)), 10)
        assert caught.value.reason is Reason.TIMED_OUT
        assert await subject.open_calls() == 0

    async def test_abort_wakes_a_waiting_reader_and_closing_ends_the_generation(self, subject: ChatSubject) -> None:
        subject.stall_next(after_first=True)
        stream = await subject.provider.ask(QUESTION)
        asyncio.get_running_loop().call_later(0.1, stream.abort, LookupError("hung up"))
        with pytest.raises(LookupError, match="hung up"):
            await receive_on(stream, [])
        with pytest.raises(LookupError, match="hung up"):
            await stream.receive()
        stream.close()
        stream.close()
        assert await subject.open_calls() == 0

    async def test_a_question_that_is_cancelled_leaves_nothing_open(self, subject: ChatSubject) -> None:
        subject.stall_next(after_first=False)
        asking = asyncio.create_task(subject.provider.ask(QUESTION))
        await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await subject.open_calls() == 0

    async def test_what_the_model_cannot_do_is_refused_before_anything_is_sent(self, subject: ChatSubject) -> None:
        """A provider that can do it answers; none ignores what would change the answer."""
        message = QUESTION.messages[0]
        picture = ChatMessage("user", (TextPart("what is this?"), PicturePart(b"\x89PNG", "image/png")))
        called = ChatMessage("assistant", "", tool_calls=(ToolCall("1", "f", "{}"),))
        result = ChatMessage("tool", "4", tool_call_id="1")
        for request in (
            ChatRequest((picture,)),
            ChatRequest((message,), tools=(Tool("f", "adds", {"type": "object"}),)),
            ChatRequest((message, called, result)),
            ChatRequest((message,), response_format=ResponseFormat("json")),
            ChatRequest((message,), stop=("。",)),
        ):
            was_sent = False

            def on_sent() -> None:
                nonlocal was_sent
                was_sent = True

            try:
                events = await read_all(await subject.provider.ask(request, on_sent=on_sent))
            except InvalidInput:
                assert not was_sent
            else:
                assert events[-1].is_last

    async def test_a_dialog_without_a_question_is_refused(self, subject: ChatSubject) -> None:
        for messages in ((ChatMessage("user", " \n"),), (ChatMessage("system", "be brief"),)):
            with pytest.raises(InvalidInput):
                await subject.provider.ask(ChatRequest(messages))

    def test_estimates_grow_with_the_text_and_nothing_is_free(self, subject: ChatSubject) -> None:
        estimate = subject.provider.estimate_tokens
        assert estimate("") == 0
        for text in ("a", "你", "\n", "\u200b", "🙂", "x" * 1000, "零" * 1000, " " * 1000, "0" * 1000):
            assert estimate(text) > 0
            assert estimate(text * 2) >= estimate(text)
        assert estimate("零" * 1000) >= 500
        assert estimate("0" * 1000) >= 250
        messages = (ChatMessage("system", "be brief"), ChatMessage("user", (TextPart("你好" * 50),)))
        assert subject.provider.estimate_prompt(messages) >= estimate("你好" * 50)

    def test_limits_are_positive(self, subject: ChatSubject) -> None:
        for model in ("", "never-heard-of"):
            limits = subject.provider.limits(model)
            assert 0 < limits.completion <= limits.context


class UnarySubject(Protocol):
    """A provider that hears clips or reads pictures, and its far end.

    Attributes:
        secret: part of its credentials; must not reach an error.
        reasons: that its far end can be made to give.
    """

    secret: str
    reasons: Sequence[Reason]

    async def recognize(self) -> RecognizedText:
        """Have the provider recognise a sample, with time limits of at most a second."""
        ...

    def refuse_next(self, reason: Reason) -> None:
        """Have the next call refused, however often it is tried again."""
        ...

    def find_nothing_next(self) -> None:
        """Have the next sample hold no words."""
        ...

    def stall_next(self) -> None:
        """Have the next call fall silent."""
        ...

    async def open_calls(self) -> int:
        """Return how many calls are open at the far end, a moment after the provider was let go of."""
        ...


class UnaryProviderSuite:
    """What every provider of dictation or picture text must do. Subclasses give a fixture ``subject``."""

    async def test_words_are_recognised(self, subject: UnarySubject) -> None:
        recognized = await subject.recognize()
        assert recognized.text.strip()
        assert recognized.text.isprintable() or "\n" in recognized.text
        assert await subject.open_calls() == 0

    async def test_a_sample_without_words_is_an_empty_text(self, subject: UnarySubject) -> None:
        subject.find_nothing_next()
        assert (await subject.recognize()).text == ""

    async def test_calls_at_once(self, subject: UnarySubject) -> None:
        answers = await asyncio.gather(*(subject.recognize() for _ in range(5)))
        assert all(answer.text for answer in answers)
        assert await subject.open_calls() == 0

    async def test_each_reason_is_named_and_keeps_secrets(self, subject: UnarySubject) -> None:
        assert subject.reasons
        for reason in subject.reasons:
            subject.refuse_next(reason)
            with pytest.raises(UpstreamFailed) as caught:
                await subject.recognize()
            assert caught.value.reason is reason
            assert subject.secret not in f"{caught.value} {caught.value.detail} {caught.value.hint}"
            assert await subject.open_calls() == 0

    async def test_silence_is_given_up(self, subject: UnarySubject) -> None:
        subject.stall_next()
        with pytest.raises(UpstreamTimeout) as caught:
            await asyncio.wait_for(subject.recognize(), 10)
        assert caught.value.reason is Reason.TIMED_OUT

    async def test_a_call_that_is_cancelled_leaves_nothing_open(self, subject: UnarySubject) -> None:
        subject.stall_next()
        asking = asyncio.create_task(subject.recognize())
        await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await subject.open_calls() == 0
