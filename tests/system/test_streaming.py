"""The stream, byte by byte and by the clock: one frame in one chunk, the moment it comes, always ended properly."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from aiproject.codes import Detail
from aiproject.messages.formatting import Language, format_message
from aiproject.protocols.iflytek.error_codes import Service, advise
from aiproject.sandbox.answers import make_answer
from system import desktop_app, wire
from system.harness import LocalServer, Person, Platform, estimated, post_json, question


def chinese(detail: Detail) -> str:
    return format_message(detail, Language.ZH)


@pytest.fixture
async def person(server: LocalServer) -> Person:
    return await server.person()


def text_of(frames: list[dict[str, Any]]) -> str:
    return "".join(element["content"] for frame in frames for element in frame["payload"]["choices"]["text"])


def usage_of(frames: list[dict[str, Any]]) -> dict[str, int]:
    usage = frames[-1]["payload"]["usage"]["text"]
    assert isinstance(usage, dict)
    return usage


def assert_error_frame(frame: dict[str, Any], code: int | None = None) -> str:
    """In Spark's shape: no payload, a code that is not 0, a message for a person; return the message."""
    assert set(frame) == {"header"}
    header = frame["header"]
    assert set(header) == {"code", "message", "sid", "status"}
    assert header["status"] == 2
    assert type(header["code"]) is int
    assert header["code"] != 0
    if code is not None:
        assert header["code"] == code
    message = header["message"]
    assert isinstance(message, str)
    assert message
    return message


class TestFraming:
    async def test_the_body_is_chunked_and_ended(self, person: Person) -> None:
        async with wire.Connection(person.port) as connection:
            connection.ask_json("/textModel/stream", person.call("你好吗"), [("Accept-Encoding", "gzip, br, zstd")])
            answer = await connection.answer()
            assert answer.status == 200
            assert answer.header("transfer-encoding") == "chunked"
            assert answer.header("content-length") is None
            assert answer.header("content-encoding") is None
            assert answer.header("cache-control") == "no-store"
            assert answer.header("x-accel-buffering") == "no"
            assert answer.is_complete
            # The connection goes on: nothing stands behind the zero chunk.
            connection.ask("GET", "/health")
            assert (await connection.answer()).status == 200

    async def test_each_chunk_is_one_frame_of_spark(self, person: Person) -> None:
        answer = await person.stream("你好吗")
        frames = answer.frames()
        assert len(frames) >= 10
        assert [frame["header"]["status"] for frame in frames] == [0] + [1] * (len(frames) - 2) + [2]
        assert len({frame["header"]["sid"] for frame in frames}) == 1
        assert frames[0]["header"]["sid"].startswith("cht")
        for frame in frames:
            assert set(frame) == {"header", "payload"}
            assert frame["header"]["code"] == 0
            assert all(isinstance(element["content"], str) for element in frame["payload"]["choices"]["text"])
        assert ["usage" in frame["payload"] for frame in frames] == [False] * (len(frames) - 1) + [True]
        assert text_of(frames) == make_answer("你好吗", turn=1)
        assert "【沙盒】".encode() in answer.body, "short frames come in UTF-8, as upstream sent them"

    async def test_the_charge_is_what_the_last_frame_says_and_is_booked_before_it(self, person: Person) -> None:
        async with wire.Connection(person.port) as connection:
            connection.ask_json("/textModel/stream", person.call("How much?"))
            answer = await connection.head()
            while True:
                chunk = await connection.chunk(answer)
                assert chunk is not None
                if json.loads(chunk.data)["header"]["status"] == 2:
                    break
            usage = usage_of(answer.frames())
            # The zero chunk was not read yet.
            assert await person.tokens() == 1_000_000 - usage["total_tokens"]
        assert set(usage) == {"question_tokens", "prompt_tokens", "completion_tokens", "total_tokens"}
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    async def test_a_wide_frame_arrives_in_ascii(self, person: Person) -> None:
        answer = await person.stream("宽的回答 [[fault:wide bytes=9000]]")
        wide = [chunk.data for chunk in answer.chunks if len(chunk.data) > 2048]
        assert wide
        assert all(data.isascii() for data in wide)
        assert text_of(answer.frames()).count("宽" * 3000) == 1

    async def test_emoji_and_characters_beyond_the_basic_plane(self, person: Person) -> None:
        frames = (await person.stream("[[fault:emoji]]")).frames()
        text = text_of(frames)
        assert "👩‍👩‍👧‍👦 🎉 🇨🇳 👍🏽" in text
        assert "𠮷野家" in text
        text.encode()  # no half of a pair

    async def test_as_server_sent_events(self, person: Person) -> None:
        answer = await person.stream("你好", ("Accept", "text/event-stream"))
        assert answer.status == 200
        assert (answer.header("content-type") or "").startswith("text/event-stream")
        assert answer.header("cache-control") == "no-store"
        frames = []
        for chunk in answer.chunks:
            assert chunk.data.startswith(b"data: {")
            assert chunk.data.endswith(b"}\n\n")
            assert chunk.data.count(b"\n") == 2
            frames.append(json.loads(chunk.data.removeprefix(b"data: ")))
        assert text_of(frames) == make_answer("你好", turn=1)
        assert answer.is_complete

    async def test_as_server_sent_events_an_error_in_mid_stream(self, person: Person) -> None:
        answer = await person.stream("[[fault:error code=10012 at=middle]]", ("Accept", "text/event-stream"))
        assert_error_frame(json.loads(answer.chunks[-1].data.removeprefix(b"data: ")), 10012)
        assert answer.is_complete

    async def test_an_answer_of_a_single_frame(self, person: Person) -> None:
        [frame] = (await person.stream("short [[fault:single]]")).frames()
        assert frame["header"]["status"] == 2
        assert text_of([frame]) == make_answer("short", turn=1)

    async def test_frames_without_text_do_not_reach_the_app(self, person: Person) -> None:
        for fault in ("plugins", "null", "empty", "no_payload"):
            frames = (await person.stream(f"sources [[fault:{fault}]]")).frames()
            assert text_of(frames) == make_answer("sources", turn=1), fault

    async def test_a_thousand_frames(self, person: Person) -> None:
        frames = (await person.stream("long [[fault:frames n=1000]]")).frames()
        assert len(frames) == 1000
        assert await person.tokens() == 1_000_000 - usage_of(frames)["total_tokens"]


