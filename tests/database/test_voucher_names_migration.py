"""Revision 0005 gives vouchers names and numbers: those that exist go on under their codes, and the books add up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from alembic import command

from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import ledger_entry, voucher, voucher_redemption
from aiproject.administration.table_store import Tables
from aiproject.errors import VoucherRedeemed
from aiproject.ledger.batch import apply
from aiproject.ledger.model import Grant, Kind, Meter
from aiproject.ledger.verify import verify
from aiproject.vouchers.service import Vouchers
from bookkeeping import open_account, reread

NOW = datetime(2026, 3, 1, tzinfo=UTC)

# As releases before 0005 know the tables.
OLD_VOUCHER = sa.table(
    "voucher",
    *(sa.column(name) for name in ("code", "tokens", "pic_times")),
    sa.column("is_available", sa.Boolean),
    sa.column("uses"),
    sa.column("created_at", voucher.c.created_at.type),
)
OLD_REDEMPTION = sa.table(
    "voucher_redemption",
    *(sa.column(name) for name in ("code", "account_id")),
    sa.column("redeemed_at", voucher_redemption.c.redeemed_at.type),
)


@pytest.fixture
async def old(database_url: str) -> AsyncIterator[Database]:
    """A database of the revision before."""
    database = await Database.open(database_url)
    try:
        async with database.maintenance() as connection, migrations._exclusive(connection, database):
            await connection.run_sync(lambda inner: command.upgrade(migrations.alembic_config(inner), "0004"))
        yield database
    finally:
        await database.close()


async def old_voucher(database: Database, code: str, *, uses: int = 0) -> None:
    async with database.begin() as connection:
        await connection.execute(
            OLD_VOUCHER.insert(),
            {"code": code, "tokens": 5, "pic_times": 0, "is_available": True, "uses": uses, "created_at": NOW},
        )


async def test_vouchers_go_on_under_their_names(old: Database) -> None:
    ann, bob = await open_account(old, "ann"), await open_account(old, "bob")
    await old_voucher(old, "SPRING", uses=1)
    async with old.begin() as connection:
        await connection.execute(
            OLD_REDEMPTION.insert(), {"code": "SPRING", "account_id": ann.account_id, "redeemed_at": NOW}
        )
        grant = Grant(ann.account_id, Meter.TOKENS, 5, Kind.VOUCHER, "voucher:SPRING")
        await apply(connection, [grant], dialect=old.dialect)

    await migrations.upgrade(old)

    vouchers = Vouchers(old)
    with pytest.raises(VoucherRedeemed):
        await vouchers.redeem(ann, "spring")
    redeemed = await vouchers.redeem(bob, "spring")
    assert (await reread(old, "bob")).tokens == 5
    # What was redeemed before is in the chain, and so as it was; what is redeemed from now on shows no code.
    async with old.connect() as connection:
        statement = sa.select(ledger_entry.c.request_id).where(ledger_entry.c.kind == "voucher")
        assert set(await connection.scalars(statement)) == {"voucher:SPRING", f"voucher:{redeemed.voucher_id}"}
    assert [str(difference) async for difference in verify(old)] == []
    shown = await Tables(old).row("token", "spring", shows_codes=True)
    assert (shown["Id"], shown["Name"]) == ("SPRING", f"#{redeemed.voucher_id}")
    assert not (await vouchers.set_available("spring", False)).is_available


async def test_more_than_one_statement_s_worth(old: Database) -> None:
    async with old.begin() as connection:
        await connection.execute(
            OLD_VOUCHER.insert(),
            [
                {"code": f"V-{n}", "tokens": 5, "pic_times": 0, "is_available": True, "uses": 0, "created_at": NOW}
                for n in range(1203)
            ],
        )
    await migrations.upgrade(old)
    async with old.connect() as connection:
        rows = (await connection.execute(sa.select(voucher.c.voucher_id, voucher.c.name, voucher.c.name_key))).all()
    assert len({row.voucher_id for row in rows}) == 1203
    assert all(row.name == row.name_key == f"#{row.voucher_id}" for row in rows)


async def test_the_previous_release_goes_on_beside_it(old: Database) -> None:
    await migrations.upgrade(old)
    ann = await open_account(old, "ann")
    await old_voucher(old, "LATE", uses=1)
    await old_voucher(old, "LATER")
    async with old.begin() as connection:
        await connection.execute(
            OLD_REDEMPTION.insert(), {"code": "LATE", "account_id": ann.account_id, "redeemed_at": NOW}
        )
        grant = Grant(ann.account_id, Meter.TOKENS, 5, Kind.VOUCHER, "voucher:LATE")
        await apply(connection, [grant], dialect=old.dialect)
    await Vouchers(old).redeem(ann, "later")
    assert [str(difference) async for difference in verify(old)] == []
