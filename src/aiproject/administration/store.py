"""All SQL on administrators and their sessions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.schema import administrator as administrators
from aiproject.adapters.db.schema import administrator_session as sessions
from aiproject.administration.model import Administrator, Role
from aiproject.protocols.names import lookup_keys

__all__ = [
    "add",
    "add_session",
    "by_name",
    "count",
    "end_session",
    "end_sessions",
    "forget_sessions",
    "listed",
    "names_after",
    "of_session",
    "password_of",
    "remove",
    "set_columns",
    "stored_key",
    "stored_password",
]

COLUMNS = (
    administrators.c.admin_id,
    administrators.c.name,
    administrators.c.role,
    administrators.c.created_at,
    administrators.c.password_changed_at,
)


def _administrator(row: Any) -> Administrator:
    admin_id, name, role, created_at, password_changed_at = row[: len(COLUMNS)]
    return Administrator(admin_id, name, Role(role), created_at, password_changed_at)


async def by_name(connection: AsyncConnection, name: str, *, is_locked: bool = False) -> Administrator | None:
    """Return the administrator with this name.

    Args:
        is_locked: keep everybody else from changing the row until the transaction ends.
    """
    row = await _row_of(connection, name, select(*COLUMNS, administrators.c.name_key), is_locked=is_locked)
    return None if row is None else _administrator(row)


async def stored_key(connection: AsyncConnection, name: str) -> str | None:
    """Return the key under which the administrator with this name is stored."""
    row = await _row_of(connection, name, select(administrators.c.name_key))
    return None if row is None else str(row.name_key)


async def password_of(connection: AsyncConnection, name: str) -> tuple[Administrator, str] | None:
    """Return the administrator with this name, and the stored password."""
    row = await _row_of(connection, name, select(*COLUMNS, administrators.c.password, administrators.c.name_key))
    return None if row is None else (_administrator(row), row.password)


async def _row_of(connection: AsyncConnection, name: str, query: Select[Any], *, is_locked: bool = False) -> Any:
    """Return the row that is stored under the first of the keys of ``name``."""
    keys = lookup_keys(name)
    if not keys:
        return None
    query = query.where(administrators.c.name_key.in_(keys)).order_by(administrators.c.name_key)
    rows = (await connection.execute(query.with_for_update() if is_locked else query)).all()
    return min(rows, key=lambda row: keys.index(row.name_key), default=None)


async def listed(connection: AsyncConnection) -> list[Administrator]:
    """Return all administrators, in the order of their names; there are few."""
    return [
        _administrator(row)
        for row in await connection.execute(select(*COLUMNS).order_by(administrators.c.name_key))
    ]  # fmt: skip


async def names_after(connection: AsyncConnection, admin_id: int, limit: int) -> list[tuple[int, str, str]]:
    """Return number, name and name key of administrators with higher numbers, in the order of numbers."""
    number = administrators.c.admin_id
    statement = select(number, administrators.c.name, administrators.c.name_key).where(number > admin_id)
    return [tuple(row) for row in await connection.execute(statement.order_by(number).limit(limit))]


async def count(connection: AsyncConnection, *, roles: Sequence[Role] = tuple(Role)) -> int:
    """Return how many administrators with these roles there are."""
    statement = select(func.count()).select_from(administrators).where(administrators.c.role.in_(list(map(str, roles))))
    return int((await connection.execute(statement)).scalar_one())


async def add(
    connection: AsyncConnection, new: Administrator, *, name_key: str, password: str
) -> None:  # fmt: skip
    """Insert an administrator.

    Raises:
        UniqueViolation: the name or the number is taken.
    """
    await connection.execute(
        insert(administrators).values(
            admin_id=new.admin_id,
            name_key=name_key,
            name=new.name,
            password=password,
            role=str(new.role),
            created_at=new.created_at,
            password_changed_at=new.password_changed_at,
        )
    )


async def set_columns(connection: AsyncConnection, admin_id: int, **columns: Any) -> None:
    """Write columns of an administrator.

    Raises:
        UniqueViolation: the name is taken.
    """
    await connection.execute(update(administrators).where(administrators.c.admin_id == admin_id).values(**columns))


async def stored_password(connection: AsyncConnection, admin_id: int) -> str | None:
    """Return a stored password, and keep everybody else from changing it until the transaction ends."""
    statement = select(administrators.c.password).where(administrators.c.admin_id == admin_id).with_for_update()
    found: str | None = (await connection.execute(statement)).scalar_one_or_none()
    return found


async def remove(connection: AsyncConnection, admin_id: int) -> None:
    """Delete an administrator and all sessions."""
    await connection.execute(delete(sessions).where(sessions.c.admin_id == admin_id))
    await connection.execute(delete(administrators).where(administrators.c.admin_id == admin_id))


# -- sessions ----------------------------------------------------------------------------------------------------------


async def add_session(
    connection: AsyncConnection, session_id: str, admin_id: int, *, now: datetime, expires_at: datetime, address: str
) -> None:
    """Insert a session."""
    await connection.execute(
        insert(sessions).values(
            session_id=session_id,
            admin_id=admin_id,
            created_at=now,
            expires_at=expires_at,
            revoked_at=None,
            address=address[:64],
        )
    )


async def of_session(
    connection: AsyncConnection, session_id: str, admin_id: int, now: datetime
) -> Administrator | None:  # fmt: skip
    """Return the administrator whose session this is, if both are in force."""
    statement = (
        select(*COLUMNS)
        .join(sessions, sessions.c.admin_id == administrators.c.admin_id)
        .where(
            sessions.c.session_id == session_id,
            sessions.c.admin_id == admin_id,
            sessions.c.revoked_at.is_(None),
            sessions.c.expires_at > now,
        )
    )
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _administrator(row)


async def end_session(connection: AsyncConnection, session_id: str, now: datetime) -> None:
    """Revoke one session."""
    await connection.execute(update(sessions).where(sessions.c.session_id == session_id).values(revoked_at=now))


async def end_sessions(
    connection: AsyncConnection, admin_id: int, now: datetime, *, kept: str | None = None
) -> None:  # fmt: skip
    """Revoke all sessions of an administrator but ``kept``."""
    statement = update(sessions).where(sessions.c.admin_id == admin_id, sessions.c.revoked_at.is_(None))
    if kept is not None:
        statement = statement.where(sessions.c.session_id != kept)
    await connection.execute(statement.values(revoked_at=now))


async def forget_sessions(connection: AsyncConnection, admin_id: int, now: datetime) -> None:
    """Delete the sessions of an administrator that have expired; their tokens have, too."""
    await connection.execute(delete(sessions).where(sessions.c.admin_id == admin_id, sessions.c.expires_at < now))
