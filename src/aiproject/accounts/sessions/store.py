"""All SQL on browser sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.accounts.core.model import Account
from aiproject.accounts.core.store import COLUMNS, as_account
from aiproject.adapters.db.schema import browser_session as sessions
from aiproject.adapters.db.schema import user as users

__all__ = ["add", "end", "end_all", "end_overdue", "end_token", "found", "of_account", "saw"]

SESSION = (
    sessions.c.session_id,
    sessions.c.account_id,
    sessions.c.created_at,
    sessions.c.seen_at,
    sessions.c.expires_at,
    sessions.c.address,
    sessions.c.user_agent,
)

ENDED_AT_ONCE = 100
"""Overdue sessions that one login clears away."""


async def add(connection: AsyncConnection, token_hash: str, **values: Any) -> None:
    """Insert a session; ``values`` by the names of `SESSION`."""
    await connection.execute(insert(sessions).values(token_hash=token_hash, **values))


async def found(connection: AsyncConnection, token_hash: str) -> tuple[Account, datetime | None, Any] | None:
    """Return the account of a token, when its password was changed last, and the row of `SESSION`."""
    query = (
        select(*SESSION, users.c.PasswordChangedAt, *COLUMNS)
        .join(users, users.c.AccountId == sessions.c.account_id)
        .where(sessions.c.token_hash == token_hash)
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    width = len(SESSION)
    return as_account(row[width + 1 :]), row[width], row[:width]


async def saw(connection: AsyncConnection, session_id: str, *, before: datetime, now: datetime) -> None:
    """Note that a session was used, unless somebody noted it since ``before``."""
    unnoted = sessions.c.session_id == session_id, sessions.c.seen_at <= before
    await connection.execute(update(sessions).where(*unnoted).values(seen_at=now))


async def of_account(connection: AsyncConnection, account_id: int) -> list[Any]:
    """Return the rows of `SESSION` of an account, the one used last first."""
    query = select(*SESSION).where(sessions.c.account_id == account_id)
    return list(await connection.execute(query.order_by(sessions.c.seen_at.desc(), sessions.c.session_id)))


async def end(connection: AsyncConnection, account_id: int, session_id: str) -> bool:
    """Delete one session of an account; return whether there was one."""
    is_meant = sessions.c.account_id == account_id, sessions.c.session_id == session_id
    return bool((await connection.execute(delete(sessions).where(*is_meant))).rowcount)


async def end_token(connection: AsyncConnection, token_hash: str) -> None:
    """Delete the session of a token."""
    await connection.execute(delete(sessions).where(sessions.c.token_hash == token_hash))


async def end_all(connection: AsyncConnection, account_id: int, *, but: str | None = None) -> int:
    """Delete an account's sessions, except the one called ``but``; return how many there were."""
    query = delete(sessions).where(sessions.c.account_id == account_id)
    if but is not None:
        query = query.where(sessions.c.session_id != but)
    return int((await connection.execute(query)).rowcount)


async def end_overdue(connection: AsyncConnection, now: datetime) -> None:
    """Delete some sessions whose absolute end has come."""
    overdue = select(sessions.c.token_hash).where(sessions.c.expires_at <= now).limit(ENDED_AT_ONCE)
    hashes = list((await connection.execute(overdue)).scalars())
    if hashes:
        await connection.execute(delete(sessions).where(sessions.c.token_hash.in_(hashes)))


async def count(connection: AsyncConnection) -> int:
    """Return how many sessions there are."""
    return int((await connection.execute(select(func.count()).select_from(sessions))).scalar_one())
