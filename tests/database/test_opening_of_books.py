"""Migration 0002: what accounts of the previous release have becomes their first entries, and the books add up."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import command

from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import ledger_entry, user
from aiproject.ledger.verify import verify
from aiproject.messages.formatting import Language
from bookkeeping import open_account, reread


async def upgrade_to(database: Database, revision: str) -> None:
    def run(connection: sa.Connection) -> None:
        command.upgrade(migrations.alembic_config(connection), revision)

    async with database.maintenance() as connection:
        await connection.run_sync(run)
        await connection.commit()


async def open_previous(database: Database, **balances: Any) -> None:
    """An account as the previous release leaves it: without books."""
    columns = sa.table("user", *(sa.column(column.name) for column in user.columns))
    fields = {
        "Id": "1" * 32,
        "UserName": "ann",
        "NameKey": "ann",
        "PassWord": "x",
        "Email": "",
        "AccountId": 12,
        "CreatedAt": None,
    }
    async with database.begin() as connection:
        await connection.execute(sa.insert(columns).values(**fields, **balances))


async def test_balances_become_entries_that_add_up(database_url: str) -> None:
    database = await Database.open(database_url)
    try:
        await upgrade_to(database, "0001")
        await open_previous(database, Tokens=70, PicTimes=0, VoiceMs=5000, VoiceUsedMs=3000)
        report = await migrations.upgrade(database)
        assert "books opened for accounts with a balance: 1" in [note.text(Language.EN) for note in report.notes]
        async with database.connect() as connection:
            rows = await connection.execute(
                sa.select(
                    ledger_entry.c.seq,
                    ledger_entry.c.capability,
                    ledger_entry.c.amount,
                    ledger_entry.c.balance,
                    ledger_entry.c.kind,
                ).order_by(ledger_entry.c.seq)
            )
            assert [tuple(row) for row in rows] == [
                (1, "tokens", 70, 70, "opening"),
                (2, "voice_seconds", -3000, None, "opening"),
                (3, "voice_seconds", 5000, 5000, "opening"),
            ]
        await open_account(database, "bob", tokens=1)
        assert [str(difference) async for difference in verify(database)] == []
        assert (await reread(database, "ann")).tokens == 70
        async with database.begin() as connection:
            await connection.execute(sa.update(user).where(user.c.UserName == "ann").values(VoiceUsedMs=1))
        assert [difference.what async for difference in verify(database)] == ["VoiceUsedMs"]
    finally:
        await database.close()
