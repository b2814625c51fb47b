"""The few statements of the ledger, as text, in the fastest form of each dialect.

Written by hand because they run some thousand times a second at most, each over some hundred rows: SQLAlchemy would
compile them anew for each number of rows and look at every single value. Tables and columns come from the schema,
values are always parameters.

* SQLite has no round trips: a row at a time, prepared once.
* MySQL prepares nothing here: all rows in one text.
* PostgreSQL prepares: a column is one array, so the text is the same for any number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from aiproject.adapters.db.runner import Statement
from aiproject.adapters.db.schema import user as users

__all__ = [
    "NOW_MS",
    "Row",
    "delete_rows",
    "insert_missing_rows",
    "insert_rows",
    "select_in_order",
    "select_rows",
    "update_rows",
]

Row = Sequence[Any]

NOW_MS = {
    "sqlite": "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)",
    "mysql": "CAST(ROUND(UNIX_TIMESTAMP(SYSDATE(3)) * 1000) AS SIGNED)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}
"""The database's clock in milliseconds since 1970: leases are compared by one clock, whatever the nodes' own say."""

_POSTGRES_ARRAYS = {
    "big_integer": "bigint[]",
    "integer": "integer[]",
    "string": "text[]",
    "large_binary": "bytea[]",
}


def select_rows(
    dialect: str,
    table: sa.Table,
    columns: tuple[str, ...],
    keys: tuple[str, ...],
    values: Sequence[Row],
    *,
    is_locked: bool = False,
) -> Statement:
    """Select the rows with these keys; the database's clock stands behind the columns.

    Args:
        keys: names of the columns that are looked for.
        values: at least one tuple of keys; sorted, since rows are locked in this order.
        is_locked: until the end of the transaction.
    """
    before, row, between, behind = _select(dialect, table, columns, keys, is_locked=is_locked)
    if dialect == "postgresql":
        return Statement(before, tuple(zip(*values, strict=True)))
    if dialect == "sqlite":
        # Prepared once for each number of rows, of which it remembers some dozens only: round them up.
        values = [*values, *[values[-1]] * ((1 << (len(values) - 1).bit_length()) - len(values))]
    flat = [value for key in values for value in key]
    return Statement(f"{before}{between.join([row] * len(values))}{behind}", flat)


def select_in_order(
    dialect: str,
    table: sa.Table,
    columns: tuple[str, ...],
    order_by: str,
    *,
    same: Mapping[str, str] = MappingProxyType({}),
    below: int | None = None,
    is_descending: bool = False,
    limit: int,
    offset: int = 0,
) -> Statement:
    """Select a few rows, sorted, and without locks.

    Args:
        same: columns and the values that they must have.
        below: what ``order_by`` must be less than.
    """
    conditions: list[tuple[str, str, Any]] = [(name, "=", value) for name, value in same.items()]
    if below is not None:
        conditions.append((order_by, "<", below))
    marks = {"sqlite": "?", "mysql": "%s"}
    where = " AND ".join(
        f"{_quoted(dialect, name)} {sign} {marks.get(dialect, f'${number}')}"
        for number, (name, sign, _) in enumerate(conditions, 1)
    )
    sql = (
        f"SELECT {_listed(dialect, columns)} FROM {_table(dialect, table)} WHERE {where} "  # noqa: S608
        f"ORDER BY {_quoted(dialect, order_by)}{' DESC' if is_descending else ''} LIMIT {limit} OFFSET {offset}"
    )
    return Statement(sql, [value for _, _, value in conditions])


def insert_rows(dialect: str, table: sa.Table, columns: tuple[str, ...], rows: Sequence[Row]) -> Statement:
    """Insert rows, their values in the order of the columns."""
    return _over_rows(dialect, _insert(dialect, table, columns), rows)


def insert_missing_rows(
    dialect: str, table: sa.Table, keys: tuple[str, ...], columns: tuple[str, ...], rows: Sequence[Row]
) -> Statement:
    """The same, but leave alone what is there already under these keys, the table's primary ones.

    Args:
        rows: sorted by their keys.
    """
    before, row, behind = _insert(dialect, table, columns)
    if dialect == "mysql":
        # Not INSERT IGNORE, which hides other faults as well and locks what it finds in a way that ends in deadlocks.
        name = _quoted(dialect, keys[0])
        behind = f" ON DUPLICATE KEY UPDATE {name} = {_table(dialect, table)}.{name}"
    else:
        before += " ON CONFLICT DO NOTHING"
    return _over_rows(dialect, (before, row, behind), rows)


def delete_rows(dialect: str, table: sa.Table, keys: tuple[str, ...], rows: Sequence[Row]) -> Statement:
    """Delete the rows that have these values in these columns."""
    return _over_rows(dialect, _delete(dialect, table, keys), rows)


def update_rows(
    dialect: str,
    table: sa.Table,
    keys: tuple[str, ...],
    columns: tuple[str, ...],
    rows: Sequence[Row],
    *,
    where: tuple[str, str] | None = None,
) -> Statement:
    """Set ``columns`` of the rows with these keys.

    Args:
        rows: values of the columns, then of the keys; no keys twice, because MySQL joins each row only once.
        where: a column and the value that it must have; a word of ours, it becomes part of the text.
    """
    return _over_rows(dialect, _update(dialect, table, keys, columns, where, is_one=len(rows) == 1), rows)


def _over_rows(dialect: str, text: tuple[str, str, str], rows: Sequence[Row]) -> Statement:
    """Put the rows into a text of three parts: before them, one of them, behind them."""
    before, row, behind = text
    match dialect:
        case "sqlite":
            return Statement(before, rows, is_many=True)
        case "postgresql":
            return Statement(before, tuple(zip(*rows, strict=True)))
        case _:
            return Statement(before + row * (len(rows) - 1) + behind, [value for row in rows for value in row])


@lru_cache
def _select(
    dialect: str, table: sa.Table, columns: tuple[str, ...], keys: tuple[str, ...], *, is_locked: bool
) -> tuple[str, str, str, str]:
    """Return the text before the rows, that of one, what stands between two, and what behind them all."""
    names = [_quoted(dialect, key) for key in keys]
    before = f"SELECT {_listed(dialect, columns)}, {NOW_MS[dialect]} FROM {_table(dialect, table)}"  # noqa: S608 - names are ours, here and below
    if dialect == "mysql" and table is users:
        # Else a small table is read as a whole, and its rows are locked in another order.
        before += " FORCE INDEX (uq_user_account_id)"
    behind = ""
    if is_locked and dialect != "sqlite":  # where whoever writes is alone anyway
        behind = f" ORDER BY {_listed(dialect, keys)} FOR UPDATE"
    if dialect == "postgresql":
        arrays = _arrays(table, keys)
        where = f"({', '.join(names)}) IN (SELECT * FROM unnest({arrays}))"  # noqa: S608
        if len(keys) == 1:
            where = f"{names[0]} = ANY({arrays})"
        return f"{before} WHERE {where}{behind}", "", "", ""
    mark = "?" if dialect == "sqlite" else "%s"
    if len(keys) == 1:
        return f"{before} WHERE {names[0]} IN (", mark, ", ", f"){behind}"
    # (a, b) IN (…) does without the index on MariaDB
    return f"{before} WHERE ", f"({' AND '.join(f'{name} = {mark}' for name in names)})", " OR ", behind


@lru_cache
def _insert(dialect: str, table: sa.Table, columns: tuple[str, ...]) -> tuple[str, str, str]:
    into = f"INSERT INTO {_table(dialect, table)} ({_listed(dialect, columns)})"
    match dialect:
        case "sqlite":
            return f"{into} VALUES ({', '.join('?' for _ in columns)})", "", ""
        case "postgresql":
            return f"{into} SELECT * FROM unnest({_arrays(table, columns)})", "", ""  # noqa: S608
        case _:
            row = f"({', '.join('%s' for _ in columns)})"
            return f"{into} VALUES {row}", f", {row}", ""


@lru_cache
def _update(
    dialect: str,
    table: sa.Table,
    keys: tuple[str, ...],
    columns: tuple[str, ...],
    where: tuple[str, str] | None,
    *,
    is_one: bool,
) -> tuple[str, str, str]:
    names = [_quoted(dialect, name) for name in (*columns, *keys)]
    changed, same = names[: len(columns)], names[len(columns) :]
    target = _table(dialect, table)
    only = "" if where is None else f" AND t.{_quoted(dialect, where[0])} = '{where[1]}'"
    if dialect == "postgresql":
        changes = ", ".join(f"{name} = v.{name}" for name in changed)
        matches = " AND ".join(f"t.{name} = v.{name}" for name in same)
        values = f"unnest({_arrays(table, (*columns, *keys))}) AS v ({', '.join(names)})"
        return f"UPDATE {target} AS t SET {changes} FROM {values} WHERE {matches}{only}", "", ""  # noqa: S608
    if dialect == "sqlite" or is_one:
        mark = "?" if dialect == "sqlite" else "%s"
        changes = ", ".join(f"{name} = {mark}" for name in changed)
        matches = " AND ".join(f"t.{name} = {mark}" for name in same)
        return f"UPDATE {target} AS t SET {changes} WHERE {matches}{only}", "", ""  # noqa: S608
    # MySQL's drivers send many UPDATEs one by one, a round trip each. STRAIGHT_JOIN: the values first, then the row of
    # each by its key; else a whole table may be read, and locked, to join it.
    changes = ", ".join(f"t.{name} = v.{name}" for name in changed)
    matches = " AND ".join(
        # A literal has the connection's collation, the column its own: say which counts.
        f"t.{name} = v.{name}" + (" COLLATE utf8mb4_bin" if isinstance(table.c[key].type, sa.String) else "")
        for name, key in zip(same, keys, strict=True)
    )
    return (
        f"UPDATE (SELECT {', '.join(f'%s AS {name}' for name in names)}",
        f" UNION ALL SELECT {', '.join(['%s'] * len(names))}",
        f") AS v STRAIGHT_JOIN {target} AS t ON {matches}{only} SET {changes}",
    )


@lru_cache
def _delete(dialect: str, table: sa.Table, keys: tuple[str, ...]) -> tuple[str, str, str]:
    target = _table(dialect, table)
    names = [_quoted(dialect, key) for key in keys]
    if dialect == "postgresql":
        matches = " AND ".join(f"t.{name} = v.{name}" for name in names)
        values = f"unnest({_arrays(table, keys)}) AS v ({', '.join(names)})"
        return f"DELETE FROM {target} AS t USING {values} WHERE {matches}", "", ""  # noqa: S608
    mark = "?" if dialect == "sqlite" else "%s"
    row = f"({' AND '.join(f'{name} = {mark}' for name in names)})"
    return f"DELETE FROM {target} WHERE {row}", f" OR {row}", ""  # noqa: S608


def _table(dialect: str, table: sa.Table) -> str:
    return _quoted(dialect, table.name)


def _quoted(dialect: str, name: str) -> str:
    return f"`{name}`" if dialect == "mysql" else f'"{name}"'


def _listed(dialect: str, names: Sequence[str]) -> str:
    return ", ".join(_quoted(dialect, name) for name in names)


def _arrays(table: sa.Table, columns: tuple[str, ...]) -> str:
    return ", ".join(
        f"${number}::{_POSTGRES_ARRAYS[table.c[name].type.__visit_name__]}" for number, name in enumerate(columns, 1)
    )
