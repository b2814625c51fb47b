"""The database: one engine, three ways to use it, and its errors in the words of the house.

    async with database.begin() as connection:     # a transaction that may write; commits when the block ends
    async with database.connect() as connection:   # reads; whatever it wrote would be rolled back
    async with database.snapshot() as connection:  # reads that all see one moment

House rules:

- SQLAlchemy Core only. Whoever opens the transaction is the use case; a store takes the connection as an argument.
- A transaction is short. It never spans a call to somebody else, let alone a stream.
- Driver errors do not pass this border: see `UniqueViolation`, `TransientConflict` and their neighbours. They appear
  at the statement, so a block may catch them (`StatementFailed` only behind the block); but after any of them
  PostgreSQL wants the transaction left, so catch them outside of ``begin()`` or use a savepoint
  (``connection.begin_nested()``).
- No value of a row appears in an error's text, nor does the password of the URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from aiproject.adapters.db import schema
from aiproject.adapters.log import get_logger
from aiproject.errors import AiProjectError, Misconfigured, Unavailable

__all__ = [
    "PRIMARY",
    "CheckViolation",
    "CommitInDoubt",
    "Condition",
    "ConstraintViolation",
    "Database",
    "DatabaseUnavailable",
    "Dialect",
    "StatementFailed",
    "TransientConflict",
    "UniqueViolation",
    "connect_sqlite",
    "parse_database_url",
    "retry_transient",
    "translate_driver_error",
]

log = get_logger("database")

Dialect = Literal["sqlite", "mysql", "postgresql"]

PRIMARY = "PRIMARY"

# Seconds. A transaction of ours takes milliseconds; one that has not ended by then hangs on a dead connection or on a
# lock that will not come, and the caller has to be told: no existing app has a time-out of its own. With what closing a
# hung connection takes (SQLAlchemy: 2 s) a call is refused within 10 s. Migrations and proofs set limits of their own.
TRANSACTION_SECONDS = 7.0
CONNECT_SECONDS = 5
# How long to wait for a place in the pool, or for SQLite's one writer, before saying that we are too busy.
QUEUE_SECONDS = 5.0
# No attempt is begun that would end later than this after the first, if it took as long as the one before.
ATTEMPTS_SECONDS = 8.0
# MySQL forgets idle connections after 8 hours by default, firewalls much sooner.
RECYCLE_SECONDS = 1800
POOL_SIZE = 10
# An upgrade waits this long for the lock that another node's upgrade holds, and for running statements to end.
MAINTENANCE_SECONDS = 60

_T = TypeVar("_T")


# -- errors ------------------------------------------------------------------------------------------------------------


class ConstraintViolation(AiProjectError):
    """A constraint refused the row. A bug, unless the use case expects it.

    Args:
        constraint: its name in `aiproject.adapters.db.schema`; `PRIMARY` for any primary key; columns as
            ``table.column`` where neither the database nor the schema tells the name.
    """

    def __init__(self, constraint: str) -> None:
        super().__init__(f"{type(self).__name__}: {constraint}")
        self.constraint = constraint


class UniqueViolation(ConstraintViolation):
    """There is such a row already."""


class CheckViolation(ConstraintViolation):
    """The row breaks a rule of its table, for example a balance below zero."""


class TransientConflict(Unavailable):
    """Another transaction was in the way (busy, deadlock, serialisation); the whole transaction may be tried again.

    Nothing was written. `retry_transient` does the trying.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail, retry_after=1)


class CommitInDoubt(Unavailable):
    """The connection was lost while committing: the transaction may have happened or not.

    Whoever cares must look, or be idempotent and do it again.
    """


class Condition(StrEnum):
    """What keeps a database from taking a write; the words that `/ready` uses."""

    AWAY = "away"
    LOCKED = "locked"
    DISK_FULL = "disk full"
    DISK_FAILURE = "disk failure"
    READ_ONLY = "read only"
    REPLACED = "file replaced"


