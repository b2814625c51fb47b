"""Migration 0004 on databases of the previous release: keys of names are renewed, and nobody is locked out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command

from aiproject.accounts.core import store
from aiproject.accounts.core.model import Account
from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import administrator, user
from aiproject.administration import store as administrators
from aiproject.administration.model import Role
from aiproject.cli.name_findings import examine_names
from aiproject.messages.formatting import Language
from aiproject.protocols.names import exact_name_key

NAMES = [
    "owner",
    "Owner\u200b",
    "小明❤\ufe0f",
    "a\u200bb",
    "a\u200db",
    "\u3164",
    "раyраl",
    "Tom",
    "zhang  san",
    "1\u0661",
]
NEW_KEYS = ["owner", "owner\u200b", "小明❤", "ab", "a\u200db", "\u1160", "раyраl", "tom", "zhang  san", "1\u0661"]
"""Where a name becomes another one, or none, the key stays as it was."""


@pytest.fixture
async def previous(database_url: str) -> AsyncIterator[Database]:
    """A database of the previous release with these names, of accounts and of administrators."""
    database = await Database.open(database_url)
    try:
        async with database.maintenance() as connection:
            await connection.run_sync(lambda inner: command.upgrade(migrations.alembic_config(inner), "0003"))
            await connection.execute(user.insert(), [_account(number, name) for number, name in enumerate(NAMES, 1)])
            await connection.execute(administrator.insert(), [_admin(n, name) for n, name in enumerate(NAMES, 1)])
            await connection.commit()
        yield database
    finally:
        await database.close()


def _account(number: int, name: str) -> dict[str, Any]:
    return {
        "Id": f"id-{number}",
        "UserName": name,
        "PassWord": "x",
        "Email": "",
        "AccountId": number,
        "NameKey": exact_name_key(name),
    }


def _admin(number: int, name: str) -> dict[str, Any]:
    return {
        "admin_id": number,
        "name_key": exact_name_key(name),
        "name": name,
        "password": "x",
        "role": str(Role.ADMIN),
        "created_at": datetime(2026, 3, 1, tzinfo=UTC),
    }


async def keys(database: Database) -> list[list[str]]:
    async with database.connect() as connection:
        return [
            list(await connection.scalars(sa.select(key).order_by(number)))
            for number, key in (
                (user.c.AccountId, user.c.NameKey),
                (administrator.c.admin_id, administrator.c.name_key),
            )
        ]


async def test_keys_are_renewed_where_they_are_free(previous: Database) -> None:
    report = await migrations.upgrade(previous)
    assert await keys(previous) == [NEW_KEYS, NEW_KEYS]
    assert tuple(note.text(Language.EN) for note in report.notes) == (
        "2 account names are compared without the characters that are not displayed",
        "3 account names look like another one and go on; aiproject doctor lists them",
        "2 administrator names are compared without the characters that are not displayed",
        "3 administrator names look like another one and go on; aiproject doctor lists them",
    )


async def test_everybody_is_found_by_the_name_that_they_have(previous: Database) -> None:
    await migrations.upgrade(previous)
    async with previous.connect() as connection:
        for number, name in enumerate(NAMES, 1):
            found = await store.by_name(connection, name)
            assert found is not None
            account: Account = found[0]
            assert (account.account_id, account.username) == (number, name)
            who = await administrators.by_name(connection, name)
            assert who is not None
            assert (who.admin_id, who.name) == (number, name)
        assert await store.by_name(connection, "\u200b") is None


async def test_it_may_break_off_and_be_run_again(previous: Database) -> None:
    await migrations.upgrade(previous)
    async with previous.maintenance() as connection:
        await connection.execute(user.update().where(user.c.AccountId == 3).values(NameKey=exact_name_key(NAMES[2])))
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '0003'"))
        await connection.commit()
    report = await migrations.upgrade(previous)
    assert await keys(previous) == [NEW_KEYS, NEW_KEYS]
    assert report.notes[0].text(Language.EN).startswith("1 account names are compared")


async def test_the_doctor_lists_what_can_be_taken_for_another_one(previous: Database) -> None:
    await migrations.upgrade(previous)
    admins, accounts = await examine_names(previous)
    assert (admins.level, accounts.level) == ("fix", "note")
    for finding in (admins, accounts):
        assert finding.subject == "names"
        listed = r"'Owner\u200b', 'a\u200db', '\u3164', '\u0440\u0430y\u0440\u0430l', 'zhang  san', '1\u0661'"
        assert finding.text(Language.EN).endswith(listed)
