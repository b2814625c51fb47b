"""Spark's websocket conversation: the documents' own frames, broken ones, and what a client is shown of each."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.errors import InvalidInput, UpstreamFailed, UpstreamProtocolViolation, UpstreamRefused, UpstreamTruncated
from aiproject.messages.formatting import Language, format_error
from aiproject.protocols.chat import ChatEvent, ChatMessage, ChatRequest, Role, ToolCallDelta, Usage
from aiproject.protocols.iflytek.spark import answer as spark
from aiproject.protocols.iflytek.spark.answer import SparkAnswer
from aiproject.protocols.iflytek.spark.estimate import estimate_tokens
from aiproject.protocols.iflytek.spark.frames import MAX_CLIENT_FRAME, error_frame, render, with_usage
from aiproject.protocols.iflytek.spark.models import completion_limit, context_limit, known_domains, takes_system_role
from aiproject.protocols.iflytek.spark.request import build_request, sendable_messages
from aiproject.protocols.iflytek.spark.server import SparkRequestError, parse_question

SID = "cht000cb087@dx18793cd421fb894542"
USAGE = {"question_tokens": 4, "prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
DOMAINS = ["lite", "generalv3.5", "kjwx", "x1", "somebody-elses"]


def packed(value: object, **keywords: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), **keywords).encode()


def frame_of(
    *elements: dict[str, Any],
    status: int = 1,
    usage: dict[str, Any] | None = None,
    header: dict[str, Any] | None = None,
    **payload: Any,
) -> dict[str, Any]:
    frame: dict[str, Any] = {
        "header": {"code": 0, "message": "Success", "sid": SID, "status": status, **(header or {})},
        "payload": {"choices": {"status": status, "seq": 3, "text": list(elements)}, **payload},
    }
    if usage is not None:
        frame["payload"]["usage"] = {"text": usage}
    return frame


def said(content: str | None, **members: Any) -> dict[str, Any]:
    return {"content": content, "role": "assistant", "index": 0, **members}


def shown(event: ChatEvent) -> dict[str, Any]:
    """The frame that a client is shown, read as the desktop app reads it."""
    assert event.native is not None
    frame: dict[str, Any] = json.loads(event.native)
    assert "code" not in frame
    assert type(frame["header"]["code"]) is int
    assert type(frame["header"]["status"]) is int
    assert all(type(element["content"]) is str for element in frame["payload"]["choices"]["text"])
    assert b"\n" not in event.native
    assert len(event.native) <= MAX_CLIENT_FRAME or event.native.isascii()
    return frame


def receive_one(frame: bytes | dict[str, Any]) -> tuple[ChatEvent, SparkAnswer]:
    answer = SparkAnswer()
    return answer.receive(frame if isinstance(frame, bytes) else packed(frame)), answer


# The documents' sample frames (《星火认知大模型 Web API 文档》, 《星火X1 websocket 协议文档》).
FIRST = packed(frame_of(said("有"), status=0))
MIDDLE = packed(frame_of(said("什么问题"), status=1))
LAST = packed(frame_of(said("我可以帮助你的吗？"), status=2, usage=USAGE))
REASONING = packed(frame_of(said("", reasoning_content="先分析题意，")))
FUNCTION_CALL = packed(
    frame_of(
        said(
            "",
            content_type="text",
            function_call={"arguments": '{"city":"合肥","date":"2024-05-01"}', "name": "get_weather"},
        ),
        status=2,
        usage={"question_tokens": 3, "prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3},
    )
)
PLUGIN = {
    "text": [
        {
            "name": "ifly_search",
            "content": '[{"index":1,"url":"https://example.com/a","title":"A"}]',
            "content_type": "text",
            "content_meta": None,
            "role": "tool",
            "status": "finished",
            "invoked": {"namespace": "ifly_search", "status_code": 200, "status_msg": "Success", "type": "local"},
        }
    ]
}
SOURCES = packed({"header": {"code": 0, "message": "Success", "sid": SID, "status": 1}, "payload": {"plugins": PLUGIN}})
PICTURE_ANSWER = packed(
    frame_of(
        said("一只猫。", content_type="text"),
        status=2,
        usage={"question_tokens": 8, "prompt_tokens": 281, "completion_tokens": 24, "total_tokens": 305},
    )
)


def refused(code: int, message: str) -> bytes:
    return packed({"header": {"code": code, "message": message, "sid": SID, "status": 2}})


class TestSampleFrames:
    def test_an_answer_in_three_frames_passes_untouched(self) -> None:
        answer = SparkAnswer()
        events = []
        for frame in (FIRST, MIDDLE, LAST):
            assert not answer.finished
            event = answer.receive(frame)
            assert event.native is frame
            events.append(event)
        assert "".join(event.text for event in events) == "有什么问题我可以帮助你的吗？"
        assert [event.is_last for event in events] == [False, False, True]
        assert answer.usage == events[2].usage == Usage(5, 9, 14, 4)
        assert (answer.sid, answer.frames, answer.finished) == (SID, 3, True)
        answer.connection_ended()

    @pytest.mark.parametrize("frame", [LAST, PICTURE_ANSWER])
    def test_a_single_frame_is_a_whole_answer(self, frame: bytes) -> None:
        event, answer = receive_one(frame)
        assert event.is_last
        assert answer.finished
        assert event.native is frame

    def test_thinking_is_kept_apart_from_text(self) -> None:
        event, _ = receive_one(REASONING)
        assert (event.text, event.reasoning) == ("", "先分析题意，")
        assert event.native is REASONING

    def test_a_function_call(self) -> None:
        event, answer = receive_one(FUNCTION_CALL)
        assert event.tool_calls == (ToolCallDelta(0, "get_weather", '{"city":"合肥","date":"2024-05-01"}'),)
        assert event.native is FUNCTION_CALL
        assert answer.usage == Usage(3, 0, 3, 3)

    def test_search_sources_do_not_reach_the_client(self) -> None:
        event, _ = receive_one(SOURCES)
        assert event == ChatEvent()

    def test_members_that_we_do_not_know_are_passed_on(self) -> None:
        frame = packed(frame_of(said("好", content_meta=None), status=1, question_type="闲聊") | {"trace": [1, {}]})
        event, _ = receive_one(frame)
        assert event.native is frame

    @pytest.mark.parametrize(
        ("code", "message", "retryable"),
        [
            (10003, "ClientMsgError:(23:02:32.721) invalid model domain", False),
            (11200, "AppIdNoAuthError:(12:17:04.432) tokens.total", False),
            (11202, "AppIdQpsOverFlowError:(12:17:04.432)", True),
            (10012, "EngineInternalError:The system is busy, please try again later.", True),
            (10010, "RecvFromEngineError:Engine Busy", True),
            (10222, "AbnormalNetworkError:rpc error: code = Unavailable desc = ...EOF", True),
            (11210, "NotEnoughCvError:insufficient credits", False),
        ],
    )
    def test_an_error_frame_has_no_payload(self, code: int, message: str, retryable: bool) -> None:
        answer = SparkAnswer()
        with pytest.raises(UpstreamRefused) as caught:
            answer.receive(refused(code, message))
        assert (caught.value.code, caught.value.sid, caught.value.retryable) == (code, SID, retryable)
        assert message in caught.value.detail
        assert not answer.finished

    def test_an_error_in_mid_answer(self) -> None:
        answer = SparkAnswer()
        answer.receive(FIRST)
        with pytest.raises(UpstreamRefused) as caught:
            answer.receive(refused(10014, "回答涉及敏感内容"))
        assert caught.value.hint == "回答涉及敏感内容"

    def test_an_error_frame_counts_whatever_its_payload_is(self) -> None:
        frame = {"header": {"code": "10013", "message": None, "sid": 7, "status": "x2"}, "payload": "none"}
        with pytest.raises(UpstreamProtocolViolation):
            receive_one(frame)
        frame["header"] = {"code": "10013", "message": None, "sid": 7}
        with pytest.raises(UpstreamRefused) as caught:
            receive_one(frame)
        assert (caught.value.code, caught.value.sid) == (10013, None)


class TestMendedFrames:
    @pytest.mark.parametrize("element", [said(None), {"role": "assistant", "index": 0}])
    def test_no_content_becomes_an_empty_one(self, element: dict[str, Any]) -> None:
        event, _ = receive_one(frame_of(element))
        assert event.text == ""
        assert shown(event) == frame_of(element | {"content": ""})

    def test_a_frame_of_several_lines_becomes_one(self) -> None:
        frame = json.dumps(json.loads(MIDDLE), ensure_ascii=False, indent=1).encode()
        event, _ = receive_one(frame)
        assert event.text == "什么问题"
        assert shown(event) == json.loads(MIDDLE)
        event, _ = receive_one(MIDDLE.replace(b',"payload"', b',\r"payload"'))
        assert event.native is not None
        assert b"\r" not in event.native

    def test_up_to_the_client_s_piece_a_frame_may_hold_any_character(self) -> None:
        room = MAX_CLIENT_FRAME - len(packed(frame_of(said(""))))
        text = "汉" * (room // 3) + "a" * (room % 3)
        frame = packed(frame_of(said(text)))
        assert len(frame) == MAX_CLIENT_FRAME
        event, _ = receive_one(frame)
        assert event.native is frame

    def test_a_longer_frame_is_escaped(self) -> None:
        wanted = frame_of(said("汉😀" * 400, extra={"kept": [1.5, None, True]}), status=2, usage=USAGE)
        event, _ = receive_one(wanted)
        assert event.text == "汉😀" * 400
        assert event.native == json.dumps(wanted, separators=(",", ":")).encode("ascii")

    def test_a_longer_frame_of_ascii_passes_untouched(self) -> None:
        frame = packed(frame_of(said("x" * 54_000)))
        event, _ = receive_one(frame)
        assert event.native is frame

    def test_a_tool_s_words_are_not_the_model_s(self) -> None:
        source = {"content": "[]", "role": "tool", "index": 0}
        event, _ = receive_one(frame_of(source, said("好")))
        assert event.text == "好"
        assert shown(event)["payload"]["choices"]["text"] == [said("好")]
        event, _ = receive_one(frame_of(source))
        assert (event.text, event.native) == ("", None)

    @pytest.mark.parametrize(
        "payload",
        [
            {"plugins": PLUGIN, "usage": {"text": USAGE}},
            {"choices": None, "usage": {"text": USAGE}},
            {"choices": {"status": 2, "seq": 9, "text": []}, "usage": {"text": USAGE}},
            {"choices": {"text": [{"content": "[]", "role": "tool"}]}, "usage": {"text": USAGE}},
        ],
    )
    def test_a_last_frame_without_text_gets_an_empty_one(self, payload: dict[str, Any]) -> None:
        event, answer = receive_one({"header": json.loads(LAST)["header"], "payload": payload})
        assert answer.finished
        frame = shown(event)
        assert frame["payload"]["choices"]["text"] == [said("")]
        assert frame["payload"]["usage"]["text"] == USAGE
        assert "plugins" not in frame["payload"]

    def test_a_frame_without_payload_is_survived(self) -> None:
        header = {"code": 0, "message": "Success", "sid": SID, "status": 0}
        assert receive_one({"header": header})[0] == ChatEvent()
        event, answer = receive_one({"header": header | {"status": 2}, "payload": None})
        assert answer.finished
        assert answer.usage is None
        assert shown(event)["payload"]["choices"] == {"text": [said("")], "status": 2, "seq": 0}

    def test_the_status_of_the_choices_stands_in_for_the_header_s(self) -> None:
        frame = frame_of(said("完"), status=2, usage=USAGE)
        del frame["header"]["status"]
        event, answer = receive_one(frame)
        assert answer.finished
        assert shown(event)["header"]["status"] == 2

    def test_numbers_in_strings_are_read(self) -> None:
        numbers = {name: str(number) for name, number in USAGE.items()} | {"total_tokens": 14.0}
        event, answer = receive_one(frame_of(said("完"), status=2, usage=numbers, header={"code": "0", "status": "2"}))
        assert answer.usage == Usage(5, 9, 14, 4)
        assert shown(event)["payload"]["usage"]["text"] == USAGE

    def test_odd_labels_and_null_elements_are_survived(self) -> None:
        frame = frame_of(said("好", role=None), header={"sid": None, "message": 5})
        frame["payload"]["choices"]["text"].append(None)
        event, answer = receive_one(frame)
        assert event.text == "好"
        assert answer.sid is None
        assert len(shown(event)["payload"]["choices"]["text"]) == 1

    def test_call_arguments_given_as_an_object(self) -> None:
        event, _ = receive_one(frame_of(said("", function_call={"name": "f", "arguments": {"城": 1}})))
        assert event.tool_calls == (ToolCallDelta(0, "f", '{"城": 1}'),)

    def test_half_a_character_does_not_get_on(self) -> None:
        event, _ = receive_one(MIDDLE.replace("什么".encode(), b"\\ud83d"))
        assert event.text == "\ufffd问题"
        assert shown(event)["payload"]["choices"]["text"][0]["content"] == event.text

    def test_a_code_at_the_top_would_look_like_an_error_of_ours(self) -> None:
        event, _ = receive_one({"code": 0, **frame_of(said("好"))})
        assert event.text == "好"
        assert shown(event) == frame_of(said("好"))


class TestUsage:
    @pytest.mark.parametrize(
        ("numbers", "usage"),
        [
            ({"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}, Usage(5, 9, 14, 0)),
            ({"prompt_tokens": 5, "completion_tokens": 9}, Usage(5, 9, 14)),
            ({"prompt_tokens": 5, "total_tokens": 14}, Usage(5, 9, 14)),
            ({"completion_tokens": 9, "total_tokens": 14}, Usage(5, 9, 14)),
            ({"total_tokens": 14}, Usage(14, 0, 14)),
            (USAGE | {"completion_tokens": None}, Usage(5, 9, 14, 4)),
            (USAGE | {"total_tokens": 3}, Usage(5, 9, 14, 4)),
            (USAGE | {"total_tokens": 0}, Usage(5, 9, 14, 4)),
        ],
    )
    def test_what_lacks_is_worked_out_and_shown(self, numbers: dict[str, Any], usage: Usage) -> None:
        event, answer = receive_one(frame_of(said("完"), status=2, usage=numbers))
        assert answer.usage == event.usage == usage
        assert shown(event)["payload"]["usage"]["text"] == {
            "question_tokens": usage.question_tokens,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
        }

    def test_a_bill_over_its_parts_stands(self) -> None:
        frame = packed(frame_of(said("完"), status=2, usage=USAGE | {"total_tokens": 20}))
        event, _ = receive_one(frame)
        assert event.usage == Usage(5, 9, 20, 4)
        assert event.native is frame

    @pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 5}, {"question_tokens": 4, "completion_tokens": 9}])
    def test_what_cannot_be_worked_out_is_left_to_the_caller(self, usage: dict[str, Any] | None) -> None:
        frame = packed(frame_of(said("完"), status=2, usage=usage))
        event, answer = receive_one(frame)
        assert answer.finished
        assert event.usage is None
        assert event.native is frame
        filled = json.loads(with_usage(frame, Usage(1, 2, 3)))
        assert filled["payload"]["usage"]["text"]["total_tokens"] == 3
        assert filled["payload"]["choices"] == json.loads(frame)["payload"]["choices"]

    @pytest.mark.parametrize("name", USAGE)
    @pytest.mark.parametrize("number", [-1, 10_000_001, 10**30, True, "-3", "many", 1.5, [1]])
    def test_absurd_numbers(self, name: str, number: Any) -> None:
        with pytest.raises(UpstreamProtocolViolation):
            receive_one(frame_of(said("完"), status=2, usage=USAGE | {name: number}))

    def test_only_the_last_frame_bills(self) -> None:
        event, answer = receive_one(frame_of(said("好"), status=1, usage=USAGE))
        assert event.usage is None
        assert answer.usage is None


class TestNonsense:
    @pytest.mark.parametrize(
        "frame",
        [
            b"",
            b"null",
            b"[]",
            b"hello",
            b"{}",
            b'{"header":{}}',
            b'{"header":null,"payload":{}}',
            b'{"header":{"code":null,"status":2}}',
            b'{"header":{"code":true,"status":2}}',
            b'{"header":{"code":99999999999999,"status":2}}',
            b'{"header":{"code":0,"status":3}}',
            b'{"header":{"code":0,"status":-1}}',
            b'{"header":{"code":0,"status":1e300}}',
            b'{"code":10012,"msg":"EngineInternalError"}',
            b'{"message":"HMAC signature does not match"}',
            MIDDLE[:-1],
            MIDDLE + b"x",
            MIDDLE.replace("什么".encode(), b"\xff\xfe"),
            MIDDLE.replace(b"Success", b"\xff"),
            MIDDLE.replace("什么".encode(), b"\n"),
            MIDDLE.replace("问题".encode(), "问题".encode("gbk")),
            b'{"header":{"code":0,"status":2},"x":NaN}',
            b'{"header":{"code":0,"status":2},"x":1e999}',
            b'{"header":{"code":0,"status":2},"x":' + b"9" * 5000 + b"}",
            b'{"header":{"code":0,"status":2},"x":' + b"[" * 100_000,
            packed({"header": {"code": 0, "status": 1}, "payload": []}),
            packed({"header": {"code": 0, "status": 1}, "payload": {"choices": []}}),
            packed({"header": {"code": 0, "status": 1}, "payload": {"choices": {"text": {}}}}),
            packed(frame_of(said("x") | {"content": 5})),
            packed(frame_of(said("x") | {"content": ["x"]})),
            packed(frame_of(said("x", function_call="f"))),
            packed(frame_of(said("x", function_call={"arguments": "{}"}))),
            packed(frame_of(said("x"), status=2) | {"payload": {"usage": [1]}}),
        ],
    )
    def test_is_refused_and_ends_the_answer(self, frame: bytes) -> None:
        answer = SparkAnswer()
        answer.receive(FIRST)
        with pytest.raises(UpstreamProtocolViolation) as caught:
            answer.receive(frame)
        assert caught.value.sid == SID
        assert not caught.value.retryable
        assert not answer.finished
        with pytest.raises(UpstreamProtocolViolation):
            answer.receive(MIDDLE)

    def test_nothing_follows_the_last_frame(self) -> None:
        _, answer = receive_one(LAST)
        with pytest.raises(UpstreamProtocolViolation, match="after the last"):
            answer.receive(MIDDLE)
        assert answer.finished
        answer.connection_ended()

    def test_a_frame_has_a_size(self) -> None:
        overhead = len(packed(frame_of(said(""))))
        receive_one(frame_of(said("x" * (spark.MAX_FRAME_BYTES - overhead))))
        with pytest.raises(UpstreamProtocolViolation, match="bytes"):
            receive_one(frame_of(said("x" * (spark.MAX_FRAME_BYTES - overhead + 1))))

    def test_an_answer_has_a_size(self) -> None:
        answer = SparkAnswer()
        half = packed(frame_of(said("x" * (spark.MAX_FRAME_BYTES // 2))))
        for _ in range(32):
            answer.receive(half)
        with pytest.raises(UpstreamProtocolViolation, match="bytes"):
            answer.receive(half)

    def test_an_answer_has_a_number_of_frames(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(spark, "MAX_FRAMES", 3)
        answer = SparkAnswer()
        for _ in range(3):
            answer.receive(MIDDLE)
        with pytest.raises(UpstreamProtocolViolation, match="frames"):
            answer.receive(MIDDLE)

    @pytest.mark.parametrize("frames", [[], [FIRST], [FIRST, MIDDLE]])
    def test_an_end_before_the_last_frame_is_a_failure(self, frames: list[bytes]) -> None:
        answer = SparkAnswer()
        for frame in frames:
            answer.receive(frame)
        with pytest.raises(UpstreamTruncated) as caught:
            answer.connection_ended()
        assert caught.value.retryable is (not frames)

    @given(st.binary(max_size=200))
    def test_random_bytes_raise_nothing_else(self, frame: bytes) -> None:
        with pytest.raises(UpstreamFailed):
            SparkAnswer().receive(frame)

    @given(st.data())
    def test_sample_frames_with_one_member_replaced_raise_nothing_else(self, data: st.DataObject) -> None:
        sample = data.draw(st.sampled_from([FIRST, LAST, REASONING, FUNCTION_CALL, SOURCES, PICTURE_ANSWER]))
        frame = json.loads(sample)
        holder: Any = frame
        while True:
            place = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
            inner = holder[place]
            if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
                break
            holder = inner
        holder[place] = data.draw(JSON)
        assert_survived(packed(frame))

    @given(st.sampled_from([FIRST, LAST, FUNCTION_CALL]), st.integers(0, 400), st.binary(max_size=4))
    def test_sample_frames_with_some_bytes_replaced_raise_nothing_else(
        self, frame: bytes, place: int, noise: bytes
    ) -> None:
        assert_survived(frame[:place] + noise + frame[place + len(noise) :])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def assert_survived(frame: bytes) -> None:
    """``receive`` either raises an error of upstream's or gives an event that a client can be shown."""
    answer = SparkAnswer()
    try:
        event = answer.receive(frame)
    except UpstreamFailed:
        assert not answer.finished
        return
    event.text.encode()
    assert answer.finished is event.is_last
    if event.native is not None:
        frame_shown = shown(event)
        texts = frame_shown["payload"]["choices"]["text"]
        assert "".join(element["content"] for element in texts) == event.text
        if event.usage is not None:
            assert event.usage.total_tokens >= 0
            assert frame_shown["payload"]["usage"]["text"]["total_tokens"] == event.usage.total_tokens


