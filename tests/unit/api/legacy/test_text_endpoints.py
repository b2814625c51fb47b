"""The path of a chat: what is asked of whom and when, what is charged and what the client gets, on every way out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.model import Account
from aiproject.accounts.core.service import Accounts
from aiproject.accounts.identity.authenticator import Authenticator
from aiproject.adapters.http.asgi import READER, RECORD, Message, Scope
from aiproject.api.legacy.chat import ChatDefaults, TextChat, TextStream
from aiproject.calls.chat import CallTimes, ChatCalls
from aiproject.calls.client_watch import ClientWatch
from aiproject.calls.idempotency import IdempotencyClaim, IdempotencyStore
from aiproject.calls.limits import CallLimits, GlobalLimits
from aiproject.calls.running import RunningCalls
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
from aiproject.ledger.model import Hold, Key, KeyLost, Meter, Outcome, Stage
from aiproject.ledger.rules import charge
from aiproject.ledger.service import Quotas
from aiproject.ledger.waiting import Watch
from aiproject.protocols.chat import ChatEvent, ChatMessage, ChatRequest, ToolCallDelta, Usage
from aiproject.protocols.iflytek.error_codes import Service, refusal
from aiproject.protocols.iflytek.spark.estimate import estimate_tokens
from aiproject.protocols.iflytek.spark.frames import render
from aiproject.providers.base import ChatStream, ModelLimits
from virtual_time import run

SID = "cht000@dx"
USAGE = Usage(prompt_tokens=5, completion_tokens=9, total_tokens=14, question_tokens=4)


def account(tokens: int = 10_000) -> Account:
    return Account(7, "the-uuid", "小明", "", None, tokens, 0, None, 0, None, None)


def spark(text: str, seq: int, usage: Usage | None = None, *, is_last: bool = False) -> ChatEvent:
    """An event as Spark's core makes it: with the frame itself."""
    event = ChatEvent(text=text, usage=usage, is_last=is_last)
    event.native = render(event, sid=SID, seq=seq, first=seq == 0)
    return event


ANSWER = (spark("你", 0), spark("好", 1), spark("！", 2, USAGE, is_last=True))


