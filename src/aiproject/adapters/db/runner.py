"""Run frequent, uniform transactions directly on one connection of the database driver, without SQLAlchemy.

SQLAlchemy is appropriate for everything that happens once in a call. The ledger commits up to about a thousand times a
second, always with the same few statements. There SQLAlchemy would cost more than everything else: two milliseconds of
CPU for each transaction, most of it for greenlets and, on SQLite, for a thread switch at each step of each statement.

A transaction is given as `Steps`: a generator that yields statements, is sent their rows, and returns a result. It
performs no I/O, so the same generator runs in SQLite's thread, on a driver's connection, or on an SQLAlchemy connection
(see `take_steps`).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import (
    CommitInDoubt,
    ConstraintViolation,
    StatementFailed,
    TransientConflict,
    translate_driver_error,
)
from aiproject.adapters.db.sqlite import connect_sqlite
from aiproject.errors import AiProjectError, Unavailable

__all__ = ["Rows", "Statement", "Steps", "Writer", "open_writer", "take_steps"]

TRANSACTION_SECONDS = 15.0
"""Seconds after which a transaction is considered stuck on a dead connection.

This is longer than SQLite waits for another process that writes, so that a busy database is distinguished from an
unavailable one.
"""

GOODBYE_SECONDS = 2.0
"""Seconds for the last command on a connection: a rollback, or an orderly close."""

T = TypeVar("T")


class Statement(Struct, frozen=True):
    """SQL in the driver's own words.

    Attributes:
        sql: with the driver's placeholders: ``?`` on SQLite, ``%s`` on MySQL, ``$1`` on PostgreSQL.
        parameters: in their order; if ``is_many``, one sequence of them for each time that it is to be executed.
        is_many: executed many times, and gives no rows; SQLite only, which has no round trips to save.
    """

    sql: str
    parameters: Sequence[Any]
    is_many: bool = False


Rows = Sequence[Sequence[Any]]
Steps = Generator[Statement, Rows, T]


async def take_steps(connection: AsyncConnection, steps: Steps[T]) -> T:
    """Run the steps within an SQLAlchemy transaction, which the caller commits."""
    try:
        statement = next(steps)
        while True:
            parameters = list(map(tuple, statement.parameters)) if statement.is_many else tuple(statement.parameters)
            result = await connection.exec_driver_sql(statement.sql, parameters)
            statement = steps.send(result.all() if result.returns_rows else ())
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


class Writer(ABC):
    """Run transactions one after the other.

    The writer opens its connection when it is first needed, and again after the connection was lost.
    """

    @abstractmethod
    async def run(self, make: Callable[[], Steps[T]]) -> T:
        """Run the steps that ``make`` returns in a transaction, and commit it.

        Args:
            make: called once, after the transaction has begun.

        Raises:
            TransientConflict: another transaction conflicts with this one; nothing was written.
            CommitInDoubt: the connection was lost while committing, so it is unknown whether the data were written.
            Unavailable: there is no connection, or it was lost; nothing was written.
            AiProjectError: another error of `aiproject.adapters.db.errors`; nothing was written.
            Exception: the steps raised it; nothing was written.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the connection. The next transaction opens a new one."""


def open_writer(database: Database) -> Writer:
    """Return a writer for the database. It connects with its first transaction, and `Database` closes it."""
    writer: Writer
    match database.dialect:
        case "sqlite":
            writer = _SqliteWriter(database)
        case "mysql":
            writer = _MySQLWriter(database)
        case "postgresql":
            writer = _PostgreSQLWriter(database)
    database.call_at_close(writer.close)
    return writer


# -- SQLite ------------------------------------------------------------------------------------------------------------


_Job = tuple[asyncio.Future[Any], Callable[[], Any]]


class _Thread:
    """A thread that runs one job after the other and reports the results to the event loop.

    It replaces an executor, whose overhead would be as large as the job itself. The thread is a daemon and ends with
    the process, even in the middle of a job: SQLite protects the database file from that as it does from a power cut.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        threading.Thread(target=_do_jobs, args=(self._jobs,), name="writer", daemon=True).start()

    def do(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Return a future of what the job returns or raises.

        A job whose future is cancelled before the job has started is skipped.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((done, job))
        return done

    def end(self) -> None:
        """End the thread once all queued jobs have run."""
        self._jobs.put(None)


def _do_jobs(jobs: queue.SimpleQueue[_Job | None]) -> None:
    while (entry := jobs.get()) is not None:
        done, job = entry
        if not done.cancelled():
            _do_job(done, job)
        # Otherwise these names would keep the last job and its result alive until the next job arrives.
        del entry, done, job


def _do_job(done: asyncio.Future[Any], job: Callable[[], Any]) -> None:
    result, error = None, None
    try:
        result = job()
    except BaseException as raised:  # noqa: BLE001 - it is raised again in the task that waits
        error = raised
    # The loop raises RuntimeError once it is closed; then no task waits for the result any more.
    with contextlib.suppress(RuntimeError):
        # Futures are not thread-safe: only the loop's own thread may set their result.
        done.get_loop().call_soon_threadsafe(_tell, done, result, error)
    # An error's traceback refers to this frame; without this, both would form a reference cycle.
    del result, error


def _tell(done: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if done.done():
        return  # the waiting task was cancelled while the job ran
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


class _SqliteWriter(Writer):
    """Run a whole transaction as one job in a dedicated thread, with two thread switches instead of sixty."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: sqlite3.Connection | None = None
        self._thread: _Thread | None = None

    async def run(self, make: Callable[[], Steps[T]]) -> T:
        try:
            async with asyncio.timeout(TRANSACTION_SECONDS), self._database.writers_turn():
                if self._thread is None:
                    self._thread = _Thread()
                return await self._thread.do(partial(self._transact, make))
        except TimeoutError:
            # The thread cannot be interrupted and may still commit. It runs its jobs in order, so the next transaction
            # sees the final state, and a caller that checks there learns whether this one was committed.
            raise CommitInDoubt(f"the disk did not answer within {TRANSACTION_SECONDS:g} s") from None

    async def close(self) -> None:
        thread = self._thread
        if thread is not None:
            await thread.do(self._disconnect)
            if self._thread is thread:
                self._thread = None
                thread.end()

    def _transact(self, make: Callable[[], Steps[T]]) -> T:
        self._database.check_file()
        # IMMEDIATE takes the write lock at the beginning. A deferred transaction that reads first and writes later
        # fails with "busy" if another process has written in between, without waiting for that process.
        sql = "BEGIN IMMEDIATE"
        try:
            connection = self._connection
            if connection is None:
                connection = self._connection = connect_sqlite(self._database.path)
            connection.execute(sql)
            steps = make()
            try:
                statement = next(steps)
                while True:
                    sql = statement.sql
                    if statement.is_many:
                        connection.executemany(sql, statement.parameters)
                        statement = steps.send(())
                    else:
                        statement = steps.send(connection.execute(sql, statement.parameters).fetchall())
            except StopIteration as end:
                sql = "COMMIT"
                connection.execute(sql)
                return end.value  # type: ignore[no-any-return]
        except sqlite3.Error as error:
            word = translate_driver_error(error, "sqlite", sql)
            # After a conflict the connection is still usable. After any other failure to reach the database, the next
            # transaction opens a new one.
            if isinstance(word, Unavailable) and not isinstance(word, TransientConflict):
                self._disconnect()
                if sql == "COMMIT":
                    word = CommitInDoubt(f"the commit failed: {word.detail}")
            raise word from None  # the driver's message quotes values, which must not reach a log
        finally:
            # Also reached when the steps themselves raise an error or the commit reports a conflict.
            if self._connection is not None and self._connection.in_transaction:
                self._connection.rollback()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


# -- servers -----------------------------------------------------------------------------------------------------------


class _ServerWriter(Writer):
    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Any = None

    async def run(self, make: Callable[[], Steps[T]]) -> T:
        is_committing = False
        try:
            async with asyncio.timeout(TRANSACTION_SECONDS) as limit, self._cleared_up():
                await self._begun()
                steps = make()
                try:
                    statement = next(steps)
                    while True:
                        rows = await self._execute(statement.sql, statement.parameters)
                        statement = steps.send(rows)
                except StopIteration as end:
                    is_committing = True
                    await self._execute("COMMIT")
                    return end.value  # type: ignore[no-any-return]
        except TimeoutError:
            # A timeout that the steps raised themselves, or one of an outer block, is not ours to translate.
            if not limit.expired():
                raise
            kind = CommitInDoubt if is_committing else Unavailable
            raise kind(f"the database did not answer within {TRANSACTION_SECONDS:g} s") from None
        except Unavailable as error:
            if is_committing and not isinstance(error, TransientConflict):
                raise CommitInDoubt(f"connection lost while committing: {error.detail}") from None
            raise
        except StatementFailed as error:
            if is_committing:  # the error is not one that we know, so it does not show whether the commit took effect
                raise CommitInDoubt(f"the commit failed: {error.detail}") from None
            raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self._say_goodbye(connection)
            self._cut(connection)

    async def _begun(self) -> None:
        """Begin a transaction, on a new connection if the server has closed the old one since its last use."""
        if self._connection is not None:
            # BEGIN itself shows whether an idle connection still works, so no extra ping is sent.
            try:
                await self._execute(self._begin)
            except Unavailable:
                self._drop()
            else:
                return
        try:
            self._connection = await self._connect()
        except AiProjectError:
            raise
        except Exception as error:  # noqa: BLE001 - drivers raise many types, which the function below translates
            raise translate_driver_error(error, self._database.dialect) from None
        await self._execute(self._begin)

    @contextlib.asynccontextmanager
    async def _cleared_up(self) -> AsyncIterator[None]:
        """Leave no unfinished transaction behind: roll it back if the connection is usable, otherwise drop it."""
        try:
            yield
        except (TransientConflict, ConstraintViolation):
            # The server has reported these errors in an orderly answer, so the connection can be used again.
            try:
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self._execute("ROLLBACK")
            except (AiProjectError, TimeoutError):
                self._drop()
            raise
        except BaseException:
            # A cancelled or timed-out command may still be running, and its answer would be taken for that of the
            # next one. The server rolls back when the connection is closed.
            self._drop()
            raise

    async def _execute(self, sql: str, parameters: Sequence[Any] | None = None) -> Rows:
        """Execute one statement and return its rows.

        Args:
            sql: in the driver's syntax.
            parameters: ``None`` for a command that controls the transaction, such as ``COMMIT``.
        """
        try:
            if parameters is None:
                await self._command(sql)
                return ()
            return await self._ask(sql, parameters)
        except Exception as error:  # noqa: BLE001 - drivers raise many types, which the next line translates
            word = translate_driver_error(error, self._database.dialect, sql)
            # A driver may report a lost connection as an error of the statement.
            if isinstance(word, StatementFailed) and self._is_closed():
                word = Unavailable(f"database connection lost: {type(error).__name__}")
            raise word from None  # the driver's message quotes values, which must not reach a log

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._cut(connection)

    # -- implemented for each driver --

    _begin: str

    @abstractmethod
    async def _connect(self) -> Any: ...

    @abstractmethod
    async def _ask(self, sql: str, parameters: Sequence[Any]) -> Rows: ...

    @abstractmethod
    async def _command(self, sql: str) -> None: ...

    @abstractmethod
    def _is_closed(self) -> bool: ...

    @abstractmethod
    async def _say_goodbye(self, connection: Any) -> None: ...

    @abstractmethod
    def _cut(self, connection: Any) -> None: ...


class _MySQLWriter(_ServerWriter):
    _begin = "BEGIN"

    async def _connect(self) -> Any:
        import asyncmy  # imported here, so that a process loads only the driver of its own database

        connection = await asyncmy.connect(**self._database.driver_arguments())
        try:
            # All connections of AiProject use this level: MySQL's default, REPEATABLE READ, locks gaps and reads old
            # snapshots (see `aiproject.adapters.db.engine`).
            cursor = connection.cursor()
            await cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        except BaseException:
            connection.close()
            raise
        return connection

    async def _ask(self, sql: str, parameters: Sequence[Any]) -> Rows:
        cursor = self._connection.cursor()
        await cursor.execute(sql, parameters or None)
        return await cursor.fetchall() if cursor.description else ()

    async def _command(self, sql: str) -> None:
        await self._ask(sql, ())

    def _is_closed(self) -> bool:
        return not self._connection.connected

    async def _say_goodbye(self, connection: Any) -> None:
        await connection.ensure_closed()

    def _cut(self, connection: Any) -> None:
        connection.close()


class _PostgreSQLWriter(_ServerWriter):
    _begin = "BEGIN ISOLATION LEVEL READ COMMITTED"

    async def _connect(self) -> Any:
        import asyncpg  # imported here, so that a process loads only the driver of its own database

        connection = await asyncpg.connect(**self._database.driver_arguments())
        try:
            # All statements find rows by their keys. PostgreSQL keeps a plan while the table grows from empty; a plan
            # that scans the whole table would soon be slow, until the statistics are gathered a minute later.
            await connection.execute("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off")
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _ask(self, sql: str, parameters: Sequence[Any]) -> Rows:
        return await self._connection.fetch(sql, *parameters)  # type: ignore[no-any-return]

    async def _command(self, sql: str) -> None:
        await self._connection.execute(sql)

    def _is_closed(self) -> bool:
        return bool(self._connection.is_closed())

    async def _say_goodbye(self, connection: Any) -> None:
        await connection.close()

    def _cut(self, connection: Any) -> None:
        connection.terminate()
