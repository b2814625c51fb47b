"""All SQL on ``signup_count``."""

from __future__ import annotations

from sqlalchemy import Insert, delete, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.schema import signup_count as counts

__all__ = ["count", "forget"]


async def count(connection: AsyncConnection, day: int, subject: str, *, limit: int) -> bool:
    """Count one account of a subject unless ``limit`` are counted; return whether it was.

    Keeps others from the subject's row until the transaction ends.
    """
    await connection.execute(_ensure(connection.dialect.name, day, subject))
    is_meant = counts.c.day == day, counts.c.subject == subject, counts.c.accounts < limit
    result = await connection.execute(update(counts).where(*is_meant).values(accounts=counts.c.accounts + 1))
    return bool(result.rowcount)


async def forget(connection: AsyncConnection, *, before: int) -> None:
    """Delete the counts of days before a day."""
    await connection.execute(delete(counts).where(counts.c.day < before))


def _ensure(dialect: str, day: int, subject: str) -> Insert:
    """An INSERT that changes nothing in a row that exists."""
    row = {"day": day, "subject": subject, "accounts": 0}
    match dialect:
        case "sqlite":
            return sqlite.insert(counts).values(row).on_conflict_do_nothing()
        case "postgresql":
            from sqlalchemy.dialects import postgresql

            return postgresql.insert(counts).values(row).on_conflict_do_nothing()
        case _:
            from sqlalchemy.dialects import mysql

            return mysql.insert(counts).values(row).on_duplicate_key_update(day=counts.c.day)