@dataclass(eq=False)
class World:
    """Accounts, quotas, keys, upstream and client, all of them made up; one journal of what happened in which order.

    Attributes:
        script: what the answer brings: events, failures, and numbers: seconds of silence.
        connecting: seconds until the question can be sent.
        asking: seconds that upstream takes to begin, or how it fails to.
        leaves: seconds after which the client hangs up.
        drain: seconds that an answer is read on after that.
        reading: seconds that the client takes to read a message.
        call_seconds: that a whole call may take.
        settling: seconds that a settlement takes, or how it fails.
        key: whether the client sends an Idempotency-Key.
        earlier: the answer that is stored under its key.
    """

    script: Sequence[ChatEvent | BaseException | float] = ANSWER
    connecting: float = 0.0
    asking: float | BaseException = 0.0
    leaves: float | None = None
    balance: int = 10_000
    identified: Account | AiProjectError = field(default_factory=account)
    drain: float = 30.0
    reading: float = 0.0
    call_seconds: float = 600.0
    settling: float | AiProjectError = 0.0
    key: bool = False
    earlier: bytes | None = None
    usage: Usage | None = USAGE
    sid: str | None = SID
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    request: ChatRequest | None = None
    record: dict[str, Any] = field(default_factory=lambda: {"request_id": "r1"})
    calls: RunningCalls = field(default_factory=RunningCalls)
    call_limits: CallLimits = field(default_factory=lambda: CallLimits(None, GlobalLimits(1, 1, 1)))
    stream: Stream | None = None
    reader: Reader = field(default_factory=lambda: Reader())
    facts: dict[str, int | str] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)
    stored: bytes | None = None
    seen: int | None = None

    # -- accounts and quotas --

    async def identify(self, uuid: str, usernames: Sequence[str], *, address: str | None = None) -> Account:
        self.journal.append(f"identify {uuid} {','.join(usernames)}")
        if isinstance(self.identified, AiProjectError):
            raise self.identified
        return self.identified

    async def hold(
        self,
        account: Account,
        capability: Meter,
        amount: int,
        *,
        request_id: str,
        need: int,
        watch: Watch,
        **facts: int | str,
    ) -> Hold:
        await asyncio.sleep(0)
        self.journal.append(f"hold {need} to {amount}")
        self.facts = facts
        if self.balance < need:
            raise QuotaExhausted(capability)
        return Hold(account.account_id, capability, min(amount, self.balance), request_id)

    def note(self, hold: Hold, stage: Stage) -> None:
        assert hold.request_id not in self.settled

    async def settle(
        self,
        hold: Hold,
        outcome: Outcome,
        stage: Stage,
        *,
        reported: int | None = None,
        estimated: int = 0,
        seen: int = 0,
        sid: str | None = None,
        answer: tuple[str, str, bytes] | None = None,
    ) -> int:
        # As the books do: the first order counts, and nobody who is cancelled takes it back.
        if hold.request_id not in self.settled:
            self.seen = seen
            amount = min(hold.amount, charge(outcome, stage, reported=reported, estimated=estimated))
            self.journal.append(f"settle: {outcome} at {stage}, {amount}")
            self.settled[hold.request_id] = amount
            if answer is not None:
                assert answer[:2] == ("account 7", "hash of the key")
                self.stored = answer[2]
        if isinstance(self.settling, AiProjectError):
            raise self.settling
        await asyncio.sleep(self.settling)
        return self.settled[hold.request_id]

    # -- keys --

    @asynccontextmanager
    async def claim(self, scope: Scope, account_id: int | None, body: bytes) -> AsyncIterator[IdempotencyClaim]:
        self.journal.append("claim")
        claim = IdempotencyClaim(Key("account 7", "hash of the key"), self.earlier) if self.key else IdempotencyClaim()
        try:
            yield claim
        finally:
            if claim.is_wanted and not claim.is_settled:
                self.journal.append("give the key up")

    def has_key(self, scope: Scope) -> bool:
        return bool(self.key)

    # -- upstream --

    async def ask(self, request: ChatRequest, *, on_sent: Callable[[], None] = lambda: None) -> ChatStream:
        await asyncio.sleep(self.connecting)
        self.journal.append("ask")
        on_sent()
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
        keys: ApiKeys = self  # type: ignore[assignment]
        quotas: Quotas = self  # type: ignore[assignment]
        replay: IdempotencyStore = self  # type: ignore[assignment]
        times = CallTimes(self.call_seconds, self.drain)
        calls = ChatCalls(
            self.calls, quotas, Provider(self), replay, self.call_limits, model="generalv3.5", times=times
        )
        app = endpoint(self.calls, Authenticator(accounts, keys), calls, defaults)
        content = body if isinstance(body, bytes) else json.dumps(CALL if body is None else body).encode()
        is_read = False

        async def receive() -> Message:
            nonlocal is_read
            if not is_read:
                is_read = True
                return {"type": "http.request", "body": content, "more_body": False}
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.reader.is_cut.wait(), 3600 if self.leaves is None else self.leaves)
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            self.sent.append(message)
            self.journal.append(f"send {message['status']}" if "status" in message else "send")
            await self.reader.take(self.reading)

        scope = {
            "type": "http",
            "path": "/textModel/chat",
            "headers": self.headers,
            "client": ("192.0.2.1", 1),
            RECORD: self.record,
            "extensions": {READER: self.reader},
        }
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
    def settlements(self) -> list[str]:
        return [line for line in self.journal if line.startswith("settle")]

    @property
    def frames(self) -> list[dict[str, Any]]:
        assert all(chunk.endswith(b"\n") and chunk.count(b"\n") == 1 for chunk in self.chunks)
        return [json.loads(chunk) for chunk in self.chunks]


