"""A database server that accepts connections and says nothing, or falls silent later, holds nobody up for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa

from aiproject.adapters.db.engine import Database
from aiproject.errors import Unavailable
from services import Server

TOLD_SECONDS = 18.0
"""What the tests grant on a busy machine; by itself it takes 7 s, and at most 2 s more to close the connection. Before,
it took 32 s."""


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def seconds_until_unavailable(database: Database) -> float:
    began = time.monotonic()
    with pytest.raises(Unavailable):
        async with database.begin() as connection:
            await connection.execute(sa.text("SELECT 1"))
    return time.monotonic() - began


async def test_a_server_that_never_says_a_word(silent_port: int) -> None:
    databases = [
        await Database.open(f"{kind}://name:password@127.0.0.1:{silent_port}/books") for kind in ("mysql", "postgresql")
    ]
    try:
        waited = await asyncio.gather(*(seconds_until_unavailable(database) for database in databases))
        assert max(waited) < TOLD_SECONDS, waited
    finally:
        for database in databases:
            await database.close()


async def test_a_server_that_falls_silent(database: Database, request: pytest.FixtureRequest) -> None:
    if database.dialect == "sqlite":
        pytest.skip("SQLite has no server that could fall silent")
    server: Server = request.getfixturevalue(f"{request.node.callspec.params['database_kind']}_server")
    async with database.connect() as fresh, database.connect() as asked:
        await fresh.execute(sa.text("SELECT 1"))
        await asked.execute(sa.text("SELECT 1"))
    server.pause()
    try:
        waited = await asyncio.gather(*(seconds_until_unavailable(database) for _ in range(3)))
        assert max(waited) < TOLD_SECONDS, waited
    finally:
        server.resume()