class DatabaseUnavailable(Unavailable):
    """The database cannot be used now.

    Args:
        condition: why.
    """

    def __init__(self, detail: str, condition: Condition) -> None:
        super().__init__(detail)
        self.condition = condition


class StatementFailed(AiProjectError):
    """The database refused a statement for a reason of ours: a bug, or a schema that was not upgraded.

    Args:
        detail: the driver's class and code, and its message where that cannot hold values of rows.
        statement: the SQL text with placeholders.
    """

    def __init__(self, detail: str, statement: str | None) -> None:
        super().__init__(f"{detail} [{' '.join((statement or '').split())[:500]}]")
        self.detail = detail
        self.statement = statement


# -- the URL -----------------------------------------------------------------------------------------------------------

_DRIVERS: dict[str, str] = {
    "sqlite": "sqlite+aiosqlite",
    # MariaDB goes by MySQL's dialect, which finds out what it talks to; SQLAlchemy's own "mariadb" refuses MySQL, and
    # people write either.
    "mysql": "mysql+asyncmy",
    "mariadb": "mysql+asyncmy",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}

_OPTIONS: dict[str, frozenset[str]] = {
    "sqlite": frozenset(),
    "mysql": frozenset({"charset", "unix_socket", "ssl", "ssl_ca", "ssl_cert", "ssl_key", "ssl_check_hostname"}),
    "postgresql": frozenset({"host", "port", "sslmode"}),
}

_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})


def parse_database_url(text: str) -> URL:
    """Read a database URL as operators write it, and choose the driver.

    ``sqlite:///data/a.db`` (relative), ``sqlite:////var/a.db``, ``mysql://``, ``mariadb://``, ``postgresql://``,
    ``postgres://``; a driver in the scheme (``mysql+pymysql://``) is dropped for ours. Name and password may be
    percent-encoded. By Unix socket: ``mysql://name:password@/db?unix_socket=/run/mysqld/mysqld.sock``,
    ``postgresql://name:password@/db?host=/run/postgresql``. TLS: ``?ssl=true`` or ``?ssl_ca=/path`` on MySQL,
    ``?sslmode=verify-full`` on PostgreSQL.

    Raises:
        Misconfigured: it is none of these; the message never quotes the password.
    """
    scheme, separator, _ = text.strip().partition("://")
    kind = scheme.lower().partition("+")[0]
    if not separator:
        raise Misconfigured(
            "AIPROJECT_DATABASE_URL is not a URL; it looks like mysql://name:password@host:3306/database"
        )
    if kind not in _DRIVERS:
        raise Misconfigured(
            f"AIPROJECT_DATABASE_URL: {scheme[:30]!r} is no database that AiProject knows; "
            "sqlite, mysql, mariadb and postgresql are"
        )
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        # Not chained: the parser's complaint quotes what it could not read.
        raise Misconfigured(
            "AIPROJECT_DATABASE_URL cannot be read; characters like @ : / # in name or password must be percent-encoded"
        ) from None
    url = url.set(drivername=_DRIVERS[kind])
    dialect = url.get_backend_name()
    if unknown := sorted(set(url.query) - _OPTIONS[dialect]):
        raise Misconfigured(f"AIPROJECT_DATABASE_URL: unknown option {', '.join(unknown)[:100]}")
    if any(not isinstance(value, str) for value in url.query.values()):
        raise Misconfigured("AIPROJECT_DATABASE_URL: an option is given twice")
    if dialect == "sqlite":
        if url.host or url.username:
            raise Misconfigured("AIPROJECT_DATABASE_URL: SQLite's form is sqlite:///relative or sqlite:////absolute")
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise Misconfigured("AIPROJECT_DATABASE_URL: SQLite needs a file; books in memory are lost at the end")
    elif not url.database:
        raise Misconfigured("AIPROJECT_DATABASE_URL: the name of the database is missing behind the host")
    mode = url.query.get("sslmode")
    if mode is not None and mode not in _SSL_MODES:
        raise Misconfigured(f"AIPROJECT_DATABASE_URL: sslmode is one of {', '.join(sorted(_SSL_MODES))}")
    return url


