"""OpenAI's official SDK for Python, unchanged, against the whole server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from system.harness import LocalServer, Person, post_json

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "你好，请介绍一下你自己"}]


async def new_key(person: Person) -> str:
    body = {"name": "sdk", "password": person.password}
    return str((await post_json(person.port, "/v1/account/keys", body, *person.headers)).json()["secret"])


def order(fault: str) -> list[ChatCompletionMessageParam]:
    """Return a question that the platform's stand-in answers with a fault."""
    return [{"role": "user", "content": f"[[fault:{fault}]] hello"}]


@pytest.fixture
def person(server: LocalServer) -> Person:
    return asyncio.run(server.person())


@pytest.fixture
def client(server: LocalServer, person: Person) -> Iterator[openai.OpenAI]:
    key = asyncio.run(new_key(person))
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=key, max_retries=0) as client:
        yield client


def test_a_whole_answer(client: openai.OpenAI, person: Person) -> None:
    before = asyncio.run(person.tokens())
    answer = client.chat.completions.create(model="spark", messages=QUESTION)
    assert "沙盒" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == before - asyncio.run(person.tokens())


def test_a_stream_says_the_same_in_pieces(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="spark", messages=QUESTION).choices[0].message.content
    stream = client.chat.completions.create(
        model="spark", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert len(chunks) > 5


def test_the_helper_for_streams(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="spark", messages=QUESTION) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds.count("content.done") == 1
    assert final.choices[0].message.content


async def test_many_at_once(server: LocalServer) -> None:
    person = await server.person()
    key = await new_key(person)
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=key) as client:

        async def ask(number: int) -> str:
            answer = await client.chat.completions.create(
                model="generalv3.5", messages=[{"role": "user", "content": f"question number {number}?"}]
            )
            return answer.choices[0].message.content or ""

        answers = await asyncio.gather(*(ask(number) for number in range(12)))
    assert len(set(answers)) == 12


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["spark", "generalv3.5"]
    assert client.models.retrieve("spark").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-0")


def test_the_limit_of_an_answer_is_told(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="spark", messages=QUESTION, max_completion_tokens=5)
    assert answer.choices[0].finish_reason == "length"


def test_a_function_that_the_model_asks_for(client: openai.OpenAI) -> None:
    """The stand-in asks for one when it is ordered to, whether or not tools were offered."""
    fault = order("function_call name=get_weather")
    calls = client.chat.completions.create(model="spark", messages=fault).choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert calls[0].function.name == "get_weather"
    chunks = list(client.chat.completions.create(model="spark", messages=fault, stream=True))
    (begun,) = [chunk.choices[0].delta.tool_calls for chunk in chunks if chunk.choices[0].delta.tool_calls]
    assert begun[0].function is not None
    assert begun[0].function.name == "get_weather"
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ("error code=10013", openai.BadRequestError, "content_filter"),
        ("error code=10907", openai.BadRequestError, "context_length_exceeded"),
        ("error code=10012", openai.InternalServerError, "upstream_failed"),
    ],
)
def test_failures_of_the_platform_are_free(
    client: openai.OpenAI, person: Person, fault: str, kind: type[openai.APIStatusError], code: str
) -> None:
    before = asyncio.run(person.tokens())
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model="spark", messages=order(fault))
    assert caught.value.code == code
    assert caught.value.request_id
    assert asyncio.run(person.tokens()) == before


def test_a_stream_that_breaks_raises_amid_it(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="spark", messages=order("truncate after=3"), stream=True)
    assert next(stream).choices[0].delta.content
    with pytest.raises(openai.APIError):
        list(stream)


def test_bad_keys(server: LocalServer) -> None:
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="sk-wrong", max_retries=0)
    with client, pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(model="spark", messages=QUESTION)
    assert caught.value.code == "invalid_api_key"
