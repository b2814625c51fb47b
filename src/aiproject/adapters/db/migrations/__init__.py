"""Schema migrations: Alembic's scripts, and the functions that the rest of the application needs.

`upgrade` brings a database to the schema of this release, whether it is empty, of an earlier release, or of the legacy
application (a table ``user`` as its documentation describes it). `status` returns the state of a database. It reads
Alembic's table directly: every command calls it, and importing Alembic would take as long as the rest of a command.

Rules for a migration (``versions/v0002_….py``):

- It can be run again after an interruption at any point: MySQL commits at each DDL statement, so each step checks first
  whether it is still needed.
- It checks everything that may block it before it changes anything, and raises `MigrationBlocked`.
- It reports what it did to the operator's data by ``note(…)``.
- The previous release can keep running during and after it, wherever that is possible.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import TransientConflict
from aiproject.adapters.db.sqlite import MAINTENANCE_SECONDS
from aiproject.codes import Detail
from aiproject.errors import Misconfigured, Unavailable
from aiproject.messages.formatting import Message

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["MigrationBlocked", "SchemaStatus", "UpgradeReport", "settled_status", "status", "upgrade"]

VERSION_TABLE = "alembic_version"

# An arbitrary number, which must be the same in every release.
_POSTGRES_LOCK = 0x41_69_50_72_6F_6A  # "AiProj"


class MigrationBlocked(Misconfigured):
    """The data prevents an upgrade; nothing was changed. The message describes the cause and what to do."""


@dataclass(frozen=True)
class UpgradeReport:
    """The result of an upgrade.

    Attributes:
        from_revision: the revision before; ``None``: the database had none.
        to_revision: the revision now.
        notes: messages for the operator, in the order of the steps; empty if there was nothing to do.
    """

    from_revision: str | None
    to_revision: str
    notes: tuple[Message, ...]


@dataclass(frozen=True)
class SchemaStatus:
    """The state of a database.

    Attributes:
        current: its revision; ``None``: it has none.
        head: the revision of this release.
        is_current: whether the two are equal.
        is_empty: whether it has neither a revision nor a table ``user``.
        is_foreign: whether it has a table ``user`` but no revision: that of the legacy application, or of an
            interrupted upgrade. `upgrade` imports it.
        is_newer: whether its revision is unknown here: it belongs to a later release, on whose schema this release must
            not run.
    """

    current: str | None
    head: str
    is_current: bool
    is_empty: bool
    is_foreign: bool
    is_newer: bool


async def status(database: Database) -> SchemaStatus:
    """Say where a database stands; changes nothing.

    Raises:
        Unavailable: it does not answer.
    """
    async with database.connect() as connection:
        return await connection.run_sync(_status)


async def settled_status(database: Database) -> SchemaStatus:
    """Return the state of a database after any running upgrade: on MySQL the intermediate states are visible.

    Raises:
        Unavailable: no connection, or a node's upgrade took too long.
    """
    async with _turn(), database.maintenance() as connection, _exclusive(connection, database):
        return await connection.run_sync(_status)


async def upgrade(database: Database) -> UpgradeReport:
    """Upgrade a database to the schema of this release.

    Several nodes may call this at once, and it may be repeated after a crash.

    Raises:
        MigrationBlocked: the data prevents the upgrade; nothing was changed.
        Misconfigured: the database belongs to a later release.
        Unavailable: no connection, or another node's upgrade took too long.
    """
    async with _turn(), database.maintenance() as connection:
        async with _exclusive(connection, database):
            before = await connection.run_sync(_status)
            if before.is_newer:
                raise Misconfigured(Detail.SCHEMA_NEWER, found=str(before.current), known=str(before.head))
            notes: list[Message] = []
            if not before.is_current:
                await connection.run_sync(_migrate, notes)
        return UpgradeReport(before.current, before.head, tuple(notes))


def alembic_config(connection: sa.Connection | None = None, notes: list[Message] | None = None) -> Config:
    """Return Alembic's configuration for the scripts of this package; there is no ``alembic.ini``."""
    from alembic.config import Config

    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["notes"] = [] if notes is None else notes
    return config