def _connect_arguments(url: URL) -> tuple[URL, dict[str, Any]]:
    """What the driver is given beside the URL; and the URL without what is given so."""
    query = cast("dict[str, str]", dict(url.query))
    arguments: dict[str, Any] = {}
    match url.get_backend_name():
        case "sqlite":
            # The hooks below begin transactions; sqlite3 itself must not. From Python 3.12 on that needs a word,
            # since a later release turns the default round.
            arguments = {"isolation_level": None, "timeout": 0}
            if hasattr(sqlite3, "LEGACY_TRANSACTION_CONTROL"):
                arguments["autocommit"] = sqlite3.LEGACY_TRANSACTION_CONTROL
        case "mysql":
            query.pop("charset", None)
            arguments = {
                "charset": "utf8mb4",
                "connect_timeout": CONNECT_SECONDS,
                "init_command": "SET SESSION time_zone = '+00:00', SESSION sql_mode = 'STRICT_ALL_TABLES,"
                "NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
            }
            if url.password is not None:
                # The driver takes a text for Latin-1; the servers take passwords as they are typed, in UTF-8.
                arguments["password"] = str(url.password).encode()
                url = url.set(password="")
            if query.pop("ssl", "false").lower() in ("1", "true", "yes", "on", "required"):
                arguments["ssl"] = True
        case "postgresql":
            arguments = {"timeout": CONNECT_SECONDS, "server_settings": {"timezone": "UTC"}}
            if mode := query.pop("sslmode", None):
                arguments["ssl"] = mode
            if host := query.pop("host", None):
                arguments["host"] = host
            if port := query.pop("port", None):
                arguments["port"] = int(port)
    return url.set(query=query), arguments


# -- the database ------------------------------------------------------------------------------------------------------