# Frames as they come, and the same with one member missing, another or more.
ODD = st.sampled_from([None, 0, 1, 2, -1, True, "", "x", "1", 0.0, [], {}, [said("y")], {"text": None}])
PATHS = st.sampled_from(
    [
        ("header",),
        *(("header", name) for name in ("code", "status", "sid", "message", "new")),
        ("payload",),
        ("payload", "choices"),
        ("payload", "usage"),
        *(("payload", "choices", name) for name in ("status", "seq", "text", "new")),
        ("code",),
    ]
)
ELEMENT = st.sampled_from(
    [
        said("a"),
        said("中文"),
        said(""),
        said(None),
        said("\ud800"),
        said("x" * 2100),
        said("汉" * 700),
        said("a", role="tool"),
        said("a", role=None),
        said("a", role=1),
        said("a", reasoning_content="r"),
        said("a", reasoning_content=1),
        said("a", function_call={"name": "f"}),
        said("a", index="0"),
        {},
        None,
    ]
)


@st.composite
def near_frames(draw: st.DrawFn) -> bytes:
    texts = draw(st.lists(ELEMENT, min_size=1, max_size=2) | st.just([said("a")]))
    frame: Any = frame_of(status=draw(st.sampled_from([0, 1, 1, 1, 1, 2])))
    frame["payload"]["choices"]["text"] = texts
    if draw(st.integers(0, 3)) == 0:
        *way, name = draw(PATHS)
        parent = frame
        for step in way:
            parent = parent[step]
        if draw(st.booleans()):
            parent[name] = draw(ODD)
        else:
            parent.pop(name, None)
    ascii_only, indent = draw(st.booleans()), draw(st.sampled_from([None, None, None, 1]))
    return json.dumps(frame, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")


def fate(read: Callable[[SparkAnswer, list[ChatEvent]], None]) -> tuple[object, ...]:
    answer, events, failure = SparkAnswer(), list[ChatEvent](), ""
    try:
        read(answer, events)
    except UpstreamFailed as error:
        failure = f"{type(error).__name__} {error}"
    return events, failure, answer.sid, answer.usage, answer.finished, answer.frames


class TestManyAtOnce:
    @given(st.lists(near_frames() | st.just(MIDDLE), max_size=8))
    def test_many_say_what_they_say_one_by_one(self, frames: list[bytes]) -> None:
        def one_by_one(answer: SparkAnswer, events: list[ChatEvent]) -> None:
            for frame in (FIRST, *frames):
                events.append(answer.receive(frame))
                if events[-1].is_last:
                    return

        assert fate(lambda answer, events: answer.receive_all([FIRST, *frames], events)) == fate(one_by_one)

    def test_what_is_plain_passes_untouched(self) -> None:
        events: list[ChatEvent] = []
        SparkAnswer().receive_all([FIRST, MIDDLE, LAST, b"nonsense behind the last"], events)
        assert [event.native for event in events] == [FIRST, MIDDLE, LAST]
        assert [event.is_last for event in events] == [False, False, True]

    def test_an_answer_without_end_is_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aiproject.protocols.iflytek.spark.answer.MAX_ANSWER_BYTES", 20)
        events: list[ChatEvent] = []
        answer = SparkAnswer()
        with pytest.raises(UpstreamProtocolViolation, match="20 bytes"):
            answer.receive_all([FIRST, MIDDLE, MIDDLE, MIDDLE], events)
        assert [event.text for event in events] == ["有", "什么问题"]
        with pytest.raises(UpstreamProtocolViolation, match="after the last"):
            answer.receive_all([MIDDLE], events)

    def test_so_is_one_of_too_many_frames(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aiproject.protocols.iflytek.spark.answer.MAX_FRAMES", 2)
        events: list[ChatEvent] = []
        with pytest.raises(UpstreamProtocolViolation, match="2 frames"):
            SparkAnswer().receive_all([FIRST, MIDDLE, MIDDLE], events)
        assert len(events) == 2

    def test_nothing_comes_after_the_last(self) -> None:
        answer = SparkAnswer()
        answer.receive_all([FIRST, LAST], [])
        with pytest.raises(UpstreamProtocolViolation, match="after the last"):
            answer.receive_all([MIDDLE], [])


MESSAGES = st.lists(
    st.builds(
        ChatMessage,
        st.sampled_from(["system", "user", "assistant"]),
        st.text(max_size=5) | st.sampled_from(["", " ", "\n", "问"]),
    ),
    max_size=8,
)


def messages(*turns: tuple[Role, str]) -> tuple[ChatMessage, ...]:
    return tuple(ChatMessage(role, content) for role, content in turns)


class TestSendableMessages:
    @given(MESSAGES, st.sampled_from(DOMAINS))
    def test_what_comes_out_obeys_the_rules_and_loses_no_question(self, dialog: list[ChatMessage], domain: str) -> None:
        try:
            sendable = sendable_messages(dialog, domain=domain)
        except InvalidInput:
            spoken = [message for message in dialog if message.text.strip() and message.role != "system"]
            assert not spoken or spoken[-1].role == "assistant"
            return
        roles = [message.role for message in sendable]
        assert "system" not in roles[1:]
        if roles[0] == "system":
            assert takes_system_role(domain)
            roles = roles[1:]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert all(message.text.strip() for message in sendable)
        everything = "\n".join(message.text for message in sendable)
        for message in dialog:
            if message.role != "assistant" and message.text.strip():
                assert message.text in everything
        assert sendable_messages(sendable, domain=domain) == sendable

    def test_a_dialog_that_is_right_is_left_alone(self) -> None:
        dialog = messages(("system", "简短"), ("user", "你好"), ("assistant", "你好！"), ("user", "讲个笑话"))
        assert sendable_messages(dialog, domain="generalv3.5") == dialog

    def test_the_desktop_app_s_empty_system_message_is_dropped(self) -> None:
        dialog = messages(("system", ""), ("user", "你好"))
        assert sendable_messages(dialog, domain="generalv3.5") == messages(("user", "你好"))

    def test_neighbours_of_one_role_are_joined(self) -> None:
        dialog = messages(("user", "一"), ("user", "二"), ("assistant", "a"), ("assistant", "b"), ("user", "三"))
        joined = messages(("user", "一\n二"), ("assistant", "a\nb"), ("user", "三"))
        assert sendable_messages(dialog, domain="generalv3.5") == joined

    def test_without_a_system_role_the_user_says_it(self) -> None:
        dialog = messages(("system", "简短"), ("user", "你好"), ("system", "用中文"))
        assert sendable_messages(dialog, domain="lite") == messages(("user", "简短\n用中文\n你好"))
        assert sendable_messages(dialog, domain="generalv3") == messages(("system", "简短\n用中文"), ("user", "你好"))

    def test_an_answer_without_its_question_is_dropped(self) -> None:
        dialog = messages(("assistant", "有什么可以帮您？"), ("user", "你好"))
        assert sendable_messages(dialog, domain="generalv3.5") == messages(("user", "你好"))

    @pytest.mark.parametrize(
        "dialog",
        [
            messages(),
            messages(("user", "  \n")),
            messages(("system", "简短")),
            messages(("assistant", "你好")),
            messages(("user", "你好"), ("assistant", "你好！")),
            messages(("user", "你好"), ("assistant", "你好！"), ("user", "")),
        ],
    )
    def test_without_a_last_word_of_the_user_s_there_is_no_question(self, dialog: tuple[ChatMessage, ...]) -> None:
        with pytest.raises(InvalidInput) as caught:
            sendable_messages(dialog, domain="generalv3.5")
        assert "用户" in format_error(caught.value, Language.ZH)


class TestBuildRequest:
    def test_is_the_documents_frame(self) -> None:
        request = ChatRequest(messages(("system", "You are concise."), ("user", "你好")))
        frame = build_request(request, app_id="appid001", domain="generalv3.5", uid="user-42")
        assert frame == packed(
            {
                "header": {"app_id": "appid001", "uid": "user-42"},
                "parameter": {
                    "chat": {
                        "domain": "generalv3.5",
                        "temperature": 0.5,
                        "max_tokens": 4096,
                        "top_k": 4,
                        "auditing": "default",
                    }
                },
                "payload": {
                    "message": {
                        "text": [
                            {"role": "system", "content": "You are concise."},
                            {"role": "user", "content": "你好"},
                        ]
                    }
                },
            }
        )

    @given(
        MESSAGES,
        st.integers(-(10**9), 10**9),
        st.floats(allow_nan=False, allow_infinity=False),
        st.integers(-100, 100),
        st.sampled_from(["/v1.1/chat", "/v3.5/chat", "/v1/x1", "/chat/pro-128k"]),
    )
    def test_the_platform_accepts_whatever_is_built(
        self, dialog: list[ChatMessage], max_tokens: int, temperature: float, top_k: int, path: str
    ) -> None:
        domain = (known_domains(f"ws://localhost{path}") or ("",))[0]
        dialog = [*dialog, ChatMessage("user", "问")]
        request = ChatRequest(tuple(dialog), max_tokens, temperature, top_k)
        question = parse_question(build_request(request, app_id="a", domain=domain), app_id="a", path=path)
        assert question.request.messages == sendable_messages(dialog, domain=domain)
        assert question.domain == domain

    @pytest.mark.parametrize("temperature", [float("nan"), float("inf"), float("-inf")])
    def test_a_temperature_is_a_number(self, temperature: float) -> None:
        with pytest.raises(InvalidInput):
            build_request(ChatRequest(messages(("user", "x")), temperature=temperature), app_id="a", domain="lite")

    def test_half_a_character_is_the_caller_s_mistake(self) -> None:
        with pytest.raises(InvalidInput):
            build_request(ChatRequest(messages(("user", "\ud83d"))), app_id="a", domain="lite")

    def test_a_long_uid_is_ours(self) -> None:
        request = ChatRequest(messages(("user", "x")))
        assert b'"uid":"' in build_request(request, app_id="a", domain="lite", uid="u" * 32)
        assert b"uid" not in build_request(request, app_id="a", domain="lite", uid="")
        with pytest.raises(ValueError, match="32"):
            build_request(request, app_id="a", domain="lite", uid="u" * 33)


class TestFramesOfOurOwn:
    @given(
        st.lists(st.text(max_size=30), min_size=1, max_size=5),
        st.text(max_size=10),
        st.integers(0, 1000),
        st.integers(0, 1000),
    )
    def test_what_is_rendered_is_read_again(
        self, texts: list[str], reasoning: str, prompt: int, completion: int
    ) -> None:
        usage = Usage(prompt, completion, prompt + completion, 1)
        answer = SparkAnswer()
        for seq, text in enumerate(texts):
            is_last = seq == len(texts) - 1
            event = ChatEvent(text, reasoning, usage=usage if is_last else None, is_last=is_last)
            frame = render(event, sid=SID, seq=seq, first=seq == 0)
            seen = answer.receive(frame)
            assert seen.native is frame
            assert (seen.text, seen.reasoning, seen.usage, seen.is_last) == (text, reasoning, event.usage, is_last)
        assert answer.finished

    def test_first_middle_and_last_carry_their_status(self) -> None:
        events = [ChatEvent("a"), ChatEvent("b"), ChatEvent("c", is_last=True, usage=Usage(1, 2, 3))]
        frames = [json.loads(render(event, sid=SID, seq=n, first=n == 0)) for n, event in enumerate(events)]
        assert [frame["header"]["status"] for frame in frames] == [0, 1, 2]
        assert [frame["payload"]["choices"]["seq"] for frame in frames] == [0, 1, 2]
        assert json.loads(render(events[2], sid=SID, seq=0, first=True))["header"]["status"] == 2

    def test_a_function_call_is_rendered(self) -> None:
        event = ChatEvent(tool_calls=(ToolCallDelta(0, "f", "{}"),), usage=Usage(1, 0, 1), is_last=True)
        seen, _ = receive_one(render(event, sid=SID, seq=0, first=True))
        assert seen.tool_calls == event.tool_calls

    @pytest.mark.parametrize("text", ["汉" * 2000, "\ud83d", "x" * 5000])
    def test_long_or_unencodable_text_is_ascii(self, text: str) -> None:
        frame = render(ChatEvent(text), sid=SID, seq=0, first=True)
        assert frame.isascii()
        assert json.loads(frame)["payload"]["choices"]["text"][0]["content"] == text

    def test_an_error_is_a_frame_that_spark_could_have_sent(self) -> None:
        frame = error_frame(code=10907, message="对话内容过长", sid=None)
        assert frame.isascii()
        assert json.loads(frame) == {"header": {"code": 10907, "message": "对话内容过长", "sid": "", "status": 2}}
        with pytest.raises(UpstreamRefused):
            SparkAnswer().receive(frame)

    def test_success_is_no_error(self) -> None:
        with pytest.raises(ValueError, match="0"):
            error_frame(code=0, message="", sid=SID)


class TestModels:
    @pytest.mark.parametrize(
        ("url", "domains"),
        [
            ("wss://spark-api.xf-yun.com/v1.1/chat", ("lite", "general")),
            ("wss://spark-api.xf-yun.com/v3.1/chat", ("generalv3",)),
            ("wss://spark-api.xf-yun.com/chat/pro-128k", ("pro-128k",)),
            ("ws://127.0.0.1:9101/v3.5/chat", ("generalv3.5",)),
            ("wss://spark-api.xf-yun.com/chat/max-32k", ("max-32k",)),
            ("wss://spark-api.xf-yun.com/v4.0/chat", ("4.0Ultra",)),
            ("wss://spark-api.xf-yun.com/v1/x1", ("x1", "spark-x")),
            ("wss://spark-api.xf-yun.com/x2", ("spark-x",)),
            ("wss://spark-openapi-n.cn-huabei-1.xf-yun.com/v1.1/chat_kjwx", ("kjwx",)),
            ("wss://spark-api-n.xf-yun.com/v1.1/chat_multilang", ("multilang",)),
            ("wss://maas-api.cn-huabei-1.xf-yun.com/v1.1/chat", None),
            ("wss://example.com/v9/chat", None),
            ("wss://[::1/v3.5/chat", None),
        ],
    )
    def test_the_path_tells_the_domain(self, url: str, domains: tuple[str, ...] | None) -> None:
        assert known_domains(url) == domains

    @pytest.mark.parametrize(
        ("domain", "context", "completion", "system"),
        [
            ("lite", 8192, 4096, False),
            ("generalv3", 8192, 8192, True),
            ("generalv3.5", 8192, 8192, True),
            ("4.0Ultra", 8192, 8192, True),
            ("max-32k", 32768, 8192, True),
            ("pro-128k", 131072, 4096, True),
            ("x1", 32768, 32768, True),
            ("spark-x", 65536, 65535, True),
            ("kjwx", 8192, 4096, False),
            ("multilang", 8192, 4096, False),
            ("patch", 8192, 4096, True),
        ],
    )
    def test_limits(self, domain: str, context: int, completion: int, system: bool) -> None:
        assert (context_limit(domain), completion_limit(domain), takes_system_role(domain)) == (
            context,
            completion,
            system,
        )


class TestEstimateTokens:
    @pytest.mark.parametrize(
        ("text", "tokens"),
        [
            ("", 0),
            (" \n", 1),
            ("汉", 1),
            ("汉" * 3, 2),
            ("汉" * 150, 100),
            ("the cat sat on a mat", 8),
            ("x" * 4000, 1000),
            ("😀" * 10, 20),
            ("汉字 and words", 4),
            ("one  two", 3),
        ],
    )
    def test_follows_the_rule_of_thumb(self, text: str, tokens: int) -> None:
        assert estimate_tokens(text) == tokens

    @pytest.mark.parametrize(
        "character",
        [" ", "\n", "\t", "\x0b", "\x00", "\x1b", "\x7f", "\x85", "\xa0", "\u200b", "\u2028", "\u3000", "\ufeff"],
    )
    def test_what_cannot_be_seen_counts_like_the_rest(self, character: str) -> None:
        """A million blanks are no prompt of two tokens."""
        assert estimate_tokens("a" + character * 1_000_000 + "b") >= 250_000

    # Measured by Qwen's public vocabulary, text drawn at random: thousandths of a token for each character.
    @pytest.mark.parametrize(
        ("alphabet", "measured"),
        [
            ("0123456789", 1000),
            ("0123456789abcdef", 884),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 743),
            ("!#$%&*,-./:;<=>?@[]^_`{|}~", 657),
            ("abcdefghijklmnopqrstuvwxyz", 537),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 599),
            ("\x01\x02\x1b\x1f\x7f", 1000),
            ("\u0301\u0302\u0316", 1667),
            ("\u200b\u200d\u2060", 1500),
            ("⠁⠃⡇⣿⢀", 2487),
            ("㐀㒰㝉㡀䶮", 2440),
            ("\ue000\uf123\uf8ff", 2970),
            ("𠀀𡈼𩷶", 3027),
            ("\U000f0000\U000ff123", 3973),
            ("뀀쀍힣", 1788),
            ("丂乄亗鿏龥", 1616),
            ("བཀྲཤསལ", 1388),
            ("👨\u200d👩\u200d👧", 1429),
        ],
    )
    def test_no_alphabet_is_cheap(self, alphabet: str, measured: int) -> None:
        """Whatever a prompt is made of, it costs two fifths of what it uses at least."""
        text = alphabet * 1000
        assert estimate_tokens(text) >= 0.4 * measured * len(text) / 1000

    @given(st.text(alphabet=st.characters(), max_size=50))
    def test_four_characters_are_a_token_at_least(self, text: str) -> None:
        assert estimate_tokens(text) >= len(text) / 4

    @given(st.text(alphabet=st.characters(), max_size=50), st.text(alphabet=st.characters(), max_size=50))
    def test_never_sinks_when_text_is_added(self, one: str, two: str) -> None:
        assert estimate_tokens(one) <= estimate_tokens(one + two)
        assert estimate_tokens(one) <= len(one) * 3

    @given(st.text("ab \t\n\r"))
    def test_a_word_costs_more_than_a_token_and_a_long_one_by_its_letters(self, text: str) -> None:
        assert estimate_tokens(text) == math.ceil(max(1.25 * len(text.split()), len(text) / 4))

    def test_many_short_words_take_little_memory(self) -> None:
        text = "ab " * 1_000_000
        tracemalloc.start()
        try:
            assert estimate_tokens(text) == 1_250_000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * len(text)


