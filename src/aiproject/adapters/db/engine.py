"""The database: one engine and the ways to run statements on it.

    result = await database.transact(work, *args)     # work(connection, *args) in a transaction, again on a conflict
    async with database.connect() as connection:      # reads; writes are rolled back
    result = await database.read_snapshot(work)       # reads that all see the same state of the database
    async with database.snapshot() as connection:     # the same, without a retry

Rules for callers:

- SQLAlchemy Core only. Services open transactions; stores take the connection as an argument.
- A transaction is short. It never waits for anything but the database.
- Driver errors are translated, see `aiproject.adapters.db.errors`. They are raised by the statement, so a function may
  catch them there (`StatementFailed` is raised at the end of the block only). After any of them PostgreSQL accepts no
  further statement in the transaction: catch them outside of it, or use a savepoint (``connection.begin_nested()``).
- No value of a row appears in an error's text, nor does the password of the URL.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from aiproject.adapters.db.errors import (
    CommitInDoubt,
    Condition,
    ConstraintViolation,
    DatabaseUnavailable,
    Dialect,
    StatementFailed,
    TransientConflict,
    describe_driver_error,
    raise_translated,
)
from aiproject.adapters.db.retry import retry_transient
from aiproject.adapters.db.sqlite import QUEUE_SECONDS, file_identity, install_sqlite_hooks, prepare_sqlite
from aiproject.adapters.db.url import CONNECT_SECONDS, connect_arguments, parse_database_url
from aiproject.adapters.log import get_logger
from aiproject.errors import Unavailable

__all__ = ["Connection", "Database"]

log = get_logger("database")

# Seconds. A transaction takes milliseconds; one that has not ended by then waits on a dead connection or on a lock that
# is not released, and the caller must get an answer, since no existing app has a time-out of its own. With the time
# that closing a hung connection takes (SQLAlchemy: 2 s) a call is refused within 10 s. Migrations and `verify` set
# limits of their own.
TRANSACTION_SECONDS = 7.0
# MySQL forgets idle connections after 8 hours by default, firewalls much sooner.
RECYCLE_SECONDS = 1800
POOL_SIZE = 10

Connection = AsyncConnection
"""What a transaction's function gets and hands to the stores. Services name it by this alias: they import no SQL."""

_T = TypeVar("_T")
_P = ParamSpec("_P")


