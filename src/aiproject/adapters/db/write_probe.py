"""Checks whether the database accepts writes, by writing.

A database can answer every read while each write fails: its file is locked, its disk is full, or it is a replica or a
former primary. So the readiness check commits a change of one row at intervals and remembers the result.
"""

from __future__ import annotations

import asyncio
import secrets
import time

from sqlalchemy import Insert
from sqlalchemy.dialects import sqlite

from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import (
    CommitInDoubt,
    Condition,
    DatabaseUnavailable,
    Dialect,
    StatementFailed,
    TransientConflict,
)
from aiproject.adapters.db.schema import login_guard
from aiproject.adapters.log import get_logger
from aiproject.errors import AiProjectError

__all__ = ["WriteProbe"]

log = get_logger("database")

PROBE_SECONDS = 5.0
"""Seconds between two writes of a process, however often the condition is requested."""

WRITE_SECONDS = 4.0
"""Seconds that a write may take: more than a successful write needs, and less than the timeout of common probes."""

REALM = "readiness"
SLOTS = 16
"""Rows that all processes share, so that they rarely wait for each other and leave no row behind at each start."""


class WriteProbe:
    """Reports whether the database accepts writes. Each process has one instance."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._slot = secrets.randbelow(SLOTS)
        self._condition: Condition | None = None
        self._probed = float("-inf")
        self._running: asyncio.Task[None] | None = None

    async def condition(self) -> Condition | None:
        """Return what prevents writes, as of the last `PROBE_SECONDS`; ``None``: nothing does."""
        if self._running is None and time.monotonic() - self._probed >= PROBE_SECONDS:
            self._running = asyncio.create_task(self._probe())
        if self._running is not None:
            await asyncio.wait([self._running])
        return self._condition

    async def close(self) -> None:
        """Cancel a write that is still running."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _probe(self) -> None:
        try:
            condition = await self._written()
            if condition is not self._condition:
                log.warning("readiness of the database changed", condition=condition or "ok")
            self._condition = condition
        finally:
            self._probed = time.monotonic()
            self._running = None

    async def _written(self) -> Condition | None:
        try:
            async with self._database.begin(seconds=WRITE_SECONDS) as connection:
                await connection.execute(_touch(self._database.dialect, self._slot))
        except TransientConflict:
            return Condition.LOCKED
        except DatabaseUnavailable as error:
            return error.condition
        except CommitInDoubt as error:
            cause = error.__cause__
            return cause.condition if isinstance(cause, DatabaseUnavailable) else Condition.AWAY
        except StatementFailed:
            return None  # the schema is not current, which readiness reports separately
        except AiProjectError:
            return Condition.LOCKED if self._database.dialect == "sqlite" else Condition.AWAY
        return None


def _touch(dialect: Dialect, slot: int) -> Insert:
    """Return a statement that changes one row of the login throttle's table.

    The login throttle never uses this realm, and it deletes old rows, so the probe needs no table of its own.
    """
    row = {
        "realm": REALM,
        "subject": f"slot {slot}",
        "failures": 0,
        "blocked_until": 0,
        "last_failure_at": time.time_ns() // 1_000_000,
    }
    changed = {"last_failure_at": row["last_failure_at"]}
    key = (login_guard.c.realm, login_guard.c.subject)
    match dialect:
        case "sqlite":
            return sqlite.insert(login_guard).values(row).on_conflict_do_update(index_elements=key, set_=changed)
        case "postgresql":
            from sqlalchemy.dialects import postgresql  # imported here, so that only the dialect in use is loaded

            return postgresql.insert(login_guard).values(row).on_conflict_do_update(index_elements=key, set_=changed)
        case "mysql":
            from sqlalchemy.dialects import mysql

            return mysql.insert(login_guard).values(row).on_duplicate_key_update(changed)
