"""The benchmark's stand-ins say what the vendors say."""

from __future__ import annotations

import json

import httptools
import pytest

from aiproject.protocols.chat import ChatMessage, ChatRequest
from aiproject.protocols.iflytek.spark.answer import SparkAnswer
from aiproject.protocols.iflytek.spark.request import build_request
from bench.relay import openai_upstream
from bench.relay.load import STAMP
from bench.relay.upstream import PIECE, parse_fault_requests, render


class TestOrders:
    def test_a_question_without_orders_has_the_usual_answer(self) -> None:
        orders = parse_fault_requests(b'{"content":"what is 2 + 2?"}')
        assert (orders.frames, orders.every, orders.delay, orders.stamps) == (50, 0, 0, 0)

    def test_each_is_read_out_of_our_own_question(self) -> None:
        text = "please frames=7 every=100 delay=300 stamps=1"
        request = ChatRequest((ChatMessage("user", text),))
        orders = parse_fault_requests(build_request(request, app_id="bench", domain="generalv3.5"))
        assert (orders.frames, orders.every, orders.delay, orders.stamps) == (7, 100, 300, 1)

    def test_the_last_one_counts(self) -> None:
        assert parse_fault_requests(b"frames=7, then frames=9").frames == 9


class TestSparkFrames:
    @pytest.mark.parametrize("count", [1, 2, 50])
    def test_our_reader_takes_them_for_a_whole_answer(self, count: int) -> None:
        answer = SparkAnswer()
        events = []
        for number in range(count):
            assert not answer.finished
            events.append(answer.receive(render(number, count)))
        assert answer.finished
        assert answer.frames == count
        assert [event.text for event in events] == [PIECE] * count
        # Passed on as it is: nothing in it had to be mended.
        assert [event.native for event in events] == [render(number, count) for number in range(count)]
        assert answer.usage is not None
        assert answer.usage.total_tokens == count * 4 + 5

    def test_the_load_finds_a_stamp_again(self) -> None:
        assert STAMP.findall(render(0, 2, "123456789012345")) == [b"123456789012345"]
        assert STAMP.findall(render(0, 2)) == []


class TestOpenAIAnswers:
    def test_a_whole_one_has_the_pieces_of_all_events(self) -> None:
        *events, end = openai_upstream.events(150)
        assert end == b"data: [DONE]\n\n"
        chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
        pieces = [chunk["choices"][0]["delta"]["content"] for chunk in chunks]
        assert json.loads(openai_upstream.whole(150))["choices"][0]["message"]["content"] == "".join(pieces)
        assert {len(piece) for piece in pieces} == {len(PIECE)}
        assert len(set(pieces)) == 150

    def test_only_the_last_event_tells_the_reason_of_the_end(self) -> None:
        chunks = [json.loads(event.removeprefix(b"data: ")) for event in openai_upstream.events(3)[:-1]]
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]

    def test_each_event_is_a_chunk_of_its_own(self) -> None:
        reader = _Reader()
        httptools.HttpResponseParser(reader).feed_data(openai_upstream.response(50, is_stream=True))
        assert reader.chunks == openai_upstream.events(50)
        assert reader.is_complete


class _Reader:
    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.is_complete = False

    def on_body(self, data: bytes) -> None:
        self.chunks.append(data)

    def on_message_complete(self) -> None:
        self.is_complete = True
