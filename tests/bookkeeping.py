"""Accounts, calls and damage for tests of the books."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from aiproject.accounts.core import store
from aiproject.accounts.core.model import Account
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import (
    hold,
    ledger_entry,
    name_key,
    new_account_id,
    operator_loss,
    unpaid_usage,
    user,
    voucher,
    voucher_redemption,
)
from aiproject.ledger.service import LeaseTimes, Quotas

__all__ = ["copy_books", "open_account", "reread", "restore_books"]

TABLES = (user, ledger_entry, hold, operator_loss, unpaid_usage, voucher, voucher_redemption)


async def open_account(
    database: Database,
    name: str,
    *,
    tokens: int = 0,
    pic_times: int = 0,
    voice_ms: int | None = None,
    academy: str | None = None,
) -> Account:
    """Open an account as a registration does, without the work of hashing a password."""
    now = datetime.now(UTC)
    async with database.begin() as connection:
        account_id = new_account_id(now)
        await store.add(
            connection,
            account_id=account_id,
            uuid=secrets.token_hex(16),
            name_key=name_key(name),
            username=name,
            password="x",
            email="someone@example.org",
            academy=academy,
            now=now,
        )
        await Quotas(database, LeaseTimes(30)).grant_opening(
            connection, account_id, tokens=tokens, pic_times=pic_times, voice_ms=voice_ms
        )
    return await reread(database, name)


async def reread(database: Database, name: str) -> Account:
    """The account as it is now."""
    async with database.connect() as connection:
        found = await store.by_name_keys(connection, [name_key(name)])
    return found[0][0]


async def copy_books(database: Database) -> Mapping[sa.Table, list[dict[str, Any]]]:
    """Every row of the books."""
    async with database.snapshot() as connection:
        return {
            table: [dict(row) for row in (await connection.execute(sa.select(table))).mappings()] for table in TABLES
        }


async def restore_books(database: Database, copy: Mapping[sa.Table, list[dict[str, Any]]]) -> None:
    """Undo whatever a test did since `copy_books`."""
    async with database.begin() as connection:
        for table, rows in copy.items():
            await connection.execute(sa.delete(table))
            if rows:
                await connection.execute(sa.insert(table), rows)
