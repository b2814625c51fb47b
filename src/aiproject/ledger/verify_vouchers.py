"""Vouchers and redemptions, against the ledger and the audit log; a part of `aiproject.ledger.verify`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, and_, func, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.schema import EditedDateTime
from aiproject.adapters.db.schema import ledger_entry as entries
from aiproject.adapters.db.schema import voucher as vouchers
from aiproject.adapters.db.schema import voucher_redemption as redemptions
from aiproject.ledger.findings import Difference
from aiproject.ledger.model import Kind
from aiproject.ledger.verify_facts import PREFIX, AuditFacts, masked

__all__ = ["voucher_differences"]

ROWS = 1000
"""Rows in memory, and differences of one kind that are reported."""


async def voucher_differences(connection: AsyncConnection, facts: AuditFacts) -> list[Difference]:
    """Return what is wrong with vouchers.

    Args:
        connection: in a snapshot that is later than those in which entries were taken in.
        facts: with the entries of vouchers of all accounts, and the log as of this snapshot.
    """
    found = await _miscounted(connection)
    # What was redeemed in the legacy application's database has no entry here.
    statement = select(redemptions.c.account_id, redemptions.c.voucher_id, redemptions.c.code)
    async for row in _rows(connection, statement.where(redemptions.c.is_adopted.is_not(True))):
        mark = row.code if row.voucher_id is None else row.voucher_id
        facts.redeem(row.account_id, f"{PREFIX}{mark}")
    found += facts.entries_without_redemption()
    for account_id, reference in facts.redemptions_without_entry():
        if not await _is_entered(connection, account_id, reference):
            what = f"entries for the redemption of {masked(reference)}"
            found.append(Difference(account_id, what, "at least one", 0))
    return [*found, *await _unnamed(connection, facts)][:ROWS]


async def _miscounted(connection: AsyncConnection) -> list[Difference]:
    # A code that was deleted keeps its redemptions; a new voucher of that code counts from its own beginning.
    is_its_own = and_(redemptions.c.code == vouchers.c.code, redemptions.c.redeemed_at >= vouchers.c.created_at)
    redeemed = func.count(redemptions.c.account_id)
    voucher = (vouchers.c.code, vouchers.c.voucher_id, vouchers.c.name, vouchers.c.uses)
    rows = await connection.execute(
        select(*voucher, redeemed)
        .select_from(vouchers.outerjoin(redemptions, is_its_own))
        .group_by(*voucher)
        .having(vouchers.c.uses != redeemed)
        .order_by(vouchers.c.code)
        .limit(ROWS)
    )
    return [Difference(None, f"uses of {_title(number, name)}", told, uses) for _, number, name, uses, told in rows]


def _title(number: int | None, name: str | None) -> str:
    """Return what lists and the audit log call a voucher; never its code."""
    return f"voucher {name or number}" if name or number else "a voucher without a name"


async def _is_entered(connection: AsyncConnection, account_id: int, reference: str) -> bool:
    """Whether the ledger has such an entry by now: it may be newer than the snapshot of its account's page."""
    statement = select(entries.c.seq).where(
        entries.c.account_id == account_id, entries.c.kind == str(Kind.VOUCHER), entries.c.request_id == reference
    )
    return (await connection.execute(statement.limit(1))).one_or_none() is not None


async def _unnamed(connection: AsyncConnection, facts: AuditFacts) -> list[Difference]:
    """Compare the vouchers of each moment with what the audit log says was made then, and entries with their worth."""
    found: list[Difference] = []
    moment: datetime | str | None = None
    made_at = ""
    count = tokens = pic_times = 0

    def end() -> None:
        if isinstance(moment, datetime):
            found.extend(facts.check_vouchers(made_at, int(moment.timestamp() * 1000), count, tokens, pic_times))

    made = type_coerce(vouchers.c.created_at, EditedDateTime).label("made")
    statement = select(
        made, vouchers.c.voucher_id, vouchers.c.code, vouchers.c.name, vouchers.c.tokens, vouchers.c.pic_times
    )
    async for row in _rows(connection, statement.order_by(vouchers.c.created_at)):
        if isinstance(row.made, str):
            title = _title(row.voucher_id, row.name)
            found.append(Difference(None, f"when {title} was made", "a moment", row.made[:100]))
            continue
        if row.made != moment:
            end()
            moment, count, tokens, pic_times = row.made, 0, 0, 0
            made_at = row.made.astimezone(UTC).isoformat(timespec="microseconds")
        worth = _number(row.tokens), _number(row.pic_times)
        facts.value(f"{PREFIX}{row.code if row.voucher_id is None else row.voucher_id}", made_at, *worth)
        count, tokens, pic_times = count + 1, tokens + worth[0], pic_times + worth[1]
    end()
    return [*found, *facts.vouchers_gone(), *facts.vouchers_paid_wrongly()]


async def _rows(connection: AsyncConnection, statement: Select[Any]) -> AsyncIterator[Any]:
    async with connection.stream(statement, execution_options={"yield_per": ROWS}) as result:
        async for rows in result.partitions():
            for row in rows:
                yield row


def _number(value: object) -> int:
    """Return a number, or 0 for anything else that somebody wrote into SQLite's column of numbers."""
    return value if isinstance(value, int) else 0