class TestTime:
    async def test_frames_come_as_upstream_sends_them(self, person: Person) -> None:
        answer = await person.stream("spaced [[fault:slow seconds=0.05]] [[fault:frames n=24]]")
        came = [chunk.at for chunk in answer.chunks]
        assert len(came) == 24
        gaps = [later - earlier for earlier, later in itertools.pairwise(came)]
        # Generous, for a busy machine: a server that collects frames would show many gaps of nothing and a few long.
        assert came[-1] - came[0] >= 23 * 0.05 * 0.8
        assert sum(gap > 0.02 for gap in gaps) >= 18, gaps

    async def test_a_frame_does_not_wait_for_the_next(self, person: Person) -> None:
        async with wire.Connection(person.port) as connection:
            connection.ask_json("/textModel/stream", person.call("wait [[fault:stall at=middle after=3 seconds=1.5]]"))
            answer = await connection.answer()
        came = [chunk.at for chunk in answer.chunks]
        assert came[3] - came[2] >= 1.2
        assert came[2] - came[0] <= 1.0
        assert text_of(answer.frames()) == make_answer("wait", turn=1)


class TestErrors:
    async def test_before_the_first_frame_it_is_the_json_object(self, person: Person) -> None:
        answer = await person.stream("[[fault:error code=10013 message=请换个话题 at=first]]")
        assert answer.status == 200
        assert answer.header("content-length") is not None
        assert answer.json() == {"code": "MODEL_ERROR", "msg": "请换个话题"}
        assert await person.tokens() == 1_000_000

    async def test_before_the_first_frame_also_for_server_sent_events(self, person: Person) -> None:
        answer = await person.stream("[[fault:error code=10907 at=first]]", ("Accept", "text/event-stream"))
        assert answer.json() == {
            "code": "MODEL_ERROR",
            "msg": chinese(advise(Service.SPARK, 10907).detail),
        }

    @pytest.mark.parametrize(
        ("fault", "code", "message"),
        [
            ("error code=10014 at=middle message=已停止", 10014, "已停止"),
            ("error code=10012 at=middle", 10012, chinese(advise(Service.SPARK, 10012).detail)),
            ("truncate after=3", 20002, "模型的回答中断，请稍后再试"),
            ("truncate after=3 code=1011", 20002, "模型的回答中断，请稍后再试"),
            ("reset after=3", 20002, "模型的回答中断，请稍后再试"),
            ("not_json after=3", 20003, "模型服务返回了无法识别的数据，请稍后再试"),
            ("binary after=3", 20003, "模型服务返回了无法识别的数据，请稍后再试"),
            ("huge after=3", None, None),
            ("usage value=negative", 20003, "模型服务返回了无法识别的数据，请稍后再试"),
            ("usage value=absurd", 20003, "模型服务返回了无法识别的数据，请稍后再试"),
        ],
    )
    async def test_in_mid_stream_it_is_a_frame_and_a_proper_end(
        self, person: Person, server: LocalServer, fault: str, code: int | None, message: str | None
    ) -> None:
        async with wire.Connection(person.port) as connection:
            connection.ask_json("/textModel/stream", person.call(f"broken [[fault:{fault}]]"))
            answer = await connection.answer()
            *frames, last = answer.frames()
            assert frames
            assert make_answer("broken", turn=1).startswith(text_of(frames))
            told = assert_error_frame(last, code)
            assert message is None or told == message
            assert answer.chunks[-1].data.isascii()
            connection.ask_json("/textModel/stream", person.call("whole"))
            assert text_of((await connection.answer()).frames()) == make_answer("whole", turn=1)
            charged = usage_of((await person.stream("whole")).frames())["total_tokens"]
        assert await person.tokens() == 1_000_000 - 2 * charged

    async def test_a_silent_upstream_is_given_up(self, start_server: Callable[..., LocalServer]) -> None:
        server = start_server(upstream_timeout=0.4)
        person = await server.person()
        answer = await person.stream("silent [[fault:stall at=middle after=2]]")
        *frames, last = answer.frames()
        assert len(frames) == 2
        assert assert_error_frame(last, 20001) == "模型响应超时，请稍后再试"
        first = await person.stream("silent [[fault:stall at=first]]")
        assert first.json() == {"code": "MODEL_ERROR", "msg": "模型响应超时，请稍后再试"}
        assert (await person.chat("silent [[fault:stall at=middle after=2]]")).json()["code"] == "MODEL_ERROR"
        assert await person.tokens() == 1_000_000

    async def test_a_whole_call_has_a_limit_too(self, start_server: Callable[..., LocalServer]) -> None:
        server = start_server(upstream_call_timeout=0.6)
        person = await server.person()
        slow = "endless [[fault:slow seconds=0.1]] [[fault:frames n=1000]]"
        async with asyncio.timeout(5):
            *frames, last = (await person.stream(slow)).frames()
        assert 2 <= len(frames) <= 7
        assert_error_frame(last, 20001)
        assert (await person.chat(slow)).json() == {"code": "MODEL_ERROR", "msg": "模型响应超时，请稍后再试"}
        assert await person.tokens() == 1_000_000


