"""The database goes away while the server runs: 503 in JSON, streams end properly, and all is well when it is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from pydantic import SecretStr

from services import MariaDB, PostgreSQL, Server, ServerMissing
from system import wire
from system.harness import LocalServer, Person
from system.samples import jpeg

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=[MariaDB, PostgreSQL], ids=lambda kind: str(kind.name))
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A database server of this test's own, since it is going to be killed."""
    # Where its programs are missing, this skips or fails as every other test of that server does.
    request.getfixturevalue(f"{request.param.name}_server")
    try:
        database_server: Server = request.param()
    except ServerMissing as reason:
        pytest.fail(str(reason))
    try:
        database_server.start()
        yield database_server
    finally:
        database_server.remove()


SLOW = "[[fault:slow seconds=0.1]] [[fault:frames n=15]]"
KEY = ("Idempotency-Key", "the first one")


async def every_route(person: Person) -> list[wire.Answer]:
    return [await person.chat("hi"), await person.stream("hi"), await person.picture(jpeg())]


async def test_it_is_told_and_survived(own_server: Server, start_server: Callable[..., LocalServer]) -> None:
    name = await asyncio.to_thread(own_server.create_database)
    server = await asyncio.to_thread(start_server, database_url=SecretStr(own_server.url(name)))
    person = await server.person()
    assert [answer.status for answer in await every_route(person)] == [200, 200, 200]
    before = await person.login()

    async with wire.Connection(person.port) as connection, wire.Connection(person.port) as keyed:
        connection.ask_json("/textModel/stream", person.call(SLOW))
        keyed.ask_json("/textModel/stream", person.call(SLOW), [KEY])
        answer, withheld = await connection.head(), await keyed.head()
        await connection.chunk(answer)
        await keyed.chunk(withheld)
        await asyncio.to_thread(own_server.kill)

        for refused in [*await every_route(person), await wire.request(person.port, "GET", "/ready")]:
            assert refused.status == 503
            assert int(refused.header("retry-after") or 0) >= 1
            assert refused.json()["code"] == "SERVICE_UNAVAILABLE"
        assert (await wire.request(person.port, "GET", "/health")).status == 200

        # The answers are there, but their charges cannot be booked. One is given all the same, and its charge is kept;
        # the other's caller can come back for it, and is told so where the usage would stand.
        while await connection.chunk(answer) is not None:
            pass
        while await keyed.chunk(withheld) is not None:
            pass
    assert answer.is_complete
    assert withheld.is_complete
    last = answer.frames()[-1]
    assert (last["header"]["code"], last["header"]["status"]) == (0, 2)
    assert len(answer.frames()) == len(withheld.frames()) == 15
    told = withheld.frames()[-1]
    assert told["header"]["code"] == 20004
    assert told["header"]["message"] == "服务暂时不可用，请稍后再试"

    await asyncio.to_thread(own_server.start)
    assert (await wire.request(person.port, "GET", "/ready")).status == 200
    cost = last["payload"]["usage"]["text"]["total_tokens"]
    deadline = time.monotonic() + 20
    # Until the books have seen for themselves that the database is back.
    while (again := await person.stream(SLOW, KEY)).status == 503:
        assert time.monotonic() < deadline, "the books find the database again"
        assert int(again.header("retry-after") or 0) >= 1
        await asyncio.sleep(0.1)
    assert again.frames()[-1]["payload"]["usage"]["text"]["total_tokens"] == cost
    deadline = time.monotonic() + 20
    while await person.tokens() != before["tokens"] - 2 * cost:
        assert time.monotonic() < deadline, "what was kept is charged, each once"
        await asyncio.sleep(0.1)
    chat = (await person.chat("hi")).json()
    assert chat["code"] == 0
    assert await person.tokens() == before["tokens"] - 2 * cost - chat["consume_token"]
    await server.settles()
    await server.assert_books_add_up()
