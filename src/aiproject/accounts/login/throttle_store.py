"""All SQL on ``login_guard``.

A key is a realm and the hash of a subject. Rows are locked in the order of their keys, so that two attempts never wait
for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import ColumnElement, Insert, and_, delete, func, or_, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.accounts.login.throttle_rules import FailureCount
from aiproject.adapters.db.schema import login_guard as guards

__all__ = ["Key", "count", "lock_existing", "locked", "oldest", "read", "remove", "weakest", "write"]

Key = tuple[str, str]

_TALLY = (guards.c.failures, guards.c.blocked_until, guards.c.last_failure_at)


async def read(connection: AsyncConnection, keys: Iterable[Key]) -> dict[Key, FailureCount]:
    """Return the tallies of those keys that have one."""
    return await _select(connection, keys, is_locking=False)


async def locked(connection: AsyncConnection, keys: Iterable[Key], now: int) -> dict[Key, FailureCount]:
    """Return the tallies of all keys, made where there was none, and keep others from them until the transaction ends.

    To be called in a transaction that writes, and once only in it.
    """
    await connection.execute(_ensure(connection.dialect.name, sorted(keys), now))
    # What lies in the rows, not what this connection saw before: hence the lock here once more.
    return await _select(connection, keys, is_locking=True)


async def lock_existing(connection: AsyncConnection, keys: Iterable[Key]) -> dict[Key, FailureCount]:
    """Like `locked`, for those keys that have a tally."""
    return await _select(connection, keys, is_locking=True)


async def write(connection: AsyncConnection, tallies: Mapping[Key, FailureCount]) -> None:
    """Store the tallies of keys that are `locked`."""
    for key, tally in sorted(tallies.items()):
        await connection.execute(
            update(guards)
            .where(_is(key))
            .values(
                failures=tally.failures,
                blocked_until=tally.blocked_until,
                last_failure_at=tally.last_failure_at,
            )
        )


async def remove(connection: AsyncConnection, keys: Iterable[Key]) -> int:
    """Forget these keys; return how many there were."""
    conditions = [_is(key) for key in sorted(keys)]
    if not conditions:
        return 0
    result = await connection.execute(delete(guards).where(or_(*conditions)))
    return int(result.rowcount)


async def oldest(connection: AsyncConnection, *, before: int, limit: int, apart_from: Sequence[str] = ()) -> list[Key]:
    """Return keys whose last failure lies before a moment, of all realms but a few."""
    rows = await connection.execute(
        select(guards.c.realm, guards.c.subject)
        .where(guards.c.last_failure_at < before, guards.c.realm.not_in(apart_from))
        .order_by(guards.c.last_failure_at)
        .limit(limit)
    )
    return [(row.realm, row.subject) for row in rows]


async def weakest(connection: AsyncConnection, limit: int) -> list[Key]:
    """Return the keys with the fewest failures, the oldest of them first."""
    rows = await connection.execute(
        select(guards.c.realm, guards.c.subject).order_by(guards.c.failures, guards.c.last_failure_at).limit(limit)
    )
    return [(row.realm, row.subject) for row in rows]


async def count(connection: AsyncConnection) -> int:
    """Return how many rows there are."""
    return int((await connection.execute(select(func.count()).select_from(guards))).scalar_one())


async def _select(connection: AsyncConnection, keys: Iterable[Key], *, is_locking: bool) -> dict[Key, FailureCount]:
    query = select(guards.c.realm, guards.c.subject, *_TALLY).where(or_(*(_is(key) for key in sorted(keys))))
    if is_locking:
        # SQLite has no such word and needs none: its writing transaction is the only one.
        query = query.order_by(guards.c.realm, guards.c.subject).with_for_update()
    rows = await connection.execute(query)
    return {(row[0], row[1]): FailureCount(*row[2:]) for row in rows}


def _is(key: Key) -> ColumnElement[bool]:
    return and_(guards.c.realm == key[0], guards.c.subject == key[1])


def _ensure(dialect: str, keys: Sequence[Key], now: int) -> Insert:
    """An INSERT that changes nothing in a row that exists, but locks it."""
    rows = [
        {"realm": realm, "subject": subject, "failures": 0, "blocked_until": 0, "last_failure_at": now}
        for realm, subject in keys
    ]
    match dialect:
        case "sqlite":
            return sqlite.insert(guards).values(rows).on_conflict_do_nothing()
        case "postgresql":
            from sqlalchemy.dialects import postgresql

            statement = postgresql.insert(guards).values(rows)
            # Not DO NOTHING: that locks nothing, and a sweep could take the row away.
            return statement.on_conflict_do_update(
                index_elements=["realm", "subject"], set_={"realm": statement.excluded.realm}
            )
        case _:
            from sqlalchemy.dialects import mysql

            return mysql.insert(guards).values(rows).on_duplicate_key_update(realm=guards.c.realm)