def revisions() -> list[str]:
    """Return the revisions of this release in their order, by the names of the scripts, ``v0002_….py``."""
    found = sorted(path.name[1:5] for path in (Path(__file__).parent / "versions").glob("v[0-9][0-9][0-9][0-9]_*.py*"))
    if not found:
        raise RuntimeError("the package holds no migration scripts")
    return list(dict.fromkeys(found))


def _status(connection: sa.Connection) -> SchemaStatus:
    known = revisions()
    inspector = sa.inspect(connection)
    current = None
    if inspector.has_table(VERSION_TABLE):
        # Alembic's table has one row, or none before the first migration has ended.
        versions = sa.select(sa.column("version_num", sa.String)).select_from(sa.table(VERSION_TABLE))
        current = connection.execute(versions).scalar_one_or_none()
    has_users = inspector.has_table("user")
    return SchemaStatus(
        current=current,
        head=known[-1],
        is_current=current == known[-1],
        is_empty=current is None and not has_users,
        is_foreign=current is None and has_users,
        is_newer=current is not None and current not in known,
    )


def _migrate(connection: sa.Connection, notes: list[Message]) -> None:
    from alembic import command

    has_versions = sa.inspect(connection).has_table(VERSION_TABLE)
    try:
        command.upgrade(alembic_config(connection, notes), "head")
    except MigrationBlocked:
        if not has_versions and connection.dialect.name == "mysql":
            # Alembic created this table before the script's checks. MySQL cannot roll it back, and `MigrationBlocked`
            # promises that nothing was changed.
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))
        raise


# -- one at a time -----------------------------------------------------------------------------------------------------

# Alembic keeps the running migration in module globals, so one process must not migrate two databases at the same time.
# A lock belongs to one event loop, and tests use many.
_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()


@contextlib.asynccontextmanager
async def _turn() -> AsyncIterator[None]:
    async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        yield


@contextlib.asynccontextmanager
async def _exclusive(connection: AsyncConnection, database: Database) -> AsyncIterator[None]:
    """Exclude upgrades by other nodes, and commit at the end.

    On SQLite and PostgreSQL one transaction around all migrations holds the lock and undoes everything on failure.
    MySQL has no transactional DDL, so it uses a named lock of the connection, and migrations that can be run again.
    """
    match database.dialect:
        case "sqlite":
            async with connection.begin():
                violations = await _foreign_key_violations(connection)
                yield
                if await _foreign_key_violations(connection) > violations:
                    raise MigrationBlocked(Detail.UPGRADE_BREAKS_REFERENCES)
        case "postgresql":
            async with connection.begin():
                await connection.execute(sa.text(f"SET LOCAL lock_timeout = '{MAINTENANCE_SECONDS}s'"))
                try:
                    await connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRES_LOCK})
                except TransientConflict:
                    raise _too_long() from None
                yield
        case "mysql":
            # Named locks belong to the whole server, so the name is derived from the database's; the maximum is 64
            # characters.
            name = await connection.scalar(sa.text("SELECT DATABASE()"))
            lock = f"aiproject:upgrade:{hashlib.sha256(str(name).encode()).hexdigest()[:32]}"
            await connection.execute(sa.text(f"SET SESSION lock_wait_timeout = {MAINTENANCE_SECONDS}"))
            got = await connection.scalar(
                sa.text("SELECT GET_LOCK(:lock, :seconds)"), {"lock": lock, "seconds": MAINTENANCE_SECONDS}
            )
            if got != 1:
                raise _too_long()
            # The lock ends with the connection, which is not shared and is closed immediately afterwards.
            yield
            await connection.commit()


def _too_long() -> Unavailable:
    return Unavailable(f"another node has been upgrading this database for {MAINTENANCE_SECONDS} s")


async def _foreign_key_violations(connection: AsyncConnection) -> int:
    return len((await connection.execute(sa.text("PRAGMA foreign_key_check"))).all())
