"""A provider and an API of a few lines work with everything there is, and touch no file of it.

The two are ``tests/toy_provider.py`` and ``tests/toy_api.py``; a quota is held, charged and given back for them as for
any other, keys are honoured, and a failure is settled.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
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
from toy_api import TOY_API
from toy_provider import EchoProvider

PERSON = {"username": "toy", "password": "a good passphrase", "email": "", "academy": ""}

QUESTION = "one two three"
COST = 2 * len(QUESTION)
"""The toy's tokens are characters, and its answers say the question back."""


@dataclass
class World:
    """A server with the toy provider, reached through the toy API."""

    provider: EchoProvider
    client: httpx.AsyncClient
    headers: Mapping[str, str]

    async def ask(self, question: str = QUESTION, **headers: str) -> httpx.Response:
        return await self.client.post("/toy/ask", content=question, headers={**self.headers, **headers})

    async def balance(self) -> int:
        return int((await self.client.post("/auth/login", json=PERSON)).json()["tokens"])


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    provider = EchoProvider()
    nobody: Any = None

    @asynccontextmanager
    async def open_toy(settings: Settings, credentials: IflytekCredentials) -> AsyncIterator[Providers]:
        yield Providers(provider, nobody, nobody)

    settings = load_settings(data_dir=tmp_path, argon2_memory=19_456, argon2_passes=1, signup_tokens=1000)
    credentials = IflytekCredentials("app", "key", "secret")
    opened = open_application(settings, credentials, is_sandbox=True, open_providers=open_toy, apis=[TOY_API])
    async with opened as application:
        transport = httpx.ASGITransport(cast("Any", application.asgi))
        async with httpx.AsyncClient(transport=transport, base_url="http://toy") as client:
            await client.post("/auth/register", json=PERSON)
            answer = (await client.post("/auth/login", json=PERSON)).json()
            yield World(provider, client, {"uuid": answer["uuid"], "username": "toy"})


async def test_an_answer_is_written_and_charged(world: World) -> None:
    before = await world.balance()
    answer = await world.ask()
    assert (answer.status_code, answer.text.split()) == (200, QUESTION.split())
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert before - await world.balance() == COST
    assert not world.provider.open


async def test_a_key_repeats_the_answer_without_a_second_charge(world: World) -> None:
    first = await world.ask(**{"Idempotency-Key": "k"})
    before = await world.balance()
    again = await world.ask(**{"Idempotency-Key": "k"})
    assert again.text == first.text
    assert await world.balance() == before


async def test_a_failure_before_the_first_word_is_rendered_and_free(world: World) -> None:
    before = await world.balance()
    world.provider.fails = (0, UpstreamFailed("away", reason=Reason.BUSY))
    answer = await world.ask()
    assert (answer.status_code, answer.text) == (400, "UpstreamFailed\n")
    assert await world.balance() == before


async def test_a_failure_amid_the_answer_stands_in_it_and_is_settled(world: World) -> None:
    world.provider.fails = (2, UpstreamTruncated())
    answer = await world.ask()
    assert answer.text.split() == ["one", "two", "[UpstreamTruncated]"]
    assert not world.provider.open


async def test_faults_of_http_and_defects_are_rendered_in_its_dialect_too(world: World) -> None:
    for method, path in (("GET", "/toy/ask"), ("POST", "/toy/nowhere")):
        answer = await world.client.request(method, path)
        assert (answer.status_code, answer.text) == (400, "HttpFault\n")
    world.provider.fails = (0, ZeroDivisionError("a defect"))
    answer = await world.ask()
    assert (answer.status_code, answer.text) == (500, "oops\n")


async def test_nobody_is_let_in_without_credentials_nor_beyond_the_balance(world: World) -> None:
    nobody = await world.client.post("/toy/ask", content=QUESTION)
    assert (nobody.status_code, nobody.text) == (400, "AccountUnknown\n")
    before = await world.balance()
    poor = await world.ask("x" * 1001)
    assert (poor.status_code, poor.text) == (400, "QuotaExhausted\n")
    assert await world.balance() == before