class Database:
    """An open database. Create it with `open`, and close it with `close`."""

    def __init__(self, url: URL, engine: AsyncEngine) -> None:
        """Private; use `open`."""
        self._url = url
        self._engine = engine
        # SQLite has one writer. Writers of this process queue here in order of arrival instead of polling the file's
        # lock with growing sleeps, which starves the one that sleeps longest. The file's lock is for other processes.
        self._writer = asyncio.Lock() if self.dialect == "sqlite" else None
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._file = file_identity(self.path) if self.dialect == "sqlite" else None
        self._is_replaced = False

    @classmethod
    async def open(cls, url: str, *, pool_size: int = POOL_SIZE) -> Database:
        """Create the engine. It does not connect to a server yet; `ping` does.

        SQLite's file is created if it is missing (mode 0600, its directory 0700).

        Args:
            url: see `parse_database_url`.
            pool_size: the number of connections at most, in this process.

        Raises:
            Misconfigured: the URL is wrong, or SQLite's file cannot be created or is not a database.
        """
        parsed = parse_database_url(url)
        if parsed.get_backend_name() == "sqlite":
            await asyncio.to_thread(prepare_sqlite, Path(parsed.database or ""))
        return cls(parsed, _create_engine(parsed, pool_size=pool_size))

    async def close(self) -> None:
        """Close every connection. Transactions that still run are aborted."""
        for close in self._closers:
            await close()
        await self._engine.dispose()

    def call_at_close(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Register a function for `close` to call, for code that opens connections beside the engine's."""
        self._closers.append(closer)

    @property
    def dialect(self) -> Dialect:
        """The family; MariaDB counts as ``mysql``."""
        return cast("Dialect", self._url.get_backend_name())

    def __repr__(self) -> str:
        return f"<Database {self._url.render_as_string(hide_password=True)}>"

    @contextlib.asynccontextmanager
    async def begin(self, *, seconds: float | None = TRANSACTION_SECONDS) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed when the block ends, rolled back when it raises. Services use `transact`.

        On SQLite it is a write transaction from its start (``BEGIN IMMEDIATE``): one that reads first and writes
        later could not be granted the lock any more once another wrote in between, and no waiting would help.
        Never open one within another: on SQLite the inner one waits for the outer one.

        Args:
            seconds: after which the block is cancelled and `Unavailable` raised; ``None``: never.

        Raises:
            TransientConflict: another transaction was in the way; nothing was written.
            ConstraintViolation: or one of its kinds; nothing was written.
            CommitInDoubt: the connection was lost during the commit.
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
                # An error without a translation: it is not known whether the transaction was committed.
                raise CommitInDoubt(f"the commit failed: {describe_driver_error(error.orig)}") from None

    async def transact(
        self,
        work: Callable[Concatenate[AsyncConnection, _P], Awaitable[_T]],
        /,
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Run a function in a transaction of its own, and again from the start when another transaction was in its way.

        Every write of the application goes through here, so that each survives deadlocks, serialization failures and
        SQLite's busy and locked errors. A function is passed rather than a block entered (``async for attempt in …``),
        because a ``return`` inside of such a block could not be undone when the commit fails: the caller would take
        for written what was rolled back.

        Args:
            work: gets the connection and the arguments; called once per attempt, so it must not keep state between
                attempts outside of the transaction.

        Returns:
            what ``work`` returned in the attempt that was committed.

        Raises:
            TransientConflict: every attempt met another transaction; nothing was written. See `retry_transient` for
                the number and time of the attempts.
            CommitInDoubt: see `begin`; not tried again, since the transaction may have been committed. Callers that
                are idempotent may call once more.
            ConstraintViolation: or one of its kinds; nothing was written.
            Unavailable: no connection, or it was lost before the commit; nothing was written.
        """

        async def attempt() -> _T:
            async with self.begin() as connection:
                return await work(connection, *args, **kwargs)

        return await retry_transient(attempt)

    @contextlib.asynccontextmanager
    async def connect(self, *, seconds: float | None = TRANSACTION_SECONDS) -> AsyncIterator[AsyncConnection]:
        """A connection for reading; nothing is ever committed on it.

        On SQLite all reads of a block see the same state; on the others each statement sees what is committed by then.

        Raises:
            Unavailable: no connection, or it was lost.
        """
        async with _bounded(seconds, _Stage()), self._checkout() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def snapshot(self, *, seconds: float | None = TRANSACTION_SECONDS) -> AsyncIterator[AsyncConnection]:
        """A connection for reading, on which all reads see the same state of the database.

        It takes no locks. The database keeps old versions of rows until it ends, so it should be short.

        Raises:
            Unavailable: no connection, or it was lost.
        """
        async with _bounded(seconds, _Stage()), self._checkout() as connection:
            # Each database fixes the state with the first read, so one is made now.
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

    async def read_snapshot(
        self, work: Callable[[AsyncConnection], Awaitable[_T]], *, seconds: float | None = TRANSACTION_SECONDS
    ) -> _T:
        """Run a function that only reads on a `snapshot`, and again from the start when a lock was in its way.

        Args:
            work: as in `transact`.
            seconds: the limit of one attempt; ``None``: none.

        Raises:
            Unavailable: no connection, or it was lost.
        """

        async def attempt() -> _T:
            async with self.snapshot(seconds=seconds) as connection:
                return await work(connection)

        return await retry_transient(attempt)

    async def ping(self) -> None:
        """Check that the database answers.

        Raises:
            Unavailable: it does not within 5 seconds.
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
        is_replaced = file_identity(self.path) != self._file
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
        url, arguments = connect_arguments(self._url)
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
        raise StatementFailed(describe_driver_error(error.orig), error.statement) from None
    except ConstraintViolation as error:
        # SQLAlchemy chains the driver's error, whose text quotes values of the row.
        error.__cause__ = None
        error.__suppress_context__ = True
        raise


def _create_engine(url: URL, *, pool_size: int | None) -> AsyncEngine:
    """Args: pool_size: ``None`` for a maintenance engine, without a pool."""
    url, arguments = connect_arguments(url)
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
        install_sqlite_hooks(engine, is_maintenance=pool_size is None)
    event.listen(engine.sync_engine, "handle_error", raise_translated)
    return engine
