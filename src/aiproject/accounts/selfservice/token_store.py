"""All SQL on the tokens that are sent by e-mail."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.schema import mail_token as tokens

__all__ = ["MailToken", "Purpose", "add", "consume", "drop_overdue", "forget", "found", "live"]

DROPPED_AT_ONCE = 100
"""Maximum expired tokens that are deleted when a new one is stored."""


class Purpose(StrEnum):
    """The action that a token authorises."""

    VERIFY = "verify"
    RESET = "reset"


class MailToken(NamedTuple):
    """The account of a token, and the address to which it was sent."""

    account_id: int
    email: str


async def add(
    connection: AsyncConnection,
    token_hash: str,
    purpose: Purpose,
    account_id: int,
    email: str,
    *,
    now: datetime,
    expires_at: datetime,
) -> None:
    """Insert a token."""
    await connection.execute(
        insert(tokens).values(
            token_hash=token_hash,
            account_id=account_id,
            purpose=str(purpose),
            email=email,
            created_at=now,
            expires_at=expires_at,
        )
    )


async def found(connection: AsyncConnection, token_hash: str, purpose: Purpose, now: datetime) -> MailToken | None:
    """Return a token that is still valid."""
    is_meant = tokens.c.token_hash == token_hash, tokens.c.purpose == str(purpose), tokens.c.expires_at > now
    row = (await connection.execute(select(tokens.c.account_id, tokens.c.email).where(*is_meant))).one_or_none()
    return None if row is None else MailToken(*row)


async def consume(connection: AsyncConnection, token_hash: str, now: datetime) -> bool:
    """Delete a valid token; of several simultaneous calls, exactly one returns ``True``."""
    is_meant = tokens.c.token_hash == token_hash, tokens.c.expires_at > now
    return (await connection.execute(delete(tokens).where(*is_meant))).rowcount == 1


async def live(connection: AsyncConnection, account_id: int, purpose: Purpose, now: datetime) -> int:
    """Return the number of valid tokens of an account."""
    is_meant = tokens.c.account_id == account_id, tokens.c.purpose == str(purpose), tokens.c.expires_at > now
    return int((await connection.execute(select(func.count()).select_from(tokens).where(*is_meant))).scalar_one())


async def forget(connection: AsyncConnection, account_id: int, purpose: Purpose | None = None) -> None:
    """Delete the tokens of an account, for one purpose or for all."""
    query = delete(tokens).where(tokens.c.account_id == account_id)
    if purpose is not None:
        query = query.where(tokens.c.purpose == str(purpose))
    await connection.execute(query)


async def drop_overdue(connection: AsyncConnection, now: datetime) -> None:
    """Delete some expired tokens, at most `DROPPED_AT_ONCE`."""
    overdue = select(tokens.c.token_hash).where(tokens.c.expires_at <= now).limit(DROPPED_AT_ONCE)
    hashes = list((await connection.execute(overdue)).scalars())
    if hashes:
        await connection.execute(delete(tokens).where(tokens.c.token_hash.in_(hashes)))
