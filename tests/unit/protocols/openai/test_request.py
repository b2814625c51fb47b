"""What a chat completion's body asks in neutral terms, and what is refused, with the place of the fault."""

from __future__ import annotations

import base64
import tracemalloc
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.codes import Detail
from aiproject.errors import InvalidInput
from aiproject.protocols.chat import ChatMessage, ChatRequest, PicturePart, TextPart, Tool, ToolCall, ToolChoice
from aiproject.protocols.openai.body import ChatCompletion
from aiproject.protocols.openai.request import MAX_DEPTH, MAX_VALUES, NEUTRAL, read_chat_completion, to_chat

USER = {"role": "user", "content": "hello"}
PNG = b"\x89PNG\r\n"
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}}


def read(**fields: Any) -> ChatRequest:
    body = {"model": "spark", "messages": [USER], **fields}
    return to_chat(read_chat_completion(msgspec.json.encode(body)), 1000, 4096)


def refused(**fields: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(**fields)
    assert caught.value.detail
    return str(caught.value.params.get("field"))


class TestMessages:
    def test_texts_in_parts_are_one_text(self) -> None:
        parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
        assert read(messages=[{"role": "user", "content": parts}]).messages == (ChatMessage("user", "hello"),)

    def test_a_developer_is_the_system(self) -> None:
        assert read(messages=[{"role": "developer", "content": "be brief"}]).messages[0].role == "system"

    def test_pictures_are_decoded(self) -> None:
        (message,) = read(messages=[{"role": "user", "content": [{"type": "text", "text": "what?"}, PICTURE]}]).messages
        assert message.content == (TextPart("what?"), PicturePart(PNG, "image/png"))

    def test_calls_and_their_results(self) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
        asked, result = read(
            messages=[
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "4"},
            ]
        ).messages
        assert asked.tool_calls == (ToolCall("c1", "f", '{"a":1}'),)
        assert (result.role, result.text, result.tool_call_id) == ("tool", "4", "c1")

    @pytest.mark.parametrize(
        ("message", "place"),
        [
            ({"role": "robot", "content": "x"}, "messages[0].role"),
            ({"role": "user"}, "messages[0].content"),
            ({"role": "user", "content": 7}, "messages[0].content"),
            ({"content": "x"}, "messages[0].role"),
            ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
            ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
            ({"role": "user", "content": "\ud800"}, "messages[0].content"),
        ],
    )
    def test_a_fault_is_named_by_its_place(self, message: dict[str, Any], place: str) -> None:
        if message.get("content") == "\ud800":
            body = b'{"model": "spark", "messages": [{"role": "user", "content": "\\ud800"}]}'
            with pytest.raises(InvalidInput):
                to_chat(read_chat_completion(body), 1, 1)
            return
        assert refused(messages=[message]) == place

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1/x.png", "file:///etc/passwd", "data:text/html;base64,AAAA", "data:image/png;base64,?"]
    )
    def test_no_picture_is_fetched(self, url: str) -> None:
        part = {"type": "image_url", "image_url": {"url": url}}
        assert refused(messages=[{"role": "user", "content": [part]}]) == "messages[0].content[0].image_url.url"

    def test_none_and_too_many(self) -> None:
        assert refused(messages=[]) == "messages"
        assert refused(messages=[USER] * 2001) == "messages"


