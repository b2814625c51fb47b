"""Compute name keys without ignorable characters, and add the count of accounts that each address creates in a day.

The table is only added. A name with ignorable characters, such as an emoji's variation selector, gets a key that the
previous release does not look up: its account can log in on such a node only once that node is upgraded as well. If the
new key belongs to another row, the old key stays and remains valid. Running the migration again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic import op

from aiproject.codes import Term
from aiproject.messages.commands import Line
from aiproject.messages.formatting import Message
from aiproject.protocols.names import name_key

revision = "0004"
down_revision = "0003"

BATCH = 1000
"""Rows that are read at once."""


class Names(NamedTuple):
    """A table of names, by its columns."""

    whose: Term
    table: sa.TableClause
    number: sa.ColumnClause[int]
    key: sa.ColumnClause[str]


def upgrade() -> None:
    notes: list[Message] = op.get_context().config.attributes["notes"]  # type: ignore[union-attr]
    connection = op.get_bind()
    signups = signup_table()
    if not sa.inspect(connection).has_table(signups.name):
        signups.create(connection)
    accounts = names_of(Term.OF_ACCOUNT, "user", "AccountId", "NameKey")
    administrators = names_of(Term.OF_ADMINISTRATOR, "administrator", "admin_id", "name_key")
    for names in (accounts, administrators):
        changed, kept = renew_keys(connection, names)
        if changed:
            notes.append(Message(Line.NOTE_NAMES_RENEWED, {"count": changed, "whose": names.whose}))
        if kept:
            notes.append(Message(Line.NOTE_NAMES_KEPT, {"count": kept, "whose": names.whose}))


def names_of(whose: Term, table: str, number: str, key: str) -> Names:
    columns: tuple[sa.ColumnClause[Any], sa.ColumnClause[Any]] = sa.column(number), sa.column(key)
    return Names(whose, sa.table(table, *columns), *columns)


def renew_keys(connection: sa.Connection, names: Names) -> tuple[int, int]:
    """Give each row the key of its name where that is free; return how many got it and how many could not."""
    changed = kept = 0
    for number, old in rows(connection, names):
        new = name_key(old)
        if new == old:
            continue
        is_free = bool(new) and connection.scalar(sa.select(names.number).where(names.key == new)) is None
        if is_free:
            connection.execute(names.table.update().where(names.number == number).values({names.key.name: new}))
            changed += 1
        else:
            kept += 1
    return changed, kept


def rows(connection: sa.Connection, names: Names) -> Iterator[tuple[int, str]]:
    """Number and key of each row, a batch at a time. The key of a key is that of the name."""
    last: int | None = None
    while True:
        query = sa.select(names.number, names.key).order_by(names.number).limit(BATCH)
        batch = connection.execute(query if last is None else query.where(names.number > last)).all()
        for row in batch:
            yield row[0], row[1]
        if len(batch) < BATCH:
            return
        last = batch[-1][0]


def signup_table() -> sa.Table:
    return sa.Table(
        "signup_count",
        sa.MetaData(),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("subject", sa.String(64), primary_key=True),
        sa.Column("accounts", sa.Integer, nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_row_format="DYNAMIC",
    )
