"""Revision 0002 opens the books of accounts that exist: every balance is the sum of its entries from then on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import ledger_entry, metadata, name_key, user
from aiproject.ledger.verify import Checked, verify
from aiproject.messages.formatting import Language
from power_cut import PowerCut, between_cuts, power_cut_before

OLD_COLUMNS = (
    "Id", "UserName", "PassWord", "Email", "Tokens", "PicTimes", "AccountId", "NameKey", "VoiceMs", "VoiceUsedMs",
)  # fmt: skip
OLD_USER = sa.table("user", *(sa.column(name) for name in OLD_COLUMNS))
ENTRIES = (
    ledger_entry.c.account_id, ledger_entry.c.seq, ledger_entry.c.capability, ledger_entry.c.amount,
    ledger_entry.c.balance,
)  # fmt: skip


def account(number: int, **balances: int | None) -> dict[str, Any]:
    name = f"Person {number}"
    return {
        "Id": f"id-{number}",
        "UserName": name,
        "PassWord": "x",
        "Email": "",
        "Tokens": 0,
        "PicTimes": 0,
        "AccountId": number,
        "NameKey": name_key(name),
        "VoiceMs": None,
        "VoiceUsedMs": 0,
        **balances,
    }


ACCOUNTS = [
    account(1, Tokens=500, PicTimes=7),
    account(2),
    account(3, Tokens=1 << 52, VoiceMs=60_000, VoiceUsedMs=1500),
    account(4, VoiceUsedMs=9000),
    account(5, VoiceMs=0),
]
OPENED = [
    (1, 1, "tokens", 500, 500),
    (1, 2, "pic_times", 7, 7),
    (3, 1, "tokens", 1 << 52, 1 << 52),
    (3, 2, "voice_seconds", -1500, None),
    (3, 3, "voice_seconds", 60_000, 60_000),
    (4, 1, "voice_seconds", -9000, None),
]


@pytest.fixture
async def empty(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(database_url)
    try:
        yield database
    finally:
        await database.close()


async def make_previous_release(database: Database, accounts: list[dict[str, Any]]) -> None:
    def upgrade(connection: sa.Connection) -> None:
        command.upgrade(migrations.alembic_config(connection), "0001")

    async with database.maintenance() as connection:
        await connection.run_sync(upgrade)
        await connection.execute(OLD_USER.insert(), accounts)
        await connection.commit()


async def read_entries(database: Database) -> list[tuple[Any, ...]]:
    async with database.connect() as connection:
        rows = await connection.execute(sa.select(*ENTRIES).order_by(ledger_entry.c.account_id, ledger_entry.c.seq))
        return [tuple(row) for row in rows]


async def schema_differences(database: Database) -> list[Any]:
    def compare(connection: sa.Connection) -> list[Any]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    async with database.connect() as connection:
        return await connection.run_sync(compare)


async def test_accounts_get_entries_for_what_they_have(empty: Database) -> None:
    await make_previous_release(empty, ACCOUNTS)
    report = await migrations.upgrade(empty)
    assert report.from_revision == "0001"
    assert [note.text(Language.EN) for note in report.notes] == ["books opened for accounts with a balance: 3"]
    assert await read_entries(empty) == OPENED
    checked = Checked()
    assert [difference async for difference in verify(empty, checked=checked)] == []
    assert (checked.accounts, checked.entries) == (5, 6)
    assert await schema_differences(empty) == []
    async with empty.connect() as connection:
        kinds = (await connection.execute(sa.select(ledger_entry.c.kind, ledger_entry.c.request_id).distinct())).all()
    assert kinds == [("opening", "migration 0002")]


async def test_of_very_many_accounts_none_is_left_out(empty: Database) -> None:
    await make_previous_release(empty, [account(number, Tokens=number) for number in range(1203)])
    notes = (await migrations.upgrade(empty)).notes
    assert [note.text(Language.EN) for note in notes] == ["books opened for accounts with a balance: 1202"]
    assert await read_entries(empty) == [(number, 1, "tokens", number, number) for number in range(1, 1203)]
    assert [difference async for difference in verify(empty)] == []


async def test_the_previous_release_still_runs_and_the_proof_shows_what_it_took(empty: Database) -> None:
    await make_previous_release(empty, ACCOUNTS)
    await migrations.upgrade(empty)
    async with empty.begin() as connection:
        await connection.execute(OLD_USER.insert(), account(6))
        await connection.execute(sa.update(user).where(user.c.AccountId == 1).values(Tokens=user.c.Tokens - 30))
    found = [str(difference) async for difference in verify(empty)]
    assert found == ["account 1: Tokens: expected 500, found 470"]


async def test_an_upgrade_broken_off_anywhere_can_be_repeated(empty: Database) -> None:
    quote = "`" if empty.dialect == "mysql" else '"'
    cuts = 0
    while True:
        await make_previous_release(empty, ACCOUNTS)
        with power_cut_before(cuts + 1) as has_happened:
            try:
                await migrations.upgrade(empty)
            except PowerCut:
                assert has_happened()
        if not has_happened():
            break
        cuts += between_cuts(empty.dialect)
        assert not (await migrations.status(empty)).is_current
        await migrations.upgrade(empty)
        assert await read_entries(empty) == OPENED
        assert [difference async for difference in verify(empty)] == []
        assert await schema_differences(empty) == []
        async with empty.begin() as connection:
            for table in (*metadata.tables, "alembic_version"):
                await connection.exec_driver_sql(f"DROP TABLE {quote}{table}{quote}")
    assert cuts >= 12  # else nothing was tried
