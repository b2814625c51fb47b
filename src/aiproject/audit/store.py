"""All SQL of the audit log. Nothing here changes or deletes an entry.

Lock order: the log is locked last. Its writers queue at the row of its first entry until their transactions end, so an
act must be recorded after everything else that its transaction locks.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.errors import PRIMARY, TransientConflict, UniqueViolation
from aiproject.adapters.db.schema import audit_entry as entries
from aiproject.audit.model import (
    MAX_ACTION_LENGTH,
    MAX_ADDRESS_LENGTH,
    MAX_NAME_LENGTH,
    MAX_REQUEST_ID_LENGTH,
    MAX_TARGET_LENGTH,
    AuditContext,
    AuditEntry,
    AuditFilter,
    Fact,
    facts_json,
    seal,
)

__all__ = ["count", "newest", "oldest", "record"]


async def record(
    connection: AsyncConnection,
    origin: AuditContext,
    action: str,
    target: str,
    *,
    before: Mapping[str, Fact] | None = None,
    after: Mapping[str, Fact] | None = None,
) -> int:
    """Append an entry in the caller's transaction, as its last statement; return its number.

    Args:
        action: ``noun.verb``, for example ``user.grant``.
        target: the name or the number of the object of the act; never a secret.
        before: the previous state of what changed; see `aiproject.audit.model.FIELDS`.
        after: its new state.

    Raises:
        TransientConflict: another writer took the number; `Database.transact` repeats the whole transaction.
        ValueError: a field that the log does not have.
    """
    # A queue, not only a conflict at the key, so that no writer starves among many. SQLite has a single writer anyway,
    # and its compiler omits FOR UPDATE.
    await connection.execute(select(entries.c.seq).where(entries.c.seq == 1).with_for_update())
    newest_first = select(entries.c.seq, entries.c.hash).order_by(entries.c.seq.desc()).limit(1)
    last = (await connection.execute(newest_first)).one_or_none()
    fields: dict[str, Any] = {
        "seq": 1 if last is None else last.seq + 1,
        "at": int(time.time() * 1000),
        "actor_kind": str(origin.actor.kind),
        "actor": _storable(origin.actor.name, MAX_NAME_LENGTH),
        "action": action[:MAX_ACTION_LENGTH],
        "target": _storable(target, MAX_TARGET_LENGTH),
        "before": facts_json(before or {}),
        "after": facts_json(after or {}),
        "address": _storable(origin.address, MAX_ADDRESS_LENGTH),
        "request_id": _storable(origin.request_id, MAX_REQUEST_ID_LENGTH),
    }
    sealed = seal("" if last is None else last.hash, **fields)
    try:
        await connection.execute(insert(entries).values(**fields, hash=sealed))
    except UniqueViolation as error:
        if error.constraint != PRIMARY:
            raise
        raise TransientConflict("another entry of the audit log came first") from None
    return int(fields["seq"])


async def newest(connection: AsyncConnection, wanted: AuditFilter, *, limit: int, offset: int = 0) -> list[AuditEntry]:
    """Return the selected entries, the newest first."""
    statement = select(entries).where(*_conditions(wanted)).order_by(entries.c.seq.desc()).limit(limit).offset(offset)
    return [AuditEntry(*row) for row in await connection.execute(statement)]


async def oldest(connection: AsyncConnection, wanted: AuditFilter, *, after: int, limit: int) -> list[AuditEntry]:
    """Return the selected entries with numbers above ``after``, the oldest first."""
    statement = select(entries).where(entries.c.seq > after, *_conditions(wanted)).order_by(entries.c.seq).limit(limit)
    return [AuditEntry(*row) for row in await connection.execute(statement)]


async def count(connection: AsyncConnection, wanted: AuditFilter) -> int:
    """Return the number of selected entries."""
    statement = select(func.count()).select_from(entries).where(*_conditions(wanted))
    return int((await connection.execute(statement)).scalar_one())


def _conditions(wanted: AuditFilter) -> list[ColumnElement[bool]]:
    """Return a filter as SQL; every value is a bound parameter."""
    found: list[ColumnElement[bool]] = []
    if wanted.actor is not None:
        found.append(entries.c.actor == wanted.actor)
    if wanted.action is not None and wanted.action.endswith("."):
        found.append(entries.c.action.startswith(wanted.action, autoescape=True))
    elif wanted.action is not None:
        found.append(entries.c.action == wanted.action)
    if wanted.target is not None:
        found.append(entries.c.target == wanted.target)
    if wanted.request_id is not None:
        found.append(entries.c.request_id == wanted.request_id)
    if wanted.since is not None:
        found.append(entries.c.at >= wanted.since)
    if wanted.until is not None:
        found.append(entries.c.at < wanted.until)
    if wanted.before_seq is not None:
        found.append(entries.c.seq < wanted.before_seq)
    return found


def _storable(text: str, length: int) -> str:
    """Truncate to the column's length, and remove characters that a database or a terminal cannot handle."""
    return "".join("?" if unicodedata.category(c) in ("Cc", "Cs") else c for c in text[:length])
