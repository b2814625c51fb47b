"""OpenAI's API over the toy provider: shapes, charges, keys and every kind of failure, without a network."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from aiproject.config.iflytek import IflytekCredentials
from aiproject.config.loading import load_settings
from aiproject.config.settings import Settings
from aiproject.errors import Reason, UpstreamFailed, UpstreamTruncated
from aiproject.providers.wiring import Providers
from aiproject.wiring import open_application
from toy_provider import EchoProvider

QUESTION = "one two three"
COST = 2 * len(QUESTION)
BODY: dict[str, Any] = {"model": "spark", "messages": [{"role": "user", "content": QUESTION}]}
PERSON = {"username": "sdk", "password": "a good passphrase", "email": "", "academy": ""}


@dataclass
class World:
    provider: EchoProvider
    client: httpx.AsyncClient
    key: str

    async def ask(
        self, key: str | None = None, *, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        bearer = {"Authorization": f"Bearer {self.key if key is None else key}", **(headers or {})}
        return await self.client.post("/v1/chat/completions", json={**BODY, **fields}, headers=bearer)

    async def events(self, **fields: Any) -> list[Any]:
        answer = await self.ask(stream=True, **fields)
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    async def balance(self) -> int:
        return int((await self.client.post("/auth/login", json=PERSON)).json()["tokens"])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    provider = EchoProvider()
    nobody: Any = None

    @asynccontextmanager
    async def open_toy(settings: Settings, credentials: IflytekCredentials) -> AsyncIterator[Providers]:
        yield Providers(provider, nobody, nobody)

    settings = load_settings(data_dir=tmp_path, argon2_memory=19_456, argon2_passes=1, signup_tokens=1000)
    opened = open_application(
        settings, IflytekCredentials("app", "key", "secret"), is_sandbox=True, open_providers=open_toy
    )
    async with opened as application:
        transport = httpx.ASGITransport(cast("Any", application.asgi))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.post("/auth/register", json=PERSON)
            uuid = (await client.post("/auth/login", json=PERSON)).json()["uuid"]
            headers = {"uuid": uuid, "username": "sdk"}
            made = await client.post(
                "/v1/account/keys", json={"name": "sdk", "password": PERSON["password"]}, headers=headers
            )
            yield World(provider, client, made.json()["secret"])


async def test_a_whole_answer_is_charged_by_its_usage(world: World) -> None:
    before = await world.balance()
    answer = await world.ask()
    body = answer.json()
    assert (answer.status_code, body["object"], body["model"]) == (200, "chat.completion", "spark")
    (choice,) = body["choices"]
    assert (choice["message"]["content"].split(), choice["finish_reason"]) == (QUESTION.split(), "stop")
    assert body["usage"]["total_tokens"] == COST == before - await world.balance()
    assert body["id"] == f"chatcmpl-{answer.headers['x-request-id']}"


async def test_a_stream_ends_with_done_and_with_usage_if_it_is_asked_for(world: World) -> None:
    *chunks, done = await world.events()
    assert done == "[DONE]"
    assert all(chunk["object"] == "chat.completion.chunk" and "usage" not in chunk for chunk in chunks)
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks).split() == QUESTION.split()
    *chunks, usage, done = await world.events(stream_options={"include_usage": True})
    assert usage["usage"]["total_tokens"] == COST
    assert usage["choices"] == []
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_key_repeats_the_answer_without_a_second_charge(world: World) -> None:
    for stream in (False, True):
        headers = {"Idempotency-Key": str(stream)}
        first = await world.ask(headers=headers, stream=stream)
        before = await world.balance()
        assert (await world.ask(headers=headers, stream=stream)).content == first.content
        assert await world.balance() == before


async def test_models(world: World) -> None:
    bearer = {"Authorization": f"Bearer {world.key}"}
    listed = (await world.client.get("/v1/models", headers=bearer)).json()
    assert [model["id"] for model in listed["data"]] == ["spark", "generalv3.5"]
    shown = await world.client.get("/v1/models/spark", headers=bearer)
    assert shown.json() == listed["data"][0]
    unknown = await world.client.get("/v1/models/gpt-0", headers=bearer)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert (await world.client.get("/v1/models")).status_code == 401


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": "gpt-0"}, 404, "model_not_found", None),
        ({"messages": []}, 400, "field_empty", "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "dialog_without_question", None),
        ({"temperature": 9}, 400, "field_out_of_bounds", "temperature"),
        ({"n": 2}, 400, "field_not_supported", "n"),
        ({"whatever": 1}, 400, "member_unknown", "whatever"),
        ({"stop": "x"}, 400, "field_not_supported", "messages"),
        ({"messages": [{"role": "user", "content": "x" * 1001}]}, 429, "insufficient_quota", None),
    ],
)
async def test_what_is_refused_costs_nothing(
    world: World, fields: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    before = await world.balance()
    for stream in (False, True):
        answer = await world.ask(**fields, stream=stream)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
        assert answer.headers["x-request-id"]
    assert await world.balance() == before
    assert not world.provider.open


async def test_who_has_no_key_is_told_so_whatever_else_is_shown(world: World) -> None:
    for headers in ({}, {"Authorization": "Bearer sk-wrong"}, {"uuid": "x", "username": "sdk"}):
        answer = await world.client.post("/v1/chat/completions", json=BODY, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_bytes_that_are_no_json(world: World) -> None:
    bearer = {"Authorization": f"Bearer {world.key}"}
    answer = await world.client.post("/v1/chat/completions", content=b"\xff", headers=bearer)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    answer = await world.client.get("/v1/chat/completions", headers=bearer)
    assert (answer.status_code, answer.json()["error"]["type"]) == (405, "invalid_request_error")


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        (Reason.MODERATED, 400, "content_filter"),
        (Reason.TOO_LONG, 400, "context_length_exceeded"),
        (Reason.BUSY, 503, "upstream_busy"),
        (Reason.BROKEN, 502, "upstream_failed"),
    ],
)
async def test_a_failure_before_the_first_word_has_a_status_of_its_own(
    world: World, reason: Reason, status: int, code: str
) -> None:
    before = await world.balance()
    world.provider.fails = (0, UpstreamFailed("no", reason=reason))
    answer = await world.ask(stream=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert await world.balance() == before


async def test_a_stream_that_breaks_ends_with_an_error_and_without_done(world: World) -> None:
    world.provider.fails = (2, UpstreamTruncated())
    *chunks, error = await world.events()
    assert len(chunks) == 2
    assert (error["error"]["type"], error["error"]["code"]) == ("upstream_error", "upstream_failed")
    assert not world.provider.open
