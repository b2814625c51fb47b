"""The database goes away while the server runs: new calls hear 503, a running one ends well and is charged later."""

from __future__ import annotations

import asyncio
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


async def every_route(person: Person) -> list[wire.Answer]:
    return [await person.chat("hi"), await person.stream("hi"), await person.picture(jpeg())]


async def test_it_is_told_and_survived(own_server: Server, start_server: Callable[..., LocalServer]) -> None:
    name = await asyncio.to_thread(own_server.create_database)
    server = await asyncio.to_thread(start_server, database_url=SecretStr(own_server.url(name)))
    person = await server.person()
    assert [answer.status for answer in await every_route(person)] == [200, 200, 200]
    before = await person.login()

    async with wire.Connection(person.port) as connection:
        connection.ask_json("/textModel/stream", person.call("[[fault:slow seconds=0.1]] [[fault:frames n=15]]"))
        answer = await connection.head()
        await connection.chunk(answer)
        await asyncio.to_thread(own_server.kill)

        for refused in [*await every_route(person), await wire.request(person.port, "GET", "/ready")]:
            assert refused.status == 503
            assert int(refused.header("retry-after") or 0) >= 1
            assert refused.json()["code"] == "SERVICE_UNAVAILABLE"
        assert (await wire.request(person.port, "GET", "/health")).status == 200

        # The answer is there, and its settlement is kept: it goes out after a little patience and is charged below.
        while await connection.chunk(answer) is not None:
            pass
    assert answer.is_complete
    last = answer.frames()[-1]
    assert last["header"]["code"] == 0
    used = last["payload"]["usage"]["text"]["total_tokens"]

    await asyncio.to_thread(own_server.start)
    assert (await wire.request(person.port, "GET", "/ready")).status == 200
    left = await booked(person, before["tokens"] - used)
    chat = (await person.chat("hi")).json()
    assert chat["code"] == 0
    assert await person.tokens() == left - chat["consume_token"]
    await server.settles()
    await server.assert_books_add_up()


async def booked(person: Person, tokens: int) -> int:
    """Wait until the balance is what the kept settlement leaves of it."""
    for _ in range(100):
        if await person.tokens() == tokens:
            return tokens
        await asyncio.sleep(0.1)
    pytest.fail("the settlement was not booked when the database was back")
