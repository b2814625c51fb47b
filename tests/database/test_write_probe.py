"""Readiness writes, on every database: seldom, into few rows, and it says why a write fails."""

from __future__ import annotations

import asyncio
import sqlite3
import time

import pytest
import sqlalchemy as sa

from aiproject.adapters.db import write_probe
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import Condition
from aiproject.adapters.db.schema import login_guard
from aiproject.adapters.db.write_probe import WriteProbe

READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
}


async def rows(database: Database) -> list[int]:
    async with database.connect() as connection:
        return list((await connection.execute(sa.select(login_guard.c.last_failure_at))).scalars())


async def test_it_writes_one_row_however_often_it_is_asked(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = WriteProbe(database)
    assert await asyncio.gather(*(probe.condition() for _ in range(20))) == [None] * 20
    (first,) = await rows(database)
    assert await probe.condition() is None
    assert await rows(database) == [first], "what came of it is remembered for a while"
    monkeypatch.setattr(write_probe, "PROBE_SECONDS", 0.0)
    await asyncio.sleep(0.01)
    assert await probe.condition() is None
    (second,) = await rows(database)
    assert second > first
    await probe.close()


async def test_a_database_that_only_reads_is_named(database: Database) -> None:
    other = await Database.open(database._url.render_as_string(hide_password=False), pool_size=1)
    probe = WriteProbe(other)
    try:
        async with other.connect() as connection:
            await connection.exec_driver_sql(READ_ONLY[database.dialect])
            if database.dialect == "postgresql":
                await connection.commit()
        assert await probe.condition() is Condition.READ_ONLY
    finally:
        await probe.close()
        await other.close()
    assert await rows(database) == []


async def test_a_write_that_does_not_end_is_told_in_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_probe, "WRITE_SECONDS", 0.3)
    monkeypatch.setattr(write_probe, "PROBE_SECONDS", 0.0)
    probe = WriteProbe(database)
    assert await probe.condition() is None
    if database.dialect == "sqlite":
        other = sqlite3.connect(database.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        assert await probe.condition() is Condition.LOCKED
        assert time.monotonic() - began < 15, "SQLite's own wait of 5 s cannot be cut short"
        other.close()
    else:
        async with database.begin() as connection:
            await connection.execute(sa.select(login_guard).with_for_update())
            began = time.monotonic()
            assert await probe.condition() is Condition.AWAY
            assert time.monotonic() - began < 15
    assert await probe.condition() is None
    await probe.close()
