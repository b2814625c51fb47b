"""Transactions that are many and all alike, on one connection of their own and without SQLAlchemy in between.

SQLAlchemy is right for everything that happens once in a call. The ledger commits some thousand times a second at most,
each time with the same few statements, and there it would cost more than all the rest: two milliseconds of CPU a
transaction, most of it for greenlets and, on SQLite, for a change of threads at each step of each statement.

A transaction is given as `Steps`: a generator that yields statements, is sent their rows, and returns a result. It
knows no I/O, so the same one runs in SQLite's thread, on a driver's connection or on SQLAlchemy's (see `take_steps`).
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
"""A transaction that has not ended by then hangs on a dead connection. Longer than SQLite's wait for another process
that writes, so that "busy" is told from "away"."""

GOODBYE_SECONDS = 2.0
"""For the last words on a connection: a rollback, or the goodbye."""

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
    """Take the steps within a transaction of SQLAlchemy's, which the caller commits."""
    try:
        statement = next(steps)
        while True:
            parameters = list(map(tuple, statement.parameters)) if statement.is_many else tuple(statement.parameters)
            result = await connection.exec_driver_sql(statement.sql, parameters)
            statement = steps.send(result.all() if result.returns_rows else ())
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


class Writer(ABC):
    """Makes transactions, one after the other. Opens its connection when first wanted, and again when it was lost."""

    @abstractmethod
    async def run(self, make: Callable[[], Steps[T]]) -> T:
        """Take the steps that ``make`` returns in a transaction, and commit it.

        Args:
            make: called once, when the transaction has begun.

        Raises:
            TransientConflict: another transaction was in the way; nothing was written.
            CommitInDoubt: the connection was lost while committing.
            Unavailable: no connection, or it was lost; nothing was written.
            AiProjectError: another error of `aiproject.adapters.db.errors`; nothing was written.
            Exception: what the steps raised; nothing was written.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the connection. It opens again if wanted."""


def open_writer(database: Database) -> Writer:
    """Return a writer to the database, which closes it at its own end; nothing is connected yet."""
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
    """A thread that does one job after the other, and tells the loop. An executor's would cost as much as the job.

    It ends with the process, whatever it does then; the database file is as safe from that as from a power cut.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        threading.Thread(target=_do_jobs, args=(self._jobs,), name="writer", daemon=True).start()

    def do(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Return a future of what the job returns or raises; cancelled before its turn has come, it is not done."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((done, job))
        return done

    def end(self) -> None:
        """End when everything is done."""
        self._jobs.put(None)


def _do_jobs(jobs: queue.SimpleQueue[_Job | None]) -> None:
    while (entry := jobs.get()) is not None:
        done, job = entry
        if not done.cancelled():
            _do_job(done, job)
        del entry, done, job  # else they lived on until the next


def _do_job(done: asyncio.Future[Any], job: Callable[[], Any]) -> None:
    result, error = None, None
    try:
        result = job()
    except BaseException as raised:  # noqa: BLE001 - it belongs to whoever waits
        error = raised
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
        done.get_loop().call_soon_threadsafe(_tell, done, result, error)
    del result, error  # an error's traceback holds this frame


def _tell(done: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if done.done():
        return  # cancelled meanwhile
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


class _SqliteWriter(Writer):
    """A whole transaction in one go, in a thread of its own: the loop changes threads twice and not sixty times."""

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
            # The thread goes on, and may still commit. What it does next comes after that, so looking then is enough.
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
            if isinstance(word, Unavailable) and not isinstance(word, TransientConflict):
                self._disconnect()
                if sql == "COMMIT":
                    word = CommitInDoubt(f"the commit failed: {word.detail}")
            raise word from None  # the driver's text quotes values
        finally:
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
            if not limit.expired():
                raise
            kind = CommitInDoubt if is_committing else Unavailable
            raise kind(f"the database did not answer within {TRANSACTION_SECONDS:g} s") from None
        except Unavailable as error:
            if is_committing and not isinstance(error, TransientConflict):
                raise CommitInDoubt(f"connection lost while committing: {error.detail}") from None
            raise
        except StatementFailed as error:
            if is_committing:  # with a word that we do not know, so we do not know what it did
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
        """Begin, on a new connection if the server has closed the old one while nobody looked."""
        if self._connection is not None:
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
        except Exception as error:  # noqa: BLE001 - drivers have many, the table knows them
            raise translate_driver_error(error, self._database.dialect) from None
        await self._execute(self._begin)

    @contextlib.asynccontextmanager
    async def _cleared_up(self) -> AsyncIterator[None]:
        """Leave no half transaction behind: roll it back where the connection is fit for that, else cut it."""
        try:
            yield
        except (TransientConflict, ConstraintViolation):
            try:
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self._execute("ROLLBACK")
            except (AiProjectError, TimeoutError):
                self._drop()
            raise
        except BaseException:
            self._drop()
            raise

    async def _execute(self, sql: str, parameters: Sequence[Any] | None = None) -> Rows:
        """Args: parameters: ``None`` for words about the transaction itself."""
        try:
            if parameters is None:
                await self._command(sql)
                return ()
            return await self._ask(sql, parameters)
        except Exception as error:  # noqa: BLE001 - as above
            word = translate_driver_error(error, self._database.dialect, sql)
            if isinstance(word, StatementFailed) and self._is_closed():
                word = Unavailable(f"database connection lost: {type(error).__name__}")
            raise word from None  # the driver's text quotes values

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._cut(connection)

    # -- to be said by each driver --

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
        import asyncmy  # here, so that a process loads the driver of its database only

        connection = await asyncmy.connect(**self._database.driver_arguments())
        try:
            # As for every connection of ours, see `aiproject.adapters.db.engine`.
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
        import asyncpg  # here, so that a process loads the driver of its database only

        connection = await asyncpg.connect(**self._database.driver_arguments())
        try:
            # Rows are found by their keys. A plan is kept while its table grows from nothing, and one that read it as a
            # whole would soon be slow, until the statistics are gathered a minute later.
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