def question(**changes: Any) -> dict[str, Any]:
    """The documents' sample question; ``chat``, ``header`` and ``text`` change it."""
    return {
        "header": {"app_id": "appid001", "uid": "user-42"} | changes.get("header", {}),
        "parameter": {
            "chat": {
                "domain": "generalv3.5",
                "temperature": 0.5,
                "max_tokens": 4096,
                "top_k": 4,
                "chat_id": "conv-7",
                "auditing": "default",
            }
            | changes.get("chat", {})
        },
        "payload": {
            "message": {
                "text": changes.get(
                    "text",
                    [
                        {"role": "system", "content": "You are a concise assistant."},
                        {"role": "user", "content": "你好"},
                        {"role": "assistant", "content": "你好！"},
                        {"role": "user", "content": "讲个笑话"},
                    ],
                )
            }
        },
    }


class TestParseRequest:
    def parse(self, asked: object, path: str = "/v3.5/chat") -> ChatRequest:
        return parse_question(
            asked if isinstance(asked, bytes) else packed(asked), app_id="appid001", path=path
        ).request

    def assert_refused(self, asked: object, code: int, text: str = "", path: str = "/v3.5/chat") -> None:
        with pytest.raises(SparkRequestError) as caught:
            self.parse(asked, path)
        assert caught.value.code == code
        assert text in caught.value.message

    def test_the_documents_sample(self) -> None:
        request = self.parse(question())
        assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
        assert (request.max_tokens, request.temperature, request.top_k) == (4096, 0.5, 4)

    def test_the_uid_and_the_domain_are_kept(self) -> None:
        asked = parse_question(packed(question()), app_id="appid001", path="/v3.5/chat")
        assert (asked.uid, asked.domain) == ("user-42", "generalv3.5")

    def test_defaults_are_the_model_s(self) -> None:
        nothing = {"temperature": None, "max_tokens": None, "top_k": None}
        request = self.parse(question(chat=nothing))
        assert (request.max_tokens, request.temperature, request.top_k) == (4096, 0.5, 4)
        request = self.parse(question(chat={**nothing, "domain": "spark-x"}), "/x2")
        assert (request.max_tokens, request.temperature, request.top_k) == (65535, 1.2, 4)

    @pytest.mark.parametrize("frame", [b"", b"{", b"\xff", b'{"a":"\\ud800"}', b"[" * 100_000])
    def test_not_json(self, frame: bytes) -> None:
        self.assert_refused(frame, 10003, "JSON")

    @pytest.mark.parametrize("asked", [[], {}, {"header": []}, {"header": {}}, question(header={"app_id": ""})])
    def test_no_app_id(self, asked: object) -> None:
        self.assert_refused(asked, 10313, "empty")

    @pytest.mark.parametrize("app_id", ["appid002", 5])
    def test_a_foreign_app_id(self, app_id: object) -> None:
        self.assert_refused(question(header={"app_id": app_id}), 10313, "does not match")

    @pytest.mark.parametrize(("domain", "path"), [("generalv3", "/v3.5/chat"), ("generalv3.5", "/v9/chat")])
    def test_a_domain_of_another_path(self, domain: str, path: str) -> None:
        self.assert_refused(question(chat={"domain": domain}), 10003, "invalid model domain", path)

    @pytest.mark.parametrize(
        "chat",
        [
            {"temperature": 0},
            {"temperature": 1.01},
            {"temperature": -1},
            {"max_tokens": 0},
            {"max_tokens": 8193},
            {"top_k": 0},
            {"top_k": 7},
        ],
    )
    def test_values_out_of_range(self, chat: dict[str, Any]) -> None:
        self.assert_refused(question(chat=chat), 10005)

    def test_a_long_uid(self) -> None:
        self.assert_refused(question(header={"uid": "u" * 33}), 10005)

    @pytest.mark.parametrize(
        "asked",
        [
            {"header": {"app_id": "appid001"}},
            question(chat={"top_k": "4"}),
            question(chat={"max_tokens": 1.5}),
            question(chat={"domain": None}),
            question(text="你好"),
            question(text=[{"role": "user"}]),
            question(text=[{"role": "user", "content": None}]),
        ],
    )
    def test_the_schema(self, asked: object) -> None:
        self.assert_refused(asked, 10163, "param validate error")

    @pytest.mark.parametrize(
        ("roles", "path", "domain"),
        [
            ([], "/v3.5/chat", "generalv3.5"),
            (["system"], "/v3.5/chat", "generalv3.5"),
            (["assistant"], "/v3.5/chat", "generalv3.5"),
            (["user", "assistant"], "/v3.5/chat", "generalv3.5"),
            (["user", "user", "user"], "/v3.5/chat", "generalv3.5"),
            (["user", "system", "user"], "/v3.5/chat", "generalv3.5"),
            (["tool"], "/v3.5/chat", "generalv3.5"),
            (["system", "user"], "/v1.1/chat", "lite"),
        ],
    )
    def test_the_role_rules(self, roles: list[str], path: str, domain: str) -> None:
        text = [{"role": role, "content": "x"} for role in roles]
        self.assert_refused(question(text=text, chat={"domain": domain, "max_tokens": 10}), 10004, path=path)

    def test_an_empty_message(self) -> None:
        self.assert_refused(question(text=[{"role": "user", "content": ""}]), 10004)

    def test_a_dialog_over_the_context(self) -> None:
        self.parse(question(text=[{"role": "user", "content": "汉" * 12288}]))
        self.assert_refused(question(text=[{"role": "user", "content": "汉" * 12289}]), 10907)

    @given(JSON)
    def test_other_json_raises_nothing_else(self, asked: object) -> None:
        for frame in (
            packed(asked),
            packed(question() | {"payload": asked}),
            packed(question() | {"parameter": asked}),
        ):
            with pytest.raises(SparkRequestError):
                self.parse(frame)