class Database:
    """An open database. Make it with `open`, end it with `close`."""

    def __init__(self, url: URL, engine: AsyncEngine) -> None:
        """Not for use; see `open`."""
        self._url = url
        self._engine = engine
        # SQLite has one writer. Writers of this process queue here in order of arrival, instead of polling the file's
        # lock with growing sleeps, which starves whoever sleeps longest. Other processes are met at the file's lock.
        self._writer = asyncio.Lock() if self.dialect == "sqlite" else None
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._file = _file_identity(self.path) if self.dialect == "sqlite" else None
        self._is_replaced = False

    @classmethod
    async def open(cls, url: str, *, pool_size: int = POOL_SIZE) -> Database:
        """Make the engine. No server is called yet: `ping` does that.

        SQLite's file is made if it is missing (mode 0600, its directory 0700).

        Args:
            url: see `parse_database_url`.
            pool_size: connections at most, in this process.

        Raises:
            Misconfigured: the URL is wrong, or SQLite's file cannot be made or is none.
        """
        parsed = parse_database_url(url)
        if parsed.get_backend_name() == "sqlite":
            await asyncio.to_thread(_prepare_sqlite, Path(parsed.database or ""))
        return cls(parsed, _create_engine(parsed, pool_size=pool_size))

    async def close(self) -> None:
        """Close every connection. Transactions that still run are cut."""
        for close in self._closers:
            await close()
        await self._engine.dispose()

    def call_at_close(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Have something called by `close`: whoever opens connections to this database beside the engine's."""
        self._closers.append(closer)

    @property
    def dialect(self) -> Dialect:
        """The family; MariaDB counts as ``mysql``."""
        return cast("Dialect", self._url.get_backend_name())

    def __repr__(self) -> str:
        return f"<Database {self._url.render_as_string(hide_password=True)}>"

    @contextlib.asynccontextmanager
    async def begin(self, *, seconds: float | None = TRANSACTION_SECONDS) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed when the block ends, rolled back when it raises.

        On SQLite it is a write transaction from its start (``BEGIN IMMEDIATE``): one that reads first and writes
        later could not be granted the lock any more once another wrote in between, and no waiting would help.
        Never open one within another: on SQLite the inner one waits for the outer one.

        Args:
            seconds: after which the block is cancelled and `Unavailable` raised; ``None``: never.

        Raises:
            TransientConflict: another transaction was in the way; nothing was written.
            ConstraintViolation: or one of its kinds; nothing was written.
            CommitInDoubt: the connection was lost in the last moment.
            Unavailable: no connection, or it was lost; nothing was written.
        """
        stage = _Stage()
        async with _bounded(seconds, stage), self.writers_turn(), self._checkout() as connection:
            if self.dialect == "sqlite":
                await connection.execution_options(aiproject_begin="BEGIN IMMEDIATE")
            await connection.begin()
            yield connection
            stage.is_committing = True
            try:
                await connection.commit()
            except TransientConflict:
                raise
            except Unavailable as error:
                raise CommitInDoubt(f"connection lost while committing: {error.detail}") from error
            except DBAPIError as error:
                # We do not know the word, so we do not know what it did.
                raise CommitInDoubt(f"the commit failed: {_describe(error.orig)}") from None

    @contextlib.asynccontextmanager
    async def connect(self, *, seconds: float | None = TRANSACTION_SECONDS) -> AsyncIterator[AsyncConnection]:
        """A connection for reading; nothing is ever committed on it.

        On SQLite all reads of a block see one moment; on the others each statement sees what is committed then.

        Raises:
            Unavailable: no connection, or it was lost.
        """
        async with _bounded(seconds, _Stage()), self._checkout() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def snapshot(self, *, seconds: float | None = TRANSACTION_SECONDS) -> AsyncIterator[AsyncConnection]:
        """A connection for reading, on which all reads see the database as it was at one moment.

        It waits for nobody and nobody waits for it; but the database keeps what it sees until it ends, so keep it
        short.

        Raises:
            Unavailable: no connection, or it was lost.
        """
        async with _bounded(seconds, _Stage()), self._checkout() as connection:
            # Each says the moment by itself at the first read; so that it be now, something is read.
            match self.dialect:
                case "postgresql":
                    await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                    await connection.exec_driver_sql("SELECT 1")
                case "mysql":
                    await connection.execution_options(isolation_level="REPEATABLE READ")
                    await connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
                case "sqlite":
                    await connection.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1")
            yield connection

    async def ping(self) -> None:
        """Ask the database for a sign of life.

        Raises:
            Unavailable: it gives none within 5 seconds.
            Misconfigured: it refuses our name or password, or has no such database.
        """
        async with self.connect(seconds=CONNECT_SECONDS) as connection:
            await connection.execute(sa.text("SELECT 1"))

    @contextlib.asynccontextmanager
    async def maintenance(self) -> AsyncIterator[AsyncConnection]:
        """A connection of its own for migrations: patient, unbounded, and on SQLite without foreign keys.

        SQLite rebuilds a table by dropping it, which with foreign keys on would delete what refers to it; and the
        switch works only outside of a transaction. The caller begins and commits.
        """
        engine = _create_engine(self._url, pool_size=None)
        try:
            async with _checked_out(engine) as connection:
                if self.dialect == "sqlite":
                    await connection.execution_options(aiproject_begin="BEGIN IMMEDIATE")
                yield connection
        finally:
            await engine.dispose()

    @contextlib.asynccontextmanager
    async def _checkout(self) -> AsyncIterator[AsyncConnection]:
        self.check_file()
        async with _checked_out(self._engine) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def writers_turn(self) -> AsyncIterator[None]:
        """Wait for this process's turn to write, where there is one writer only: on SQLite. `begin` does it by itself.

        Raises:
            TransientConflict: it did not come within `QUEUE_SECONDS`.
        """
        if self._writer is None:
            yield
            return
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._writer.acquire()
        except TimeoutError:
            raise TransientConflict(f"SQLite's writer was busy for {QUEUE_SECONDS:g} s") from None
        try:
            yield
        finally:
            self._writer.release()

    def check_file(self) -> None:
        """Look whether SQLite's file is still the one that was opened.

        What is written to a file that was deleted or moved is lost with it, and a new connection would read another
        file with this one's write-ahead log. So nothing is done until the file is back or the server starts anew.

        Raises:
            DatabaseUnavailable: it is another one, or none.
        """
        if self._file is None:
            return
        is_replaced = _file_identity(self.path) != self._file
        if is_replaced != self._is_replaced:
            self._is_replaced = is_replaced
            if is_replaced:
                log.error("the database file was replaced or removed; restart the server", path=self.path)
            else:
                log.info("the database file is back", path=self.path)
        if is_replaced:
            raise DatabaseUnavailable("the database file was replaced or removed", Condition.REPLACED)

    @property
    def path(self) -> str:
        """SQLite's file."""
        return self._url.database or ""

    def driver_arguments(self) -> dict[str, Any]:
        """What the driver's own ``connect`` is given; holds the password. For `aiproject.adapters.db.runner`."""
        url, arguments = _connect_arguments(self._url)
        _, named = self._engine.dialect.create_connect_args(url)
        return {**named, **arguments}


class _Stage:
    is_committing = False


@contextlib.asynccontextmanager
async def _bounded(seconds: float | None, stage: _Stage) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        kind = CommitInDoubt if stage.is_committing else Unavailable
        raise kind(f"the database did not answer within {seconds:g} s") from None


@contextlib.asynccontextmanager
async def _checked_out(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        async with contextlib.AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(engine.connect())
            except PoolTimeout:
                raise Unavailable(f"no free database connection within {QUEUE_SECONDS:g} s", retry_after=1) from None
            except OSError as error:  # asyncpg lets the socket's own errors and time-outs through
                raise Unavailable(f"database not reachable: {type(error).__name__}") from error
            yield connection
    except DBAPIError as error:
        raise StatementFailed(_describe(error.orig), error.statement) from None
    except ConstraintViolation as error:
        # SQLAlchemy chains the driver's error, whose text quotes values of the row.
        error.__cause__ = None
        error.__suppress_context__ = True
        raise


def _create_engine(url: URL, *, pool_size: int | None) -> AsyncEngine:
    """Args: pool_size: ``None`` for a maintenance engine, without a pool."""
    url, arguments = _connect_arguments(url)
    dialect = url.get_backend_name()
    options: dict[str, Any] = {"connect_args": arguments, "hide_parameters": True}
    if pool_size is None:
        options["poolclass"] = NullPool
    else:
        options |= {
            "pool_size": pool_size,
            "max_overflow": 0,
            "pool_timeout": QUEUE_SECONDS,
            "pool_pre_ping": dialect != "sqlite",
            "pool_recycle": -1 if dialect == "sqlite" else RECYCLE_SECONDS,
        }
    if dialect != "sqlite":
        # MySQL's default, REPEATABLE READ, locks gaps and reads old snapshots; a condition in an UPDATE is all we need.
        options["isolation_level"] = "READ COMMITTED"
    engine = create_async_engine(url, **options)
    if dialect == "sqlite":
        _install_sqlite_hooks(engine, is_maintenance=pool_size is None)
    event.listen(engine.sync_engine, "handle_error", _raise_translated)
    return engine


# -- SQLite ------------------------------------------------------------------------------------------------------------


def _prepare_sqlite(path: Path) -> None:
    """Make the file and its directory for our eyes only, and switch it to a write-ahead log, which the file remembers.

    The switch is made here and not at each connection, because it does not wait for its lock: two processes that
    start together would get in each other's way.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # SQLite gives its -wal and -shm files the mode of the database file.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise Misconfigured(f"the database file {path} cannot be made or opened: {error.strerror}") from error
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
            raise Misconfigured(f"{path} is no SQLite database: {error}") from error
        else:
            break
    if mode != "wal":
        raise Misconfigured(f"SQLite cannot keep a write-ahead log beside {path}; is it on a network drive?")


def _file_identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from every other at this moment; ``None``: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def connect_sqlite(path: str) -> sqlite3.Connection:
    """Open a database file without SQLAlchemy, as carefully as with it; whoever has it begins and commits.

    The connection may go from thread to thread, but only one may use it at a time.
    """
    _, arguments = _connect_arguments(URL.create("sqlite", database=path))
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
        # FULL syncs the log at each commit. NORMAL would be faster and as safe against corruption, but a power cut
        # could take back commits that a client was told of, and a ledger must not. Group commit shares the cost.
        "synchronous = FULL",
        # A table that takes another's name must leave views and references of other tables as they are written.
        f"legacy_alter_table = {'ON' if is_maintenance else 'OFF'}",
    )


def _install_sqlite_hooks(engine: AsyncEngine, *, is_maintenance: bool) -> None:
    """Take transaction control from the sqlite3 module, which would begin none for reads and DDL, and a weak one for
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


# -- translation of driver errors --------------------------------------------------------------------------------------

_MYSQL_TRANSIENT = {
    1205,  # lock wait timeout
    1213,  # deadlock; also Galera's refusal at commit
    1020,  # MariaDB: row changed since last read
    3572,  # NOWAIT
}
_MYSQL_MISCONFIGURED = {1044, 1045, 1049, 1251, 1698, 2059}  # access denied, no such database, authentication plugin
_MYSQL_UNAVAILABLE = {
    1040,  # too many connections
    1047,  # Galera: node is not ready
    1053,  # shutdown in progress
    1077,
    1079,
    1152,
    1158,
    1159,
    1160,
    1161,  # broken or slow connections
    1180,
    1181,  # commit or rollback failed; Galera: the node lost its group in that moment
    1203,
    1226,  # the account's own limits
    1290,
    1792,
    1836,  # read-only
    1021,
    1114,  # disk or table full
    1317,
    1927,  # statement or connection killed
    2002,
    2003,
    2006,
    2013,
    2055,
    4031,  # not reachable, gone away, idle for too long
}
_MYSQL_READ_ONLY = {1290, 1792, 1836}
_MYSQL_DISK_FULL = {1021, 1114}
_MYSQL_INTEGRITY = {1048, 1216, 1217, 1364, 1451, 1452, 1557, 1761, 1762}
_MYSQL_UNIQUE = {1022, 1062, 1586, 1859}
_MYSQL_CHECK = {3819, 4025}

_POSTGRES_TRANSIENT = {"40001", "40P01", "55P03"}
_POSTGRES_MISCONFIGURED = ("28", "3D000", "3F000")
_POSTGRES_CONDITIONS = {"25006": Condition.READ_ONLY, "53100": Condition.DISK_FULL}
_POSTGRES_UNAVAILABLE = ("08", "53", "57P", "57014", "58", "25006")

_SQLITE_TRANSIENT = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_SQLITE_CONDITIONS = {
    sqlite3.SQLITE_FULL: Condition.DISK_FULL,
    sqlite3.SQLITE_IOERR: Condition.DISK_FAILURE,
    sqlite3.SQLITE_READONLY: Condition.READ_ONLY,
}
_SQLITE_UNAVAILABLE = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}


def _raise_translated(context: ExceptionContext) -> None:
    if context.is_pre_ping:
        return  # the pool sees to that itself, by a new connection
    error = context.original_exception
    if isinstance(error, AiProjectError) or not isinstance(error, Exception):
        return
    if isinstance(error, OSError):
        context.is_disconnect = True
        raise Unavailable(f"database connection lost: {type(error).__name__}")
    if not isinstance(context.sqlalchemy_exception, DBAPIError):
        return  # a mistake in our own use of SQLAlchemy, or an exception of the body
    # What we have no word for goes on as SQLAlchemy's exception: its own reflection catches some of those (MySQL: no
    # such table). `_checked_out` makes a StatementFailed of what leaves the block.
    if translated := _translate(error, context.dialect.name, is_disconnect=context.is_disconnect):
        raise translated


def translate_driver_error(error: Exception, dialect: Dialect, statement: str | None = None) -> AiProjectError:
    """The house's word for what a driver raised by itself, without SQLAlchemy around it.

    Args:
        statement: what it was asked to do.
    """
    # asyncpg and asyncmy let the socket's own errors and time-outs through.
    if isinstance(error, OSError | EOFError):
        return Unavailable(f"database connection lost: {type(error).__name__}")
    return _translate(error, dialect, is_disconnect=False) or StatementFailed(_describe(error), statement)


def _translate(error: Exception, dialect: str, *, is_disconnect: bool) -> AiProjectError | None:
    """The house's word for a driver's error, where it has one."""
    translated: AiProjectError | None
    match dialect:
        case "mysql" | "mariadb":
            translated = _translate_mysql(error)
        case "postgresql":
            translated = _translate_postgresql(error)
        case _:
            translated = _translate_sqlite(error)
    if translated is None and is_disconnect:
        return Unavailable(f"database connection lost: {type(error).__name__}")
    return translated


def _translate_mysql(error: Exception) -> AiProjectError | None:
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    message = str(error.args[1]) if len(error.args) > 1 else ""
    if number in _MYSQL_UNIQUE:
        # "… for key 'user.uq_user_name_key'" on MySQL, without the table on MariaDB. Greedy, because the value before
        # it may hold the same words.
        found = re.search(r".*for key '(?:[^'.]*\.)?([^']*)'", message, re.DOTALL)
        return UniqueViolation(found.group(1) if found else "")
    if number in _MYSQL_CHECK:
        found = re.search(r"['`]([^'`]+)['`]", message)
        return CheckViolation(found.group(1) if found else "")
    if number in _MYSQL_INTEGRITY:
        found = re.search(r"CONSTRAINT [`']([^`']+)", message) or re.match(r"(?:Column|Field) '([^']+)'", message)
        return ConstraintViolation(found.group(1) if found else str(number))
    if number in _MYSQL_TRANSIENT:
        return TransientConflict(f"MySQL error {number}")
    if number in _MYSQL_MISCONFIGURED:
        return Misconfigured(f"the database refuses us: {message[:300]} (error {number})")
    if number in _MYSQL_UNAVAILABLE:
        condition = Condition.AWAY
        if number in _MYSQL_READ_ONLY:
            condition = Condition.READ_ONLY
        elif number in _MYSQL_DISK_FULL:
            condition = Condition.DISK_FULL
        return DatabaseUnavailable(f"database not available: MySQL error {number}", condition)
    return None


def _translate_postgresql(error: Exception) -> AiProjectError | None:
    state = str(getattr(error, "sqlstate", None) or "")
    original = error if hasattr(error, "constraint_name") else error.__cause__  # asyncpg's own, or SQLAlchemy's of it
    constraint = str(getattr(original, "constraint_name", None) or getattr(original, "column_name", None) or state)
    if state == "23505":
        return UniqueViolation(PRIMARY if _is_primary_key(constraint) else constraint)
    if state == "23514":
        return CheckViolation(constraint)
    if state.startswith("23"):
        return ConstraintViolation(constraint)
    if state in _POSTGRES_TRANSIENT:
        return TransientConflict(f"PostgreSQL error {state}")
    if state.startswith(_POSTGRES_MISCONFIGURED):
        return Misconfigured(f"the database refuses us: {getattr(original, 'message', '')} (error {state})")
    if state.startswith(_POSTGRES_UNAVAILABLE):
        condition = _POSTGRES_CONDITIONS.get(state, Condition.AWAY)
        return DatabaseUnavailable(f"database not available: PostgreSQL error {state}", condition)
    return None


def _is_primary_key(constraint: str) -> bool:
    # PostgreSQL names them so by itself, and no table of ours names its own.
    return constraint.endswith("_pkey")


def _translate_sqlite(error: Exception) -> AiProjectError | None:
    code = getattr(error, "sqlite_errorcode", None)
    if not isinstance(code, int):
        return None
    message = str(error)
    subject = message.partition("constraint failed: ")[2]  # "user.NameKey", or the name of a check
    match code:
        case sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY | sqlite3.SQLITE_CONSTRAINT_ROWID:
            return UniqueViolation(PRIMARY)
        case sqlite3.SQLITE_CONSTRAINT_UNIQUE:
            return UniqueViolation(_unique_name(subject))
        case sqlite3.SQLITE_CONSTRAINT_CHECK:
            return CheckViolation(subject)
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_CONSTRAINT:
        return ConstraintViolation(subject or error.__class__.__name__)
    if primary in _SQLITE_TRANSIENT:
        return TransientConflict(f"SQLite: {message}")
    if primary in _SQLITE_UNAVAILABLE:
        condition = _SQLITE_CONDITIONS.get(primary, Condition.AWAY)
        return DatabaseUnavailable(f"database not available: {message}", condition)
    if primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return Misconfigured(f"the database file is damaged or none: {message}")
    return None


def _unique_name(columns: str) -> str:
    """SQLite tells the columns of a unique index, ``t.a, t.b``; the schema knows its name."""
    pairs = [column.strip().rpartition(".") for column in columns.split(",")]
    table = schema.metadata.tables.get(pairs[0][0])
    if table is not None:
        names = {name for _, _, name in pairs}
        for index in _unique_sets(table):
            if {column.name for column in index.columns} == names and index.name:
                return str(index.name)
    return columns


def _unique_sets(table: sa.Table) -> Iterator[sa.Index | sa.UniqueConstraint]:
    yield from (index for index in table.indexes if index.unique)
    yield from (constraint for constraint in table.constraints if isinstance(constraint, sa.UniqueConstraint))


def _describe(error: BaseException | None) -> str:
    """The driver's class and code, and its message unless that quotes values: errors of data and unknown kinds do."""
    if error is None:
        return "no driver error"
    number = error.args[0] if error.args and isinstance(error.args[0], int) else ""
    code = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None) or number
    kind = next(
        (base.__name__ for base in type(error).__mro__ if base.__name__ in ("ProgrammingError", "OperationalError")), ""
    )
    described = f"{type(error).__name__} {code}".strip()
    if not kind:
        return described
    message = getattr(error.__cause__, "message", None) or error.args[-1]
    return f"{described}: {str(message)[:300]}"


# -- trying again ------------------------------------------------------------------------------------------------------


async def retry_transient(
    attempt: Callable[[], Awaitable[_T]],
    *,
    attempts: int = 10,
    seconds: float = ATTEMPTS_SECONDS,
    first_delay: float = 0.01,
    longest_delay: float = 0.5,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> _T:
    """Run a whole transaction, and again while others are in its way.

    Args:
        attempt: opens its own transaction each time.
        attempts: how often at most.
        seconds: no attempt is begun that would end later than this after the first, if it took as long as the one
            before: a lock that somebody keeps costs its waiting time once.
        first_delay: seconds of the first pause at most; doubled each time, and drawn at random below that, so that
            two who met do not meet again.
        longest_delay: seconds that no pause exceeds.

    Raises:
        TransientConflict: it was the last attempt's, too.
    """
    random = secrets.SystemRandom()
    first = time.monotonic()
    for number in range(attempts - 1):
        began = time.monotonic()
        try:
            return await attempt()
        except TransientConflict:
            now = time.monotonic()
            if now - first + now - began > seconds:
                raise
            await sleep(random.uniform(0, min(longest_delay, first_delay * 2**number)))
    return await attempt()
