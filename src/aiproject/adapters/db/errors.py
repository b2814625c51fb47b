"""Errors of the database in words of this application, and the translation of the drivers' errors into them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from enum import StrEnum
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError

from aiproject.adapters.db import schema
from aiproject.codes import Detail
from aiproject.errors import AiProjectError, Misconfigured, Unavailable

__all__ = [
    "PRIMARY",
    "CommitInDoubt",
    "Condition",
    "ConstraintViolation",
    "DatabaseUnavailable",
    "Dialect",
    "StatementFailed",
    "TransientConflict",
    "UniqueViolation",
    "describe_driver_error",
    "raise_translated",
    "translate_driver_error",
]

Dialect = Literal["sqlite", "mysql", "postgresql"]

PRIMARY = "PRIMARY"


class ConstraintViolation(AiProjectError):
    """A constraint rejected the row. A bug, unless the caller expects it.

    Args:
        constraint: its name in `aiproject.adapters.db.schema`; `PRIMARY` for any primary key; columns as
            ``table.column`` where neither the database nor the schema tells the name.
    """

    def __init__(self, constraint: str) -> None:
        super().__init__(f"{type(self).__name__}: {constraint}")
        self.constraint = constraint


class UniqueViolation(ConstraintViolation):
    """A row with these values exists already."""


class CheckViolation(ConstraintViolation):
    """The row breaks a rule of its table, for example a balance below zero."""


class TransientConflict(Unavailable):
    """The transaction conflicted with another one (busy, deadlock, serialization); nothing was written.

    The whole transaction may be tried again, which `Database.transact` does.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail, retry_after=1)


class CommitInDoubt(Unavailable):
    """The connection was lost during the commit: the transaction may have been committed or not.

    The caller must look, or be idempotent and run it again.
    """


class Condition(StrEnum):
    """The reason why a database accepts no writes, in the words of `/ready`."""

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
    """The database rejected a statement: a bug, or a schema that was not upgraded.

    Args:
        detail: the driver's class and code, and its message where that cannot hold values of rows.
        statement: the SQL text with placeholders.
    """

    def __init__(self, detail: str, statement: str | None) -> None:
        super().__init__(f"{detail} [{' '.join((statement or '').split())[:500]}]")
        self.detail = detail
        self.statement = statement


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


def raise_translated(context: ExceptionContext) -> None:
    if context.is_pre_ping:
        return  # the pool handles it by opening a new connection
    error = context.original_exception
    if isinstance(error, AiProjectError) or not isinstance(error, Exception):
        return
    if isinstance(error, OSError):
        context.is_disconnect = True
        raise Unavailable(f"database connection lost: {type(error).__name__}")
    if not isinstance(context.sqlalchemy_exception, DBAPIError):
        return  # a mistake in our own use of SQLAlchemy, or an exception of the body
    # An error without a translation stays SQLAlchemy's exception, because its reflection catches some of them (MySQL:
    # no such table). `engine._checked_out` makes a StatementFailed of those that leave the block.
    if translated := _translate(error, context.dialect.name, is_disconnect=context.is_disconnect):
        raise translated


def translate_driver_error(error: Exception, dialect: Dialect, statement: str | None = None) -> AiProjectError:
    """Translate an error of a driver that is used without SQLAlchemy.

    Args:
        statement: the SQL that it was executing.
    """
    # asyncpg and asyncmy let the socket's own errors and time-outs through.
    if isinstance(error, OSError | EOFError):
        return Unavailable(f"database connection lost: {type(error).__name__}")
    return _translate(error, dialect, is_disconnect=False) or StatementFailed(describe_driver_error(error), statement)


def _translate(error: Exception, dialect: str, *, is_disconnect: bool) -> AiProjectError | None:
    """Translate a driver's error; ``None``: there is no translation."""
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
        return Misconfigured(Detail.DATABASE_REFUSES, reason=message[:300], number=number)
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
        return Misconfigured(Detail.DATABASE_REFUSES, reason=str(getattr(original, "message", "")), number=state)
    if state.startswith(_POSTGRES_UNAVAILABLE):
        condition = _POSTGRES_CONDITIONS.get(state, Condition.AWAY)
        return DatabaseUnavailable(f"database not available: PostgreSQL error {state}", condition)
    return None


def _is_primary_key(constraint: str) -> bool:
    # PostgreSQL's default names; the schema names no primary key itself.
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
        return Misconfigured(Detail.DATABASE_FILE_DAMAGED, reason=message)
    return None


def _unique_name(columns: str) -> str:
    """Return the name of a unique index by the columns that SQLite reports instead of it, ``t.a, t.b``."""
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


def describe_driver_error(error: BaseException | None) -> str:
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