class Reader:
    """A client that takes its time over each message."""

    def __init__(self) -> None:
        self.is_behind = False
        self.seconds_behind = 0.0
        self.is_cut = asyncio.Event()

    async def take(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.is_behind, began = bool(seconds), loop.time()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.is_cut.wait(), seconds)
        self.is_behind = False
        self.seconds_behind += loop.time() - began

    def cut(self) -> None:
        self.is_cut.set()


class Provider:
    """A world's provider. Implements `ChatProvider` with the estimates of Spark."""

    def __init__(self, world: World) -> None:
        self._world = world

    def limits(self, model: str) -> ModelLimits:
        raise AssertionError("a chat is held by its own limit")

    def estimate_tokens(self, text: str) -> int:
        return estimate_tokens(text)

    def estimate_prompt(self, messages: Iterable[ChatMessage]) -> int:
        return sum(estimate_tokens(message.text) for message in messages if not message.text.isspace())

    async def ask(self, request: ChatRequest, *, on_sent: Callable[[], None] = lambda: None) -> ChatStream:
        return await self._world.ask(request, on_sent=on_sent)


class Stream:
    """An answer on its way, after a world's script."""

    native_format = "spark"

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

    @property
    def is_warm(self) -> bool:
        return False

    async def receive(self) -> list[ChatEvent]:
        while True:
            if self._reason is not None:
                raise self._reason
            step = self._script.pop(0)
            if isinstance(step, ChatEvent):
                # What is here already comes together, as from a socket.
                events = [step]
                while self._script and isinstance(step := self._script[0], ChatEvent) and not events[-1].is_last:
                    events.append(step)
                    self._script.pop(0)
                return events
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


def timed(world: World, endpoint: type[TextChat | TextStream]) -> float:
    """Play, and return the seconds it took."""

    async def scenario() -> float:
        began = asyncio.get_running_loop().time()
        await world.call(endpoint)
        return asyncio.get_running_loop().time() - began

    return run(scenario())