class TestUsage:
    async def test_missing_numbers_are_estimated_told_and_charged(self, person: Person) -> None:
        asked = "no usage [[fault:usage value=missing]]"
        frames = (await person.stream(asked)).frames()
        usage = usage_of(frames)
        assert usage["total_tokens"] == estimated(question(asked), text_of(frames))
        assert await person.tokens() == 1_000_000 - usage["total_tokens"]
        chat = (await person.chat(asked)).json()
        assert chat["consume_token"] == usage["total_tokens"]
        assert await person.tokens() == 1_000_000 - 2 * usage["total_tokens"]

    async def test_numbers_in_texts_and_a_sum_that_is_none_are_put_right(self, person: Person) -> None:
        spent = 0
        for value in ("text", "total"):
            usage = usage_of((await person.stream(f"odd [[fault:usage value={value}]]")).frames())
            assert all(type(number) is int for number in usage.values())
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
            spent += usage["total_tokens"]
        assert await person.tokens() == 1_000_000 - spent

    @pytest.mark.parametrize("value", ["negative", "absurd"])
    async def test_impossible_numbers_charge_nothing(self, person: Person, value: str) -> None:
        answer = (await person.chat(f"odd [[fault:usage value={value}]]")).json()
        assert answer == {"code": "MODEL_ERROR", "msg": "模型服务返回了无法识别的数据，请稍后再试"}
        assert await person.tokens() == 1_000_000


class TestCrowds:
    @pytest.mark.timeout(90)
    async def test_a_hundred_streams_at_once_each_get_their_own_text(
        self, server: LocalServer, person: Person, platform: Platform
    ) -> None:
        questions = [f"Question number {n}{' ?' * (n % 7)}" for n in range(100)]
        completed = platform.counts("chat")["completed"]
        answers = await asyncio.gather(*(person.stream(f"{text} [[fault:slow seconds=0.02]]") for text in questions))
        spent = 0
        for text, answer in zip(questions, answers, strict=True):
            frames = answer.frames()
            assert answer.is_complete
            assert text_of(frames) == make_answer(text, turn=1)
            spent += usage_of(frames)["total_tokens"]
        assert await person.tokens() == 1_000_000 - spent
        counts = platform.counts("chat")
        assert counts["completed"] == completed + 100
        assert counts["most_open"] >= 50
        await server.settles()


WELL = {
    "plain": "",
    "single": "single",
    "empty": "empty",
    "null": "null",
    "plugins": "plugins",
    "no payload": "no_payload",
    "reasoning": "reasoning",
    "many frames": "frames n=300",
    "few frames": "frames n=2",
    "wide": "wide bytes=30000",
    "slow": "slow seconds=0.01",
    "no usage": "usage value=missing",
    "usage in texts": "usage value=text",
    "usage that does not add up": "usage value=total",
    "no close": "no_close",
}


