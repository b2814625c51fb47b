"""SQL for the stored answers of idempotency keys; `aiproject.ledger.idempotency` writes the claims."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.errors import Dialect
from aiproject.adapters.db.schema import stored_answer
from aiproject.ledger.lease_store import database_now
from aiproject.ledger.model import Key

__all__ = ["ClaimState", "claim_state", "delete_answers", "stored_body"]

_row = stored_answer.c


@dataclass(frozen=True, slots=True)
class ClaimState:
    """The state of a claimed key.

    Attributes:
        is_answered: whether the call that claimed it has stored its answer.
        is_expired: whether its lease is over, by the database's clock.
    """

    is_answered: bool
    is_expired: bool


async def claim_state(connection: AsyncConnection, key: Key, dialect: Dialect) -> ClaimState | None:
    """Return the state of a key; ``None``: nobody has claimed it."""
    # Compared by the database's clock, because the clocks of the nodes differ.
    columns: tuple[Any, ...] = (_row.state, _row.lease_until < database_now(dialect))
    row = (await connection.execute(select(*columns).where(_matches(key)))).one_or_none()
    return None if row is None else ClaimState(row[0] == "done", bool(row[1]))


async def stored_body(connection: AsyncConnection, key: Key, body_hash: str) -> bytes | None:
    """Return the stored answer for this key and body; ``None`` if there is none or it has expired."""
    is_stored = and_(_matches(key), _row.body_hash == body_hash, _row.state == "done")
    answer = (await connection.execute(select(_row.answer).where(is_stored))).scalar_one_or_none()
    return None if answer is None else bytes(answer)


async def delete_answers(connection: AsyncConnection, scope: str) -> None:
    """Delete the stored answers of a scope; keys of running calls stay claimed."""
    await connection.execute(delete(stored_answer).where(_row.scope == scope, _row.state == "done"))


def _matches(key: Key) -> ColumnElement[bool]:
    return and_(_row.scope == key.scope, _row.key_hash == key.key_hash)
