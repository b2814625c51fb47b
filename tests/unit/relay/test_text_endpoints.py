"""The path of a chat: what is asked of whom, in which order, and what the client gets when something fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from aiproject.accounts import Account, Accounts
from aiproject.adapters.asgi import RECORD, Message
from aiproject.errors import (
    AccountUnknown,
    AiProjectError,
    QuotaExhausted,
    Unavailable,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from aiproject.protocols.chat import ChatEvent, ChatRequest, Usage
from aiproject.protocols.spark import estimate_tokens, render
from aiproject.quotas import Capability, Hold, Quotas
from aiproject.relay.calls import RunningCalls
from aiproject.relay.endpoint import watch_client
from aiproject.relay.text import ChatDefaults, TextChat, TextStream
from aiproject.upstreams import ChatStream
from virtual_time import run

SID = "cht000@dx"
USAGE = Usage(prompt_tokens=5, completion_tokens=9, total_tokens=14, question_tokens=4)


def account(tokens: int = 10_000) -> Account:
    return Account(7, "the-uuid", "小明", "", None, tokens, 0, None, 0, None, None)


def spark(text: str, seq: int, usage: Usage | None = None, *, is_last: bool = False) -> ChatEvent:
    """An event as Spark's core makes it: with the frame itself."""
    event = ChatEvent(text=text, usage=usage, is_last=is_last)
    event.spark_frame = render(event, sid=SID, seq=seq, first=seq == 0)
    return event


ANSWER = (spark("你", 0), spark("好", 1), spark("！", 2, USAGE, is_last=True))


@dataclass(eq=False)
class World:
    """Accounts, quotas, upstream and client, all of them made up, and one journal of what happened in which order.

    Attributes:
        script: what the answer brings: events, failures, and numbers: seconds of silence.
        asking: seconds that upstream takes to begin, or how it fails to.
        leaves: seconds after which the client hangs up.
    """

    script: Sequence[ChatEvent | BaseException | float] = ANSWER
    asking: float | BaseException = 0.0
    leaves: float | None = None
    balance: int = 10_000
    identified: Account | AiProjectError = field(default_factory=account)
    captured: AiProjectError | None = None
    usage: Usage | None = USAGE
    sid: str | None = SID
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    request: ChatRequest | None = None
    record: dict[str, Any] = field(default_factory=lambda: {"request_id": "r1"})
    calls: RunningCalls = field(default_factory=RunningCalls)
    stream: Stream | None = None

    # -- accounts and quotas --

    async def identify(self, uuid: str, usernames: Sequence[str]) -> Account:
        self.journal.append(f"identify {uuid} {','.join(usernames)}")
        if isinstance(self.identified, AiProjectError):
            raise self.identified
        return self.identified

    async def hold(self, account: Account, capability: Capability, amount: int, *, request_id: str) -> Hold:
        self.journal.append(f"hold {amount}")
        if self.balance <= 0:
            raise QuotaExhausted(capability)
        return Hold(account.account_id, capability, min(amount, self.balance), request_id)

    async def capture(self, hold: Hold, amount: int) -> int:
        await asyncio.sleep(0)
        self.journal.append(f"capture {amount}")
        if self.captured is not None:
            raise self.captured
        return min(amount, self.balance)

    async def release(self, hold: Hold) -> None:
        self.journal.append("release")

    # -- upstream --

    async def ask(self, request: ChatRequest) -> ChatStream:
        self.journal.append("ask")
        self.request = request
        try:
            if isinstance(self.asking, BaseException):
                raise self.asking
            await asyncio.sleep(self.asking)
        except asyncio.CancelledError:
            self.journal.append("asking cancelled")
            raise
        self.stream = Stream(self)
        return self.stream

    # -- the client --

    async def call(self, endpoint: type[TextChat | TextStream], body: object = None) -> None:
        defaults = ChatDefaults(max_tokens=100, temperature=0.5, top_k=4)
        accounts: Accounts = self  # type: ignore[assignment]
        quotas: Quotas = self  # type: ignore[assignment]
        app = endpoint(self.calls, accounts, quotas, self, defaults)
        content = body if isinstance(body, bytes) else json.dumps(CALL if body is None else body).encode()
        is_read = False

        async def receive() -> Message:
            nonlocal is_read
            if not is_read:
                is_read = True
                return {"type": "http.request", "body": content, "more_body": False}
            await asyncio.sleep(3600 if self.leaves is None else self.leaves)
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            self.sent.append(message)
            self.journal.append(f"send {message['status']}" if "status" in message else "send")
            await asyncio.sleep(0)

        scope = {"type": "http", "headers": self.headers, "client": ("192.0.2.1", 1), RECORD: self.record}
        await app(scope, receive, send)

    # -- what came of it --

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def answer_headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def answer(self) -> dict[str, Any]:
        """The one JSON object of an answer that is not streamed."""
        start, body = self.sent
        assert not body.get("more_body")
        assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
        return dict(json.loads(body["body"]))

    @property
    def chunks(self) -> list[bytes]:
        """The chunks of a stream that was properly ended."""
        start, *pieces, end = self.sent
        assert start["status"] == 200
        assert all(piece["more_body"] for piece in pieces)
        assert end == {"type": "http.response.body", "body": b"", "more_body": False}
        return [piece["body"] for piece in pieces]

    @property
    def frames(self) -> list[dict[str, Any]]:
        assert all(chunk.endswith(b"\n") and chunk.count(b"\n") == 1 for chunk in self.chunks)
        return [json.loads(chunk) for chunk in self.chunks]


