"""SQLite's file, its settings and its transactions, which neither SQLAlchemy nor sqlite3 handle as needed."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from aiproject.adapters.db.url import connect_arguments
from aiproject.codes import Detail
from aiproject.errors import Misconfigured, Unavailable

__all__ = [
    "MAINTENANCE_SECONDS",
    "QUEUE_SECONDS",
    "connect_sqlite",
    "file_identity",
    "install_sqlite_hooks",
    "prepare_sqlite",
]

# How long to wait for a place in the pool, or for SQLite's one writer, before saying that we are too busy.
QUEUE_SECONDS = 5.0
# An upgrade waits this long for the lock that another node's upgrade holds, and for running statements to end.
MAINTENANCE_SECONDS = 60


def prepare_sqlite(path: Path) -> None:
    """Create the file and its directory, readable by this user only, and switch it to a write-ahead log for good.

    The switch is made here and not at each connection, because it does not wait for its lock, and two processes that
    start together would fail.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite gives its -wal and -shm files the mode of the database file.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise Misconfigured(Detail.SQLITE_FILE_UNUSABLE, path=str(path), reason=error.strerror or "") from error
    deadline = time.monotonic() + QUEUE_SECONDS
    while True:
        try:
            with contextlib.closing(sqlite3.connect(path, timeout=QUEUE_SECONDS, isolation_level=None)) as connection:
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if time.monotonic() > deadline:
                raise Unavailable(f"the database file {path} stays locked: {error}") from error
            time.sleep(0.02)
        except sqlite3.DatabaseError as error:
            raise Misconfigured(Detail.SQLITE_FILE_NOT_DATABASE, path=str(path), reason=str(error)) from error
        else:
            break
    if mode != "wal":
        raise Misconfigured(Detail.SQLITE_WITHOUT_WAL, path=str(path))


def file_identity(path: str) -> tuple[int, int] | None:
    """Return what identifies a file at this moment; ``None``: it does not exist."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def connect_sqlite(path: str) -> sqlite3.Connection:
    """Open a database file without SQLAlchemy, with the same settings; the caller begins and commits transactions.

    The connection may be passed between threads, but only one may use it at a time.
    """
    _, arguments = connect_arguments(URL.create("sqlite", database=path))
    connection: sqlite3.Connection = sqlite3.connect(path, check_same_thread=False, **arguments)
    try:
        for pragma in _sqlite_pragmas(is_maintenance=False):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _sqlite_pragmas(*, is_maintenance: bool) -> tuple[str, ...]:
    return (
        f"busy_timeout = {MAINTENANCE_SECONDS * 1000 if is_maintenance else int(QUEUE_SECONDS * 1000)}",
        f"foreign_keys = {'OFF' if is_maintenance else 'ON'}",
        # FULL syncs the log at each commit. NORMAL would be faster and as safe against corruption, but a power failure
        # could undo commits that were already acknowledged, which a ledger must not. Group commit shares the cost.
        "synchronous = FULL",
        # Renaming a table must leave views and the references of other tables as they are written.
        f"legacy_alter_table = {'ON' if is_maintenance else 'OFF'}",
    )


def install_sqlite_hooks(engine: AsyncEngine, *, is_maintenance: bool) -> None:
    """Control transactions instead of the sqlite3 module, which begins none for reads and DDL, and deferred ones for
    writes. Source: SQLAlchemy 2.1 documentation, SQLite dialect, "Enabling Non-Legacy SQLite Transactional Modes".
    """
    pragmas = _sqlite_pragmas(is_maintenance=is_maintenance)

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("aiproject_begin", "BEGIN"))
