"""`Database.snapshot`: all reads see one moment, nobody waits, and the connection is as before afterwards."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import sqlalchemy as sa

from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import StatementFailed
from aiproject.adapters.db.schema import user, voucher
from aiproject.errors import Unavailable
from bookkeeping import open_account

TOKENS = sa.select(user.c.Tokens)
VOUCHERS = sa.select(sa.func.count()).select_from(voucher)


async def change_both(database: Database, tokens: int) -> None:
    async with asyncio.timeout(5), database.begin() as connection:
        await connection.execute(sa.update(user).values(Tokens=tokens))
        await connection.execute(
            sa.insert(voucher).values(
                code=f"C{tokens}", tokens=1, pic_times=0, is_available=True, created_at=sa.func.current_timestamp()
            )
        )


async def test_reads_see_the_moment_of_its_beginning(database: Database) -> None:
    await open_account(database, "ann", tokens=1)
    async with database.snapshot() as connection:
        await change_both(database, 2)
        first = (await connection.execute(TOKENS)).scalar_one()
        await change_both(database, 3)
        seen = (first, (await connection.execute(TOKENS)).scalar_one(), (await connection.execute(VOUCHERS)).scalar())
    assert seen == (1, 1, 0)


async def test_connections_go_back_to_reading_what_is_committed(database_url: str) -> None:
    database = await Database.open(database_url, pool_size=1)
    other = await Database.open(database_url, pool_size=1)
    table = sa.Table("n", sa.MetaData(), sa.Column("n", sa.Integer))
    count = sa.select(sa.func.count()).select_from(table)
    try:
        async with database.begin() as connection:
            await connection.run_sync(table.metadata.create_all)
        async with database.snapshot() as connection:
            assert (await connection.execute(count)).scalar() == 0
        async with database.begin() as connection:
            await connection.execute(table.insert().values(n=1))
        async with other.connect() as connection:
            assert (await connection.execute(count)).scalar() == 1
        if database.dialect != "sqlite":
            async with database.connect() as connection:
                assert (await connection.execute(count)).scalar() == 1
                async with other.begin() as elsewhere:
                    await elsewhere.execute(table.insert().values(n=2))
                assert (await connection.execute(count)).scalar() == 2
    finally:
        await other.close()
        await database.close()


async def test_nothing_is_written(database: Database) -> None:
    await open_account(database, "ann", tokens=1)
    with contextlib.suppress(Unavailable, StatementFailed):  # some databases say so, some forget it
        async with database.snapshot() as connection:
            await connection.execute(sa.update(user).values(Tokens=9))
    async with database.connect() as connection:
        assert (await connection.execute(TOKENS)).scalar_one() == 1


async def test_it_ends_in_time(database: Database) -> None:
    with pytest.raises(Unavailable, match=r"0\.2 s"):
        async with database.snapshot(seconds=0.2):
            await asyncio.sleep(30)