class Stream:
    """An answer on its way, after a world's script."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._script = list(world.script)
        self._waiter: asyncio.Future[None] | None = None
        self._reason: BaseException | None = None
        self.is_closed = False

    @property
    def sid(self) -> str | None:
        return self._world.sid

    @property
    def usage(self) -> Usage | None:
        return self._world.usage

    async def receive(self) -> ChatEvent:
        while True:
            if self._reason is not None:
                raise self._reason
            step = self._script.pop(0)
            if isinstance(step, ChatEvent):
                return step
            if isinstance(step, BaseException):
                raise step
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(step, self._wake)
            await self._waiter
            timer.cancel()

    def abort(self, reason: BaseException) -> None:
        self._reason = reason
        self._wake()

    def close(self) -> None:
        self.is_closed = True
        self._world.journal.append("close")

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


DIALOG = [{"role": "system", "content": ""}, {"role": "user", "content": "你好，世界"}]
CALL = {"uuid": "the-uuid", "username": "小明", "dialog": DIALOG}
PROMPT = estimate_tokens("你好，世界")
EITHER = pytest.mark.parametrize("endpoint", [TextChat, TextStream])


def play(world: World, endpoint: type[TextChat | TextStream], body: object = None) -> World:
    run(world.call(endpoint, body))
    return world


class TestOrder:
    def test_chat(self) -> None:
        world = play(World(), TextChat)
        assert world.journal == [
            "identify the-uuid 小明",
            f"hold {PROMPT + 100}",
            "ask",
            "capture 14",
            "send 200",
            "send",
            "close",
        ]
        assert world.answer == {"code": 0, "msg": "文本大模型回复成功", "content": "你好！", "consume_token": 14}
        assert world.record["outcome"] == "ok"
        assert (world.record["sid"], world.record["tokens"], world.record["account"]) == (SID, 14, 7)

    def test_the_last_frame_is_sent_after_it_was_booked(self) -> None:
        world = play(World(), TextStream)
        assert world.journal[3:] == ["send 200", "send", "send", "capture 14", "send", "send", "close"]
        assert world.chunks == [(event.spark_frame or b"") + b"\n" for event in ANSWER]
        assert world.record["frames"] == 3

    @EITHER
    def test_the_question(self, endpoint: type[TextChat]) -> None:
        request = play(World(), endpoint).request
        assert request is not None
        assert [(message.role, message.content) for message in request.messages] == [
            ("system", ""),
            ("user", "你好，世界"),
        ]
        assert (request.max_tokens, request.temperature, request.top_k) == (100, 0.5, 4)

    @EITHER
    def test_a_small_balance_gives_a_short_answer(self, endpoint: type[TextChat]) -> None:
        request = play(World(balance=PROMPT + 3), endpoint).request
        assert request is not None
        assert request.max_tokens == 3

    def test_headers_of_a_stream(self) -> None:
        headers = play(World(), TextStream).answer_headers
        assert headers[b"content-type"] == b"application/json; charset=utf-8"
        assert headers[b"cache-control"] == b"no-store"
        assert headers[b"x-accel-buffering"] == b"no"
        assert b"content-length" not in headers

    def test_server_sent_events(self) -> None:
        world = play(World(headers=[(b"accept", b"text/Event-Stream")]), TextStream)
        assert world.answer_headers[b"content-type"] == b"text/event-stream; charset=utf-8"
        assert world.chunks == [b"data: " + (event.spark_frame or b"") + b"\n\n" for event in ANSWER]

    def test_events_of_another_dialect_are_rendered_and_silent_ones_left_out(self) -> None:
        script = [ChatEvent(), ChatEvent(text="a"), ChatEvent(), ChatEvent(text="b"), ChatEvent(is_last=True)]
        frames = play(World(script=script), TextStream).frames
        assert [frame["payload"]["choices"]["text"][0]["content"] for frame in frames] == ["a", "b", ""]
        assert [frame["header"]["status"] for frame in frames] == [0, 1, 2]
        assert [frame["payload"]["choices"]["seq"] for frame in frames] == [0, 1, 2]

    def test_each_frame_leaves_when_it_comes(self) -> None:
        async def scenario() -> None:
            world = World(script=[ANSWER[0], 10.0, ANSWER[1], 10.0, ANSWER[2]])
            calling = asyncio.create_task(world.call(TextStream))
            for expected in (2, 3):
                await asyncio.sleep(5 if expected == 2 else 10)
                assert len(world.sent) == expected
            await calling
            assert len(world.sent) == 5

        run(scenario())


class TestRefusals:
    @EITHER
    @pytest.mark.parametrize(
        ("body", "msg"),
        [
            (b"", "请求体不是合法的 JSON"),
            (b"{", "请求体不是合法的 JSON"),
            (b"\xff\xfe", "请求体不是合法的 JSON"),
            (b"[" * 100_000, None),
            (b"[]", "请求参数错误：应为包含 uuid、username 和 dialog 的对象"),
            ({}, "请求参数错误：缺少 uuid"),
            ({"uuid": "u"}, "请求参数错误：缺少 username"),
            ({"uuid": "u", "username": "n"}, "请求参数错误：缺少 dialog"),
            ({**CALL, "uuid": 1}, "请求参数错误：uuid 格式不正确"),
            ({**CALL, "dialog": []}, "请求参数错误：dialog 不能为空"),
            ({**CALL, "dialog": "hi"}, "请求参数错误：dialog 格式不正确"),
            ({**CALL, "dialog": DIALOG * 1001}, "请求参数错误：dialog 不能超过 2000 条消息"),
            (
                {**CALL, "dialog": [{"role": "tool", "content": "x"}]},
                "请求参数错误：dialog[0].role 格式不正确",
            ),
            ({**CALL, "dialog": [{"role": "user"}]}, None),
        ],
    )
    def test_a_bad_body(self, endpoint: type[TextChat], body: object, msg: str | None) -> None:
        world = play(World(), endpoint, body)
        assert world.status == 200
        assert world.answer["code"] == "MODEL_ERROR"
        assert msg is None or world.answer["msg"] == msg
        assert not [line for line in world.journal if not line.startswith("send")]

    @EITHER
    def test_a_body_over_the_limit(self, endpoint: type[TextChat]) -> None:
        world = play(World(), endpoint, b" " * (2 * 1024 * 1024 + 1))
        assert (world.status, world.answer["code"]) == (413, "REQUEST_TOO_LARGE")
        assert world.answer_headers[b"connection"] == b"close"

    @EITHER
    def test_an_unknown_caller_holds_nothing(self, endpoint: type[TextChat]) -> None:
        world = play(World(identified=AccountUnknown()), endpoint)
        assert (world.status, world.answer["code"]) == (200, "USER_NOT_FOUND")
        assert world.journal == ["identify the-uuid 小明", "send 200", "send"]

    @EITHER
    def test_no_quota_asks_nobody(self, endpoint: type[TextChat]) -> None:
        world = play(World(balance=0), endpoint)
        assert (world.status, world.answer["code"]) == (200, "TOKEN_NOT_ENOUGH")
        assert "ask" not in world.journal

    @EITHER
    def test_a_balance_that_does_not_cover_the_question(self, endpoint: type[TextChat]) -> None:
        world = play(World(balance=PROMPT), endpoint)
        assert world.answer["code"] == "TOKEN_NOT_ENOUGH"
        assert world.journal[2:] == ["release", "send 200", "send"]

    @EITHER
    def test_the_database_is_away(self, endpoint: type[TextChat]) -> None:
        world = play(World(identified=Unavailable("down", retry_after=3)), endpoint)
        assert (world.status, world.answer["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert world.answer_headers[b"retry-after"] == b"3"

    @EITHER
    def test_the_server_is_stopping(self, endpoint: type[TextChat]) -> None:
        async def scenario() -> World:
            world = World()
            await world.calls.drain(0)
            await world.call(endpoint)
            return world

        world = run(scenario())
        assert (world.status, world.journal) == (503, ["send 503", "send"])


class TestUpstreamFails:
    @EITHER
    @pytest.mark.parametrize(
        "failure",
        [UpstreamUnreachable("10.0.0.1"), UpstreamRefused(code=11202, sid=SID), UpstreamTimeout("first frame", 1)],
    )
    def test_before_the_answer(self, endpoint: type[TextChat], failure: AiProjectError) -> None:
        world = play(World(asking=failure), endpoint)
        assert (world.status, world.answer["code"]) == (200, "MODEL_ERROR")
        assert set(world.answer) == {"code", "msg"}
        assert world.journal[2:] == ["ask", "release", "send 200", "send"]
        assert world.record["error"] == type(failure).__name__
        assert "10.0.0.1" not in world.answer["msg"]

    @EITHER
    def test_at_the_first_event(self, endpoint: type[TextChat]) -> None:
        """Nothing was sent yet: the failure is a JSON object, in the stream's case too."""
        world = play(World(script=[UpstreamRefused(code=10013, hint="换个问题")]), endpoint)
        assert world.answer == {"code": "MODEL_ERROR", "msg": "换个问题"}
        assert world.journal[3:] == ["release", "close", "send 200", "send"]

    def test_amid_a_chat(self) -> None:
        world = play(World(script=[ANSWER[0], UpstreamTruncated()]), TextChat)
        assert set(world.answer) == {"code", "msg"}
        assert "release" in world.journal
        assert not any(line.startswith("capture") for line in world.journal)

    def test_amid_a_stream_is_told_inside_it(self) -> None:
        world = play(World(script=[*ANSWER[:2], UpstreamRefused("x", code=11202)]), TextStream)
        *frames, error = world.frames
        assert len(frames) == 2
        assert error["header"]["code"] == 11202
        assert error["header"]["status"] == 2
        assert error["header"]["sid"] == SID
        assert "payload" not in error
        assert world.journal[-4:] == ["release", "send", "send", "close"]
        assert world.record["outcome"] == "MODEL_ERROR"

    def test_a_failure_without_a_vendor_code_has_a_number_of_ours(self) -> None:
        world = play(World(script=[ANSWER[0], UpstreamTimeout("gap", 1)]), TextStream)
        assert world.frames[-1]["header"]["code"] == 20001

    def test_in_server_sent_events(self) -> None:
        world = play(
            World(script=[ANSWER[0], UpstreamTruncated()], headers=[(b"accept", b"text/event-stream")]), TextStream
        )
        assert json.loads(world.chunks[-1].removeprefix(b"data: "))["header"]["code"] == 20002

    def test_the_books_fail_before_the_last_frame(self) -> None:
        """What could not be booked is not given away: the client gets an error in place of the last frame."""
        world = play(World(captured=Unavailable("down")), TextStream)
        assert [frame["header"]["code"] for frame in world.frames] == [0, 0, 20004]

    def test_the_books_fail_at_a_chat(self) -> None:
        world = play(World(captured=Unavailable("down")), TextChat)
        assert (world.status, world.answer["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert "content" not in world.answer


class TestUsageMissing:
    SCRIPT = (ANSWER[0], ANSWER[1], spark("！", 2, is_last=True))

    def test_a_chat_is_estimated(self) -> None:
        world = play(World(script=self.SCRIPT, usage=None), TextChat)
        expected = PROMPT + estimate_tokens("你好！")
        assert world.answer["consume_token"] == expected
        assert f"capture {expected}" in world.journal
        assert world.record["tokens_estimated"] is True

    def test_a_stream_tells_the_estimate_in_its_last_frame(self) -> None:
        world = play(World(script=self.SCRIPT, usage=None), TextStream)
        expected = PROMPT + estimate_tokens("你好！")
        assert world.frames[-1]["payload"]["usage"]["text"]["total_tokens"] == expected
        assert world.frames[-1]["payload"]["choices"]["text"][0]["content"] == "！"
        assert f"capture {expected}" in world.journal


class TestClientGone:
    @EITHER
    def test_while_upstream_is_asked(self, endpoint: type[TextChat]) -> None:
        world = play(World(asking=100.0, leaves=1.0), endpoint)
        assert world.journal[2:] == ["ask", "asking cancelled", "release"]
        assert world.record["outcome"] == "client gone"
        assert len(world.calls) == 0

    @EITHER
    def test_amid_the_answer_pays_what_was_generated(self, endpoint: type[TextChat]) -> None:
        world = play(World(script=[*ANSWER[:2], 100.0, ANSWER[2]], leaves=1.0), endpoint)
        expected = PROMPT + estimate_tokens("你好")
        assert world.journal[-2:] == [f"capture {expected}", "close"]
        assert "release" not in world.journal
        assert world.stream is not None
        assert world.stream.is_closed
        assert world.record["outcome"] == "client gone"
        assert not [message for message in world.sent if message.get("more_body") is False]

    @EITHER
    def test_the_call_survives_its_own_cancellation(self, endpoint: type[TextChat]) -> None:
        """A task whose cancellation was taken back must not look cancelled to whoever runs it."""

        async def scenario() -> int:
            await World(asking=100.0, leaves=1.0).call(endpoint)
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()

        assert run(scenario()) == 0

    @EITHER
    def test_cancelled_by_the_server_is_not_the_client(self, endpoint: type[TextChat]) -> None:
        async def scenario() -> World:
            world = World(asking=100.0)
            calling = asyncio.create_task(world.call(endpoint))
            await asyncio.sleep(1)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            return world

        world = run(scenario())
        assert world.journal[2:] == ["ask", "asking cancelled", "release"]
        assert "outcome" not in world.record


class TestStop:
    def test_a_stream_is_ended_with_an_error_frame(self) -> None:
        async def scenario() -> World:
            world = World(script=[ANSWER[0], 3600.0])
            calling = asyncio.create_task(world.call(TextStream))
            await asyncio.sleep(1)
            await world.calls.drain(5)
            await calling
            return world

        world = run(scenario())
        first, last = world.frames
        assert (first["header"]["code"], last["header"]["code"]) == (0, 20004)
        assert "release" in world.journal

    def test_a_chat_is_ended_with_503(self) -> None:
        async def scenario() -> World:
            world = World(script=[ANSWER[0], 3600.0])
            calling = asyncio.create_task(world.call(TextChat))
            await asyncio.sleep(1)
            await world.calls.drain(5)
            await calling
            return world

        world = run(scenario())
        assert (world.status, world.answer["code"]) == (503, "SERVICE_UNAVAILABLE")


class TestWatch:
    def test_disconnect_is_told_once_to_whoever_is_named_then(self) -> None:
        async def scenario() -> None:
            told: list[str] = []
            hang_up = asyncio.Event()
            messages = 0

            async def receive() -> Message:
                nonlocal messages
                messages += 1
                if messages == 1:
                    return {"type": "http.request", "body": b"", "more_body": False}
                await hang_up.wait()
                return {"type": "http.disconnect"}

            with watch_client(receive, lambda: told.append("first")) as client:
                await asyncio.sleep(1)
                was_gone = client.is_gone
                client.on_gone = lambda: told.append("second")
                hang_up.set()
                await asyncio.sleep(1)
                assert (was_gone, client.is_gone) == (False, True)
            assert told == ["second"]

        run(scenario())

    def test_nobody_is_told_outside(self) -> None:
        async def scenario() -> None:
            told: list[str] = []

            async def receive() -> Message:
                await asyncio.sleep(5)
                return {"type": "http.disconnect"}

            with watch_client(receive, lambda: told.append("gone")):
                await asyncio.sleep(1)
            await asyncio.sleep(10)
            assert told == []
            assert len(asyncio.all_tasks()) == 1

        run(scenario())