class TestParameters:
    def test_the_limit_of_the_completion(self) -> None:
        assert read().max_tokens == 1000
        assert read(max_tokens=5).max_tokens == 5
        assert read(max_tokens=5, max_completion_tokens=7).max_tokens == 7
        assert read(max_tokens=9999).max_tokens == 4096
        assert refused(max_tokens=0) == refused(max_completion_tokens=-1) == "max_completion_tokens"

    def test_sampling(self) -> None:
        request = read(temperature=0, top_p=1, stop="。")
        assert (request.temperature, request.top_p, request.stop) == (0, None, ("。",))
        assert refused(temperature=2.1) == "temperature"
        assert refused(top_p=-0.1) == "top_p"

    def test_tools(self) -> None:
        definition = {"name": "f", "description": "adds", "parameters": {"type": "object"}}
        request = read(
            tools=[{"type": "function", "function": definition}],
            tool_choice={"type": "function", "function": {"name": "f"}},
        )
        assert request.tools == (Tool("f", "adds", {"type": "object"}),)
        assert request.tool_choice == ToolChoice("required", "f")
        assert read(tool_choice="none").tool_choice == ToolChoice("none")

    def test_formats(self) -> None:
        assert read(response_format={"type": "json_object"}).response_format.kind == "json"
        schema = {"name": "s", "schema": {"type": "object"}, "strict": True}
        asked = read(response_format={"type": "json_schema", "json_schema": schema}).response_format
        assert (asked.kind, asked.schema) == ("json_schema", {"type": "object"})
        assert refused(response_format={"type": "json_schema"}) == "response_format.json_schema"

    @pytest.mark.parametrize("name", NEUTRAL)
    def test_what_cannot_be_honoured_is_refused_unless_it_changes_nothing(self, name: str) -> None:
        for value in NEUTRAL[name]:
            read(**{name: value})
        other: Any = {"n": 2, "logprobs": True, "top_logprobs": 3, "store": True, "functions": [{}]}.get(name)
        if other is None:
            kinds = {"logit_bias": {"1": 2.0}, "modalities": ["audio"], "reasoning_effort": "high", "verbosity": "low"}
            other = kinds.get(name, 1)
        assert refused(**{name: other}) == name

    def test_an_unknown_member_is_refused(self) -> None:
        assert refused(whatever=1) == "whatever"

    def test_every_member_is_of_one_kind(self) -> None:
        assert set(NEUTRAL) <= set(ChatCompletion.__struct_fields__)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with suppress(InvalidInput):
        read_chat_completion(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(ChatCompletion.__struct_fields__), JSON, max_size=6))
def test_any_object_is_read_or_refused(fields: dict[str, Any]) -> None:
    with suppress(InvalidInput):
        to_chat(read_chat_completion(msgspec.json.encode({"model": "m", "messages": [USER], **fields})), 1, 1)


class TestBounds:
    """A body of 16 MB takes a bounded time and memory, whatever it consists of."""

    @pytest.mark.parametrize(
        "member",
        [
            b'"tools":[{"function":{"name":"f","parameters":{"x":[%b]}}}]' % b",".join([b"{}"] * MAX_VALUES),
            b'"tools":[%b]' % b",".join([b'{"function":{"name":""}}'] * (MAX_VALUES // 2)),
            b'"functions":[%b]' % b",".join([b"[[[[]]]]"] * (MAX_VALUES // 4)),
            b'"logit_bias":{%b}' % b",".join(b'"%d":0' % number for number in range(MAX_VALUES)),
        ],
        ids=["schema", "tools", "lists", "members"],
    )
    def test_too_many_values_are_refused_before_they_are_objects(self, member: bytes) -> None:
        body = b'{"model":"spark","messages":[{"role":"user","content":"hello"}],%b}' % member
        tracemalloc.start()
        try:
            with pytest.raises(InvalidInput) as caught:
                read_chat_completion(body)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert caught.value.detail is Detail.FIELD_TOO_MANY_ITEMS
        assert peak < 1024 * 1024

    def test_a_large_picture_and_a_long_text_are_none(self) -> None:
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "AAAA" * 1024 * 1024}}
        text = {"type": "text", "text": "a, b[0] " * (MAX_VALUES // 4)}
        (message,) = read(messages=[{"role": "user", "content": [text, picture]}]).messages
        assert len(message.content) == 2

    @pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"x":', "}")])
    def test_a_schema_can_be_encoded_deeper_in_the_stack_or_is_refused(self, opening: str, closing: str) -> None:
        for levels in (MAX_DEPTH - 1, MAX_DEPTH, 500):
            schema = {"x": msgspec.json.decode(opening * levels + "1" + closing * levels)}
            tools = [{"function": {"name": "f", "parameters": schema}}]
            form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
            if levels < MAX_DEPTH:
                request = read(tools=tools, response_format=form)
                assert encoded_deeper(request, 300)
            else:
                assert refused(tools=tools) == "tools[0].function.parameters"
                assert refused(response_format=form) == "response_format.json_schema.schema"


def encoded_deeper(value: object, frames: int) -> bytes:
    return encoded_deeper(value, frames - 1) if frames else msgspec.json.encode(value)