class TestOrder:
    def test_chat(self) -> None:
        world = play(World(), TextChat)
        assert world.journal == [
            "identify the-uuid 小明",
            "claim",
            f"hold {PROMPT + 1} to {PROMPT + 100}",
            "ask",
            "settle: finished at last frame, 14",
            "send 200",
            "send",
            "close",
        ]
        assert world.facts == {"key_id": None, "pair": None, "prompt_estimate": PROMPT, "completion_limit": 100}
        assert world.answer == {"code": 0, "msg": "文本大模型回复成功", "content": "你好！", "consume_token": 14}
        assert world.record["outcome"] == "ok"
        assert (world.record["sid"], world.record["tokens"], world.record["account"]) == (SID, 14, 7)

    def test_the_last_frame_is_sent_after_it_was_booked(self) -> None:
        world = play(World(), TextStream)
        booked = "settle: finished at last frame, 14"
        assert world.journal[4:] == ["send 200", "send", "send", booked, "send", "send", "close"]
        assert world.chunks == [(event.native or b"") + b"\n" for event in ANSWER]
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
        assert world.chunks == [b"data: " + (event.native or b"") + b"\n\n" for event in ANSWER]

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
    def test_a_large_dialog_is_not_kept_decoded_for_somebody_who_may_be_nobody(
        self, endpoint: type[TextChat], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A text with one character of four bytes takes four times its length, which no budget counts."""
        world = World(balance=10_000_000)
        content = "a" * 1024 * 1024 + "😀"
        body = json.dumps({**CALL, "dialog": [{"role": "user", "content": content}]}, ensure_ascii=False).encode()
        del content
        kept: list[int] = []
        identify = world.identify

        async def watched(uuid: str, usernames: Sequence[str], *, address: str | None = None) -> Account:
            kept.append(tracemalloc.get_traced_memory()[0])
            return await identify(uuid, usernames, address=address)

        monkeypatch.setattr(world, "identify", watched)
        tracemalloc.start()
        try:
            play(world, endpoint, body)
        finally:
            tracemalloc.stop()
        assert world.status == 200
        assert len(kept) == 1
        assert kept[0] < 2 * len(body)

    @EITHER
    def test_an_unknown_caller_holds_nothing(self, endpoint: type[TextChat]) -> None:
        world = play(World(identified=AccountUnknown()), endpoint)
        assert (world.status, world.answer["code"]) == (200, "USER_NOT_FOUND")
        assert world.journal == ["identify the-uuid 小明", "send 200", "send"]
        assert world.settled == {}

    @EITHER
    def test_no_quota_asks_nobody(self, endpoint: type[TextChat]) -> None:
        world = play(World(balance=0), endpoint)
        assert (world.status, world.answer["code"]) == (200, "TOKEN_NOT_ENOUGH")
        assert "ask" not in world.journal
        assert world.settled == {}

    @EITHER
    def test_a_balance_that_does_not_cover_the_question(self, endpoint: type[TextChat]) -> None:
        world = play(World(balance=PROMPT), endpoint)
        assert world.answer["code"] == "TOKEN_NOT_ENOUGH"
        assert world.journal[2:] == [f"hold {PROMPT + 1} to {PROMPT + 100}", "send 200", "send"]
        assert world.settled == {}

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
        ("failure", "outcome"),
        [
            (UpstreamUnreachable("10.0.0.1"), "upstream failed"),
            (refusal(Service.SPARK, 11202, "", SID), "upstream failed"),
            (refusal(Service.SPARK, 10013, "", SID), "moderated"),
            (UpstreamTruncated(), "truncated"),
            (UpstreamTimeout("first frame", 1), "timed out"),
        ],
    )
    def test_before_the_answer(self, endpoint: type[TextChat], failure: AiProjectError, outcome: str) -> None:
        world = play(World(asking=failure), endpoint)
        assert (world.status, world.answer["code"]) == (200, "MODEL_ERROR")
        assert set(world.answer) == {"code", "msg"}
        assert world.journal[3:] == ["ask", f"settle: {outcome} at sent, 0", "send 200", "send"]
        assert world.record["error"] == type(failure).__name__
        assert "10.0.0.1" not in world.answer["msg"]

    @EITHER
    def test_at_the_first_event(self, endpoint: type[TextChat]) -> None:
        """Nothing was sent yet: the failure is a JSON object, in the stream's case too."""
        world = play(World(script=[refusal(Service.SPARK, 10013, "换个问题", None)]), endpoint)
        assert world.answer == {"code": "MODEL_ERROR", "msg": "换个问题"}
        assert world.journal[4:] == ["close", "settle: moderated at first frame, 0", "send 200", "send"]

    def test_amid_a_chat(self) -> None:
        world = play(World(script=[ANSWER[0], UpstreamTruncated()]), TextChat)
        assert set(world.answer) == {"code", "msg"}
        assert world.journal[4:] == ["close", "settle: truncated at first frame, 0", "send 200", "send"]

    def test_amid_a_stream_is_told_inside_it(self) -> None:
        world = play(World(script=[*ANSWER[:2], refusal(Service.SPARK, 11202, "x", None)]), TextStream)
        *frames, error = world.frames
        assert len(frames) == 2
        assert error["header"]["code"] == 11202
        assert error["header"]["status"] == 2
        assert error["header"]["sid"] == SID
        assert "payload" not in error
        assert world.journal[-4:] == ["settle: upstream failed at first frame, 0", "send", "send", "close"]
        assert world.settled == {"r1": 0}
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
        world = play(World(settling=KeyLost("in other hands"), key=True), TextStream)
        assert [frame["header"]["code"] for frame in world.frames] == [0, 0, 20004]
        assert len(world.settled) == 1

    def test_the_books_fail_at_a_chat(self) -> None:
        world = play(World(settling=KeyLost("in other hands"), key=True), TextChat)
        assert (world.status, world.answer["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert "content" not in world.answer


class TestSeen:
    """What counts against the bound of unpaid usage where a call fails: the prompt and what was passed on."""

    SCRIPT = (ChatEvent(reasoning="想"), *ANSWER[:2], refusal(Service.SPARK, 10014, "", None))

    def test_of_a_stream_all_that_came(self) -> None:
        world = play(World(script=self.SCRIPT), TextStream)
        assert world.seen == PROMPT + estimate_tokens("你好") + estimate_tokens("想")

    def test_of_a_chat_the_prompt_alone(self) -> None:
        assert play(World(script=self.SCRIPT), TextChat).seen == PROMPT


class TestUsageMissing:
    SCRIPT = (ANSWER[0], ANSWER[1], spark("！", 2, is_last=True))

    def test_a_chat_is_estimated(self) -> None:
        world = play(World(script=self.SCRIPT, usage=None), TextChat)
        expected = PROMPT + estimate_tokens("你好！")
        assert world.answer["consume_token"] == expected
        assert f"settle: finished at last frame, {expected}" in world.journal
        assert world.record["tokens_estimated"] is True

    def test_a_stream_tells_the_estimate_in_its_last_frame(self) -> None:
        world = play(World(script=self.SCRIPT, usage=None), TextStream)
        expected = PROMPT + estimate_tokens("你好！")
        assert world.frames[-1]["payload"]["usage"]["text"]["total_tokens"] == expected
        assert world.frames[-1]["payload"]["choices"]["text"][0]["content"] == "！"
        assert f"settle: finished at last frame, {expected}" in world.journal

    @EITHER
    def test_thinking_and_calls_count_like_the_rest(self, endpoint: type[TextChat | TextStream]) -> None:
        thought, call = "先想一想" * 10, ToolCallDelta(0, "look_up", '{"word": "x"}')
        script = (ChatEvent(reasoning=thought), ChatEvent(tool_calls=(call,)), *self.SCRIPT)
        world = play(World(script=script, usage=None), endpoint)
        expected = PROMPT + estimate_tokens("你好！") + estimate_tokens(f"{thought}{call.name}{call.arguments}")
        assert world.settlements == [f"settle: finished at last frame, {expected}"]


class TestPromptEstimate:
    @staticmethod
    def held_for(content: str) -> int:
        dialog = [{"role": "system", "content": " \n"}, {"role": "user", "content": content}]
        world = play(World(), TextChat, CALL | {"dialog": dialog})
        return int(world.facts["prompt_estimate"])

    def test_white_space_inside_a_message_counts(self) -> None:
        assert self.held_for("a" + " " * 400 + "b") >= 100

    def test_a_message_that_is_not_sent_does_not(self) -> None:
        assert self.held_for("你好，世界") == PROMPT


class TestClientGone:
    @EITHER
    def test_while_upstream_is_asked(self, endpoint: type[TextChat]) -> None:
        world = play(World(asking=100.0, leaves=1.0), endpoint)
        assert world.journal[3:] == ["ask", "asking cancelled", f"settle: client gone at sent, {PROMPT}"]
        assert world.record["outcome"] == "client gone"
        assert len(world.calls) == 0

    @EITHER
    def test_before_the_question_is_sent_it_costs_nothing(self, endpoint: type[TextChat | TextStream]) -> None:
        world = play(World(connecting=100.0, leaves=1.0), endpoint)
        assert world.journal[3:] == ["settle: client gone at held, 0"]

    @EITHER
    def test_who_gave_a_key_is_asked_for_all_the_same(self, endpoint: type[TextChat | TextStream]) -> None:
        """It comes back for the answer: cut here, it would pay for the question twice."""
        world = play(World(asking=100.0, leaves=1.0, key=True), endpoint)
        assert world.settlements == ["settle: client gone at last frame, 14"]
        assert world.stored is not None

    @EITHER
    def test_amid_the_answer_it_is_read_on_and_its_real_usage_charged(self, endpoint: type[TextChat]) -> None:
        world = World(script=[*ANSWER[:2], 29.0, ANSWER[2]], leaves=1.0)
        assert timed(world, endpoint) == 29
        assert world.journal[-1] == "close"
        assert world.settlements == ["settle: client gone at last frame, 14"]
        assert world.record["outcome"] == "client gone"
        assert world.record["tokens"] == 14

    @EITHER
    @pytest.mark.parametrize("drain", [0.0, 30.0])
    def test_an_answer_that_is_cut_off_pays_what_was_generated(self, endpoint: type[TextChat], drain: float) -> None:
        world = World(script=[*ANSWER[:2], 100.0, ANSWER[2]], leaves=1.0, drain=drain)
        assert timed(world, endpoint) == 1 + drain
        expected = PROMPT + estimate_tokens("你好")
        assert world.journal[-2:] == ["close", f"settle: client gone at first frame, {expected}"]
        assert world.stream is not None
        assert world.stream.is_closed
        assert world.record["outcome"] == "client gone"
        assert not [message for message in world.sent if message.get("more_body") is False]

    @EITHER
    def test_what_comes_while_it_is_read_on_counts(self, endpoint: type[TextChat]) -> None:
        world = play(World(script=[ANSWER[0], 10.0, ANSWER[1], 100.0, ANSWER[2]], leaves=1.0), endpoint)
        assert world.settlements == [f"settle: client gone at first frame, {PROMPT + estimate_tokens('你好')}"]

    @EITHER
    def test_an_answer_that_fails_while_it_is_read_on_is_free(self, endpoint: type[TextChat]) -> None:
        world = play(World(script=[ANSWER[0], 10.0, UpstreamTruncated()], leaves=1.0), endpoint)
        assert world.settlements == ["settle: truncated at first frame, 0"]

    @EITHER
    def test_a_stopping_server_cuts_it_off_for_free(self, endpoint: type[TextChat]) -> None:
        async def scenario() -> World:
            world = World(script=[ANSWER[0], 20.0, ANSWER[1]], leaves=1.0)
            calling = asyncio.create_task(world.call(endpoint))
            await asyncio.sleep(5)
            await world.calls.drain(1)
            await calling
            return world

        world = run(scenario())
        assert world.settlements == ["settle: server stopped at first frame, 0"]

    @EITHER
    def test_who_gave_a_key_comes_back_for_all_of_it(self, endpoint: type[TextChat]) -> None:
        world = World(script=[*ANSWER[:2], 100.0, ANSWER[2]], leaves=1.0, drain=0, key=True)
        assert timed(world, endpoint) == 100
        assert world.settlements == ["settle: client gone at last frame, 14"]
        assert world.stored is not None
        assert "give the key up" not in world.journal

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
        assert world.journal[3:] == ["ask", "asking cancelled", "settle: server stopped at sent, 0"]
        assert "outcome" not in world.record


class TestTimeLimit:
    """The limit of a whole call binds whoever holds it up; who held it up decides how it ends."""

    def test_a_reader_that_takes_too_long_pays_as_one_that_hung_up(self) -> None:
        script = [event for frame in ANSWER[:2] for event in (frame, 0.1)] + [ANSWER[2]]
        world = World(script=script, reading=40.0, call_seconds=60.0)
        assert timed(world, TextStream) == 60
        assert world.settlements == [f"settle: client gone at first frame, {PROMPT + estimate_tokens('你')}"]
        assert world.record["outcome"] == "client gone"
        assert world.record["seconds_behind"] >= 40

    def test_reading_on_quickly_in_the_end_does_not_make_it_upstreams_fault(self) -> None:
        world = World(script=[ANSWER[0], 100.0, *ANSWER[1:]], reading=2.0, call_seconds=60.0)
        assert timed(world, TextStream) == 60
        assert world.settlements == [f"settle: client gone at first frame, {PROMPT + estimate_tokens('你')}"]

    @EITHER
    def test_upstream_that_takes_too_long_costs_nothing(self, endpoint: type[TextChat | TextStream]) -> None:
        world = World(script=[ANSWER[0], 100.0, *ANSWER[1:]], call_seconds=60.0)
        assert timed(world, endpoint) == 60
        assert world.settlements == ["settle: timed out at first frame, 0"]

    @EITHER
    def test_who_has_gone_meanwhile_pays(self, endpoint: type[TextChat | TextStream]) -> None:
        """Also with a key, whose answer is read on without the bound of others."""
        world = World(script=[ANSWER[0], 100.0, *ANSWER[1:]], leaves=1.0, key=True, call_seconds=60.0)
        assert timed(world, endpoint) == 60
        assert world.settlements == [f"settle: client gone at first frame, {PROMPT + estimate_tokens('你')}"]

    def test_the_time_until_the_first_frame_counts(self) -> None:
        world = World(asking=50.0, script=[ANSWER[0], 100.0, *ANSWER[1:]], call_seconds=60.0)
        assert timed(world, TextStream) == 60


class TestKeys:
    @EITHER
    def test_an_earlier_answer_is_given_again_and_nobody_is_asked(self, endpoint: type[TextChat]) -> None:
        first = play(World(key=True), endpoint)
        assert first.stored is not None
        again = play(World(key=True, earlier=first.stored, balance=0), endpoint)
        assert again.journal[:2] == ["identify the-uuid 小明", "claim"]
        assert not [line for line in again.journal[2:] if not line.startswith("send")]
        assert again.sent == first.sent

    def test_in_the_dialect_that_is_asked_for_then(self) -> None:
        first = play(World(key=True), TextStream)
        events = World(key=True, earlier=first.stored, headers=[(b"accept", b"text/event-stream")])
        assert play(events, TextStream).chunks == [b"data: %b\n" % chunk for chunk in first.chunks]

    def test_an_estimate_is_stored_as_it_was_told(self) -> None:
        world = play(World(script=TestUsageMissing.SCRIPT, usage=None, key=True), TextStream)
        assert world.stored == b"".join(world.chunks).removesuffix(b"\n")

    @EITHER
    @pytest.mark.parametrize("failing", [{"balance": 0}, {"asking": UpstreamRefused(code=1)}])
    def test_a_failed_call_gives_its_key_up(self, endpoint: type[TextChat], failing: dict[str, Any]) -> None:
        world = play(World(key=True, leaves=1.0, **failing), endpoint)
        assert "give the key up" in world.journal
        assert world.stored is None


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
        assert world.settlements == ["settle: server stopped at first frame, 0"]

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
        assert world.settlements == ["settle: server stopped at first frame, 0"]

    @EITHER
    def test_a_client_that_does_not_read_gets_no_second_answer(self, endpoint: type[TextChat]) -> None:
        """Nothing can be told inside; whether it can be told outside, the outer layer knows."""

        async def scenario() -> World:
            world = World(reading=3600)
            calling = asyncio.create_task(world.call(endpoint))
            await asyncio.sleep(1)
            await world.calls.drain(1)
            with pytest.raises(Unavailable):
                await calling
            return world

        assert [message["status"] for message in run(scenario()).sent] == [200]

    @EITHER
    def test_an_answer_that_is_being_booked_still_leaves(self, endpoint: type[TextChat]) -> None:
        """It is paid for: what was ordered of the books cannot be called back."""

        async def scenario() -> World:
            world = World(settling=3.5)
            calling = asyncio.create_task(world.call(endpoint))
            await asyncio.sleep(1)
            await world.calls.drain(1)
            await calling
            return world

        world = run(scenario())
        assert world.settlements == ["settle: finished at last frame, 14"]
        assert world.sent[-1].get("more_body", False) is False
        assert b"14" in world.sent[-1 if endpoint is TextChat else -2]["body"]


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

            with ClientWatch({}, receive, lambda: told.append("first")) as client:
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

            with ClientWatch({}, receive, lambda: told.append("gone")):
                await asyncio.sleep(1)
            await asyncio.sleep(10)
            assert told == []
            assert len(asyncio.all_tasks()) == 1

        run(scenario())