class TestDesktopApp:
    """The existing desktop app shows the whole text, whatever upstream does that ends well, and an error otherwise."""

    @pytest.mark.parametrize("fault", WELL.values(), ids=WELL.keys())
    @pytest.mark.parametrize("asked", ["今天天气怎么样？", "How is the weather?"])
    async def test_it_shows_the_whole_text(self, person: Person, asked: str, fault: str) -> None:
        prompt = f"{asked} [[fault:{fault}]]" if fault else asked
        shown = await asyncio.to_thread(desktop_app.ask, person.port, person.uuid, person.username, prompt)
        assert shown.error is None
        assert shown.is_last_seen
        assert shown.unread.strip() == ""
        whole = make_answer(asked, turn=1)
        if fault.startswith("wide"):
            assert shown.text.startswith(whole[:6])
            assert shown.text.endswith(whole[-6:])
            assert max(shown.text.count("宽") * 3, shown.text.count("é") * 2) == 30000
        elif fault.startswith("frames n=300"):
            assert shown.text == (whole * 300)[:300]
        else:
            assert shown.text == whole
        assert shown.total_tokens is not None
        # Asked for 4096 tokens at most, upstream answers with more: what was not held is not charged.
        held = estimated(question(prompt), "") + 4096
        assert (shown.total_tokens > held) == fault.startswith("wide")
        assert await person.tokens() == 1_000_000 - min(shown.total_tokens, held)

    async def test_it_shows_emoji(self, person: Person) -> None:
        shown = await asyncio.to_thread(desktop_app.ask, person.port, person.uuid, person.username, "[[fault:emoji]]")
        assert "👩‍👩‍👧‍👦 🎉 🇨🇳 👍🏽" in shown.text
        assert shown.is_last_seen

    @pytest.mark.parametrize(
        "fault",
        ["error code=10014 at=middle", "error code=10013 at=first", "truncate", "reset", "not_json", "binary", "huge"],
    )
    async def test_it_shows_an_error_and_does_not_crash(self, person: Person, fault: str) -> None:
        shown = await asyncio.to_thread(
            desktop_app.ask, person.port, person.uuid, person.username, f"hi [[fault:{fault}]]"
        )
        assert shown.error
        assert not shown.is_last_seen
        assert await person.tokens() == 1_000_000

    async def test_it_shows_refusals(self, server: LocalServer, person: Person) -> None:
        await server.set_balance(person, tokens=0)
        shown = await asyncio.to_thread(desktop_app.ask, person.port, person.uuid, person.username, "hi")
        assert shown.error == "用户token额度不足"
        shown = await asyncio.to_thread(desktop_app.ask, person.port, "0" * 32, person.username, "hi")
        assert shown.error == "找不到指定用户"

    def test_its_way_of_reading_is_as_fragile_as_described(self) -> None:
        # What this class proves is worth something only if the reader here breaks where the real one does.
        frame = '{"header":{"code":0,"status":1},"payload":{"choices":{"text":[{"content":"宽"}]}}}'.encode()
        whole = desktop_app.Shown()
        for piece in (frame, b"\n", b"data: " + frame + b"\n\n", frame[:20], frame[20:]):
            desktop_app.take(whole, piece)
        assert whole.text == "宽宽宽"
        lost = desktop_app.Shown()
        for piece in (frame + frame, frame):
            desktop_app.take(lost, piece)
        assert lost.text == ""
        inside = frame.index("宽".encode()) + 1
        with pytest.raises(UnicodeDecodeError):
            desktop_app.take(desktop_app.Shown(), frame[:inside])


async def test_a_chat_gives_the_same_text_in_one_object(person: Person) -> None:
    for fault in ("", "[[fault:single]]", "[[fault:empty]]", "[[fault:plugins]]", "[[fault:wide bytes=5000]]"):
        prompt = f"同样的问题 {fault}".strip()
        answer = await person.chat(prompt)
        frames = (await person.stream(prompt)).frames()
        assert answer.json()["content"] == text_of(frames)
        assert answer.json()["consume_token"] == usage_of(frames)["total_tokens"]


async def test_a_history_is_part_of_the_question(person: Person, platform: Platform) -> None:
    dialog = [
        {"role": "user", "content": "第一问"},
        {"role": "assistant", "content": "第一答"},
        {"role": "user", "content": "第二问"},
    ]
    answer = (await post_json(person.port, "/textModel/chat", person.call(dialog))).json()
    assert answer["content"] == make_answer("第二问", turn=2)
    assert platform.last("chat")["contents"] == ["第一问", "第一答", "第二问"]
