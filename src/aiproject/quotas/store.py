"""All SQL on balances. Every change is one conditional statement, so that no balance can fall below zero."""

from __future__ import annotations

from sqlalchemy import BigInteger, case, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.schema import user as users
from aiproject.quotas.model import Capability

__all__ = ["add", "balance", "record_voice", "take", "take_at_most"]

ZERO = literal(0, BigInteger)

COLUMN = {
    Capability.TOKENS: users.c.Tokens,
    Capability.PIC_TIMES: users.c.PicTimes,
    Capability.VOICE_SECONDS: users.c.VoiceMs,
}


async def balance(connection: AsyncConnection, account_id: int, capability: Capability) -> int | None:
    """Return what is left; ``None``: unmetered, or no such account."""
    column = COLUMN[capability]
    value = (await connection.execute(select(column).where(users.c.AccountId == account_id))).scalar_one_or_none()
    return None if value is None else int(value)


async def take(connection: AsyncConnection, account_id: int, capability: Capability, amount: int) -> bool:
    """Take ``amount`` if there is that much; say whether it was taken. An unmetered balance stays as it is."""
    column = COLUMN[capability]
    result = await connection.execute(
        update(users)
        .where(users.c.AccountId == account_id, column >= amount)
        .values({column.name: column - amount})
        .execution_options(synchronize_session=False)
    )
    return bool(result.rowcount)


async def take_at_most(connection: AsyncConnection, account_id: int, capability: Capability, amount: int) -> int:
    """Take ``amount`` or, where there is less, all there is; return how much was taken."""
    if await take(connection, account_id, capability, amount):
        return amount
    column = COLUMN[capability]
    left = (
        await connection.execute(select(column).where(users.c.AccountId == account_id).with_for_update())
    ).scalar_one_or_none()
    if not left:
        return 0
    rest = min(int(left), amount)
    await connection.execute(update(users).where(users.c.AccountId == account_id).values({column.name: column - rest}))
    return rest


async def add(connection: AsyncConnection, account_id: int, capability: Capability, amount: int) -> None:
    """Add ``amount``; a negative one takes away, down to zero at the most."""
    column = COLUMN[capability]
    # Granting seconds to an unmetered account makes it metered. PostgreSQL takes a plain number here for a 32-bit one.
    grown = func.coalesce(column, ZERO) + literal(amount, BigInteger)
    await connection.execute(
        update(users).where(users.c.AccountId == account_id).values({column.name: case((grown < 0, ZERO), else_=grown)})
    )


async def record_voice(connection: AsyncConnection, account_id: int, milliseconds: int) -> None:
    """Count dictated time, metered or not."""
    await connection.execute(
        update(users)
        .where(users.c.AccountId == account_id)
        .values({users.c.VoiceUsedMs.name: users.c.VoiceUsedMs + milliseconds})
    )
