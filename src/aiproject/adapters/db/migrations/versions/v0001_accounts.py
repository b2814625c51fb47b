"""Create the table ``user``, or import that of the legacy application.

An existing table may be any known variant of the legacy schema, on any of the databases: columns in any letter case,
shorter, ``INTEGER``, with NULL or negative balances, in Latin-1, without ``Academy``. No row is lost and no id changes.
Anything that needs a decision (two names with the same key, names that are too long) blocks the migration, and then
nothing is changed.

Every step checks first whether it is still needed, so an interrupted run can be repeated: MySQL commits at each DDL
statement.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import CreateColumn

from aiproject.adapters.db.migrations import MigrationBlocked
from aiproject.adapters.db.schema import UtcDateTime, binary_text, new_account_id
from aiproject.codes import Detail, Param
from aiproject.messages.commands import Line
from aiproject.messages.formatting import Message
from aiproject.protocols.names import exact_name_key

revision = "0001"
down_revision = None

# The legacy columns that an imported table must have; missing others are added.
REQUIRED = ("Id", "UserName", "PassWord", "Email")

# Rows for each statement: enough that a million accounts take minutes, few enough for every limit on parameters.
BATCH = 500

# Imported accounts get numbers as if they had been created at this rate before now. With a million accounts in the same
# second, the 21 random bits would often collide.
ADOPTED_PER_SECOND = 1000

# Colliding names shown to the operator; the message says how many there are in all.
SHOWN = 50


def upgrade() -> None:
    notes: list[Message] = op.get_context().config.attributes["notes"]  # type: ignore[union-attr]
    connection = op.get_bind()
    table = target_table()
    if not sa.inspect(connection).has_table("user"):
        table.create(connection)
        notes.append(Message(Line.NOTE_TABLE_CREATED))
        return
    if connection.dialect.name == "postgresql":
        # Nobody may add an account between the survey and the end.
        connection.execute(sa.text('LOCK TABLE "user" IN ACCESS EXCLUSIVE MODE'))
    found = Found(connection, table)
    survey(connection, found)
    match connection.dialect.name:
        case "mysql" | "mariadb":
            adopt_on_mysql(connection, found, notes)
        case "postgresql":
            adopt_on_postgresql(connection, found, notes)
        case _:
            adopt_on_sqlite(connection, found, notes)
    count = connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
    notes.append(Message(Line.NOTE_ACCOUNTS_ADOPTED, {"count": count}))


def target_table() -> sa.Table:
    """The table as this revision leaves it; later revisions do not change what is said here."""

    def text(length: int) -> sa.types.TypeEngine[str]:
        on_mysql = sa.dialects.mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
        return sa.String(length).with_variant(on_mysql, "mysql", "mariadb")

    zero = sa.text("0")
    return sa.Table(
        "user",
        sa.MetaData(),
        sa.Column("Id", text(50), primary_key=True),
        sa.Column("UserName", text(100), nullable=False),
        sa.Column("PassWord", text(255), nullable=False),
        sa.Column("Tokens", sa.BigInteger, nullable=False, server_default=zero),
        sa.Column("Email", text(254), nullable=False),
        sa.Column("PicTimes", sa.BigInteger, nullable=False, server_default=zero),
        sa.Column("Academy", text(100)),
        sa.Column("AccountId", sa.BigInteger, nullable=False),
        sa.Column("NameKey", binary_text(200), nullable=False),
        sa.Column("VoiceMs", sa.BigInteger),
        sa.Column("VoiceUsedMs", sa.BigInteger, nullable=False, server_default=zero),
        sa.Column("CreatedAt", UtcDateTime),
        sa.Column("DisabledAt", UtcDateTime),
        sa.CheckConstraint(sa.column("Tokens") >= 0, name="ck_user_tokens"),
        sa.CheckConstraint(sa.column("PicTimes") >= 0, name="ck_user_pic_times"),
        sa.CheckConstraint(sa.column("VoiceMs") >= 0, name="ck_user_voice_ms"),
        sa.Index("uq_user_name_key", "NameKey", unique=True),
        sa.Index("uq_user_account_id", "AccountId", unique=True),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mysql_row_format="DYNAMIC",
    )


class Found:
    """The table as it was found, beside the one wanted.

    Attributes:
        columns: our column name -> the name under which it was found (PostgreSQL folds unquoted names).
        extra: columns that are not ours; they stay.
    """

    def __init__(self, connection: sa.Connection, target: sa.Table) -> None:
        inspector = sa.inspect(connection)
        reflected = {column["name"]: column for column in inspector.get_columns("user")}
        by_folded = {name.lower(): name for name in reflected}
        self.target = target
        self.reflected = reflected
        self.table = sa.table("user", *(sa.column(name) for name in reflected))
        self.columns = {
            column.name: by_folded[column.name.lower()] for column in target.columns if column.name.lower() in by_folded
        }
        self.extra = [column for name, column in reflected.items() if name not in self.columns.values()]
        self.primary_key = inspector.get_pk_constraint("user")["constrained_columns"]
        self.indexes = {index["name"] for index in inspector.get_indexes("user")}
        self.checks = {check["name"] for check in inspector.get_check_constraints("user")}

    def column(self, name: str) -> sa.ColumnClause[Any]:
        """One of our columns, by the name it has now."""
        return sa.column(self.columns[name])


# -- what blocks -------------------------------------------------------------------------------------------------------


def survey(connection: sa.Connection, found: Found) -> None:
    """Look for everything that would need a decision. Changes nothing; raises MigrationBlocked with all complaints."""
    if missing := [name for name in REQUIRED if name not in found.columns]:
        raise MigrationBlocked(Detail.USER_TABLE_FOREIGN, columns=missing)
    complaints: list[Message] = []
    if [name.lower() for name in found.primary_key] != ["id"]:
        complaints.append(Message(Line.BLOCKED_BY_PRIMARY_KEY))
    complaints += [
        Message(Line.BLOCKED_BY_COLUMN, {"name": str(column["name"])})
        for column in found.extra
        if not column["nullable"] and column["default"] is None and not column.get("computed")
    ]
    for column in found.target.columns:
        if column.name in found.columns and isinstance(limit := getattr(column.type, "length", None), int):
            length = sa.func.length if connection.dialect.name == "sqlite" else sa.func.char_length
            query = sa.select(sa.func.count()).select_from(found.table).where(length(found.column(column.name)) > limit)
            if count := connection.scalar(query):
                params: dict[str, Param] = {"name": column.name, "limit": limit, "count": count}
                complaints.append(Message(Line.BLOCKED_BY_LENGTH, params))
    complaints += name_complaints(connection, found)
    if complaints:
        raise MigrationBlocked(Detail.USER_TABLE_BLOCKED, complaints=complaints)


def name_complaints(connection: sa.Connection, found: Found) -> Iterator[Message]:
    names_by_key: dict[str, list[str]] = defaultdict(list)
    nameless = too_long = 0
    for _, name in rows(connection, found):
        if name is None:
            nameless += 1
        elif len(key := exact_name_key(name)) > 200:
            too_long += 1
        else:
            names_by_key[key].append(name)
    if nameless:
        yield Message(Line.BLOCKED_BY_NAMELESS, {"count": nameless})
    if too_long:
        yield Message(Line.BLOCKED_BY_LONG_NAMES, {"count": too_long})
    if collisions := {key: names for key, names in names_by_key.items() if len(names) > 1}:
        shown = ", ".join(" = ".join(map(repr, names[:5])) for _, names in sorted(collisions.items())[:SHOWN])
        params: dict[str, Param] = {
            "count": len(collisions),
            "rows": sum(map(len, collisions.values())),
            "names": shown,
        }
        if len(collisions) > SHOWN:
            yield Message(Line.BLOCKED_BY_MORE_COLLISIONS, {**params, "more": len(collisions) - SHOWN})
        else:
            yield Message(Line.BLOCKED_BY_COLLISIONS, params)


def rows(connection: sa.Connection, found: Found) -> Iterator[tuple[str, str | None]]:
    """(Id, UserName) of every account, a batch at a time."""
    identity, name = found.column("Id"), found.column("UserName")
    last = None
    while True:
        query = sa.select(identity, name).select_from(found.table).order_by(identity).limit(10 * BATCH)
        if last is not None:
            query = query.where(identity > last)
        batch = connection.execute(query).all()
        if not batch:
            return
        for row in batch:
            yield row[0], row[1]
        last = batch[-1][0]


# -- what is the same everywhere ---------------------------------------------------------------------------------------


def mend_values(connection: sa.Connection, found: Found, notes: list[Message]) -> None:
    """Put 0 for balances that are missing or negative, and empty text for missing passwords and addresses."""
    for name in ("Tokens", "PicTimes"):
        if name not in found.columns:
            continue
        balance = found.column(name)
        owed = connection.execute(
            sa.select(sa.func.count(), sa.func.sum(balance)).select_from(found.table).where(balance < 0)
        ).one()
        if owed[0]:
            connection.execute(found.table.update().where(balance < 0).values({balance.name: 0}))
            params = {"name": name, "count": owed[0], "total": int(owed[1])}
            notes.append(Message(Line.NOTE_BALANCES_NEGATIVE, params))
        unset = connection.execute(found.table.update().where(balance.is_(None)).values({balance.name: 0})).rowcount
        if unset:
            notes.append(Message(Line.NOTE_BALANCES_UNSET, {"name": name, "count": unset}))
    for name in ("PassWord", "Email"):
        column = found.column(name)
        empty = connection.execute(found.table.update().where(column.is_(None)).values({column.name: ""})).rowcount
        if empty:
            notes.append(Message(Line.NOTE_VALUES_EMPTY, {"name": name, "count": empty}))


def fill_keys(connection: sa.Connection, target: sa.Table) -> None:
    """Give each account its number and its name's key, where it has none yet."""
    identity, name = target.c.Id, target.c.UserName
    waiting = sa.or_(target.c.AccountId.is_(None), target.c.NameKey.is_(None))
    taken = set(connection.scalars(sa.select(target.c.AccountId).where(target.c.AccountId.is_not(None))))
    total = connection.scalar(sa.select(sa.func.count()).select_from(target).where(waiting)) or 0
    moment = datetime.now(UTC) - timedelta(seconds=total // ADOPTED_PER_SECOND)
    done = 0
    while batch := connection.execute(
        sa.select(identity, name, target.c.AccountId).where(waiting).order_by(identity).limit(BATCH)
    ).all():
        keys, numbers = {}, {}
        for row in batch:
            keys[row[0]] = exact_name_key(row[1])
            numbers[row[0]] = row[2] or draw_account_id(moment + timedelta(seconds=done // ADOPTED_PER_SECOND), taken)
            done += 1
        connection.execute(
            target.update()
            .where(identity.in_(list(keys)))
            .values(
                NameKey=sa.case(keys, value=identity),
                AccountId=sa.case(numbers, value=identity),
            )
        )


def draw_account_id(moment: datetime, taken: set[int]) -> int:
    while (number := new_account_id(moment)) in taken:
        continue
    taken.add(number)
    return number


# -- MySQL and MariaDB -------------------------------------------------------------------------------------------------


def adopt_on_mysql(connection: sa.Connection, found: Found, notes: list[Message]) -> None:
    """Two ALTERs with the filling between them; each is atomic by itself, and doing it again does nothing new."""
    mend_values(connection, found, notes)
    alter_on_mysql(connection, found, is_filled=False)
    fill_keys(connection, found.target)
    alter_on_mysql(connection, Found(connection, found.target), is_filled=True)


def alter_on_mysql(connection: sa.Connection, found: Found, *, is_filled: bool) -> None:
    quote = connection.dialect.identifier_preparer.quote
    clauses = ["ENGINE = InnoDB", "ROW_FORMAT = DYNAMIC", "DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"]
    for column in found.target.columns:
        if column.name == "Id" and is_referenced_on_mysql(connection):
            # A column and what refers to it must have one character set, so changing one side would break the
            # reference, and the other table is not ours. A uuid is the same in every character set.
            continue
        if not is_filled and column.name in ("AccountId", "NameKey"):
            if column.name not in found.columns:
                nullable = sa.Column(column.name, column.type)
                clauses.append(f"ADD COLUMN {CreateColumn(nullable).compile(dialect=connection.dialect)}")
            continue
        specification = str(CreateColumn(column).compile(dialect=connection.dialect))
        if column.name in found.columns:
            clauses.append(f"CHANGE COLUMN {quote(found.columns[column.name])} {specification}")
        else:
            clauses.append(f"ADD COLUMN {specification}")
    if is_filled:
        for index in sorted(found.target.indexes, key=lambda index: str(index.name)):
            if index.name not in found.indexes:
                columns = ", ".join(quote(column.name) for column in index.columns)
                clauses.append(f"ADD UNIQUE INDEX {index.name} ({columns})")
        for check in checks_of(found.target):
            if check.name not in found.checks:
                condition = check.sqltext.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
                clauses.append(f"ADD CONSTRAINT {check.name} CHECK ({condition})")
    connection.exec_driver_sql(f"ALTER TABLE {quote('user')} " + ", ".join(clauses).replace("%", "%%"))


def is_referenced_on_mysql(connection: sa.Connection) -> bool:
    query = sa.text(
        "SELECT COUNT(*) FROM information_schema.KEY_COLUMN_USAGE "
        "WHERE REFERENCED_TABLE_SCHEMA = DATABASE() AND REFERENCED_TABLE_NAME = 'user'"
    )
    return bool(connection.scalar(query))


def checks_of(table: sa.Table) -> list[sa.CheckConstraint]:
    checks = [constraint for constraint in table.constraints if isinstance(constraint, sa.CheckConstraint)]
    return sorted(checks, key=lambda check: str(check.name))


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


def adopt_on_postgresql(connection: sa.Connection, found: Found, notes: list[Message]) -> None:
    """Step by step in the one transaction that the upgrade is here."""
    for name, present in found.columns.items():
        if name != present:
            op.alter_column("user", present, new_column_name=name)
    found = Found(connection, found.target)
    mend_values(connection, found, notes)
    for column in found.target.columns:
        if column.name not in found.columns:
            op.add_column("user", sa.Column(column.name, column.type, server_default=column.server_default))
            continue
        wanted = column.type.compile(connection.dialect)
        if found.reflected[column.name]["type"].compile(connection.dialect) != wanted:
            quoted = connection.dialect.identifier_preparer.quote(column.name)
            # A default of the old type would be in the way of some conversions; ours is set below.
            op.execute(f'ALTER TABLE "user" ALTER COLUMN {quoted} DROP DEFAULT')
            op.execute(f'ALTER TABLE "user" ALTER COLUMN {quoted} TYPE {wanted}')
    fill_keys(connection, found.target)
    for column in found.target.columns:
        if column.server_default is not None:
            op.alter_column("user", column.name, server_default=column.server_default)
        if not column.nullable:
            op.alter_column("user", column.name, nullable=False)
    for index in found.target.indexes:
        if index.name not in found.indexes:
            index.create(connection)
    for check in checks_of(found.target):
        if check.name not in found.checks:
            op.create_check_constraint(str(check.name), "user", check.sqltext)


# -- SQLite ------------------------------------------------------------------------------------------------------------


def adopt_on_sqlite(connection: sa.Connection, found: Found, notes: list[Message]) -> None:
    """Build the table anew and put it in the old one's place: SQLite alters hardly anything.

    Foreign keys are off meanwhile, so other tables' references to ``user`` stay and meet the new table.
    Source: SQLite documentation, "ALTER TABLE", section 7, "Making Other Kinds Of Table Schema Changes".
    """
    mend_values(connection, found, notes)
    for name in ("AccountId", "NameKey"):
        if name not in found.columns:
            op.add_column("user", sa.Column(name, found.target.c[name].type))
    fill_keys(connection, found.target)
    found = Found(connection, found.target)

    own_names = [index.name for index in found.target.indexes]
    definitions = connection.scalars(
        sa.text(
            "SELECT sql FROM sqlite_master WHERE tbl_name = 'user' AND type IN ('index', 'trigger') "
            "AND sql IS NOT NULL AND name NOT IN :own_names"
        ).bindparams(sa.bindparam("own_names", own_names, expanding=True))
    ).all()
    fresh = found.target.to_metadata(sa.MetaData(), name="user_adopted")
    fresh.indexes.clear()  # an index's name is unique in the whole database; ours are made after the exchange
    for column in found.extra:
        default = None if column["default"] is None else sa.text(column["default"])
        fresh.append_column(
            sa.Column(column["name"], column["type"], nullable=column["nullable"], server_default=default)
        )
    fresh.create(connection)
    origin = dict(found.columns) | {column["name"]: column["name"] for column in found.extra}
    connection.execute(
        fresh.insert().from_select(list(origin), sa.select(*(found.table.c[name] for name in origin.values())))
    )
    op.drop_table("user")
    op.rename_table("user_adopted", "user")
    for index in found.target.indexes:
        index.create(connection)
    for definition in definitions:
        connection.exec_driver_sql(definition)
