"""Adoption of the original's databases, on all four: nothing lost, nothing guessed, and repeatable when broken off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import ConstraintViolation
from aiproject.adapters.db.migrations import MigrationBlocked
from aiproject.adapters.db.schema import metadata, user
from aiproject.ledger.verify import verify
from aiproject.messages.formatting import Language, format_error
from power_cut import PowerCut, between_cuts, power_cut_before

# As the seed's document spells it. Unquoted names are folded by PostgreSQL; the table's name it does not take unquoted.
SEED = """
CREATE TABLE {user} (
    Id VARCHAR(50) PRIMARY KEY NOT NULL ,
    UserName VARCHAR(50) NOT NULL ,
    PassWord VARCHAR(50) NOT NULL ,
    Tokens INTEGER ,
    Email VARCHAR(50) NOT NULL ,
    PicTimes INTEGER DEFAULT 0
)
"""

# As the original's own model makes it: quoted names, other types, one column more.
ORIGINAL = """
CREATE TABLE {user} (
    {q}Id{q} VARCHAR(50) NOT NULL,
    {q}UserName{q} VARCHAR(50) NOT NULL,
    {q}PassWord{q} VARCHAR(50) NOT NULL,
    {q}Tokens{q} BIGINT,
    {q}Email{q} VARCHAR(10) NOT NULL,
    {q}PicTimes{q} INTEGER,
    {q}Academy{q} VARCHAR(50),
    PRIMARY KEY ({q}Id{q})
)
"""

# The original's record of redeemed codes refers to the account by its uuid.
REDEMPTIONS = """
CREATE TABLE user_token (
    Id INTEGER PRIMARY KEY,
    user_id VARCHAR(50) NOT NULL,
    CONSTRAINT fk_redeemer FOREIGN KEY (user_id) REFERENCES {user} ({q}Id{q})
)
"""

MD5 = "0123456789abcdef0123456789abcdef"
ROWS: list[dict[str, Any]] = [
    {"Id": "a" * 32, "UserName": "alice", "PassWord": MD5, "Tokens": 500, "Email": "a@b.cn", "PicTimes": 7},
    {"Id": "b" * 32, "UserName": "José ", "PassWord": "plain", "Tokens": None, "Email": "", "PicTimes": None},
    {"Id": "c" * 32, "UserName": "Carol", "PassWord": MD5.upper(), "Tokens": -350, "Email": "c@d.cn", "PicTimes": 0},
]


class Old:
    """A database as the original left it."""

    def __init__(self, database: Database, kind: str) -> None:
        self.database = database
        self.kind = kind
        self.quote = "`" if database.dialect == "mysql" else '"'

    async def create(self, ddl: str, options: str = "") -> None:
        text = ddl.format(user=f"{self.quote}user{self.quote}", q=self.quote)
        await self.run(text + options)

    async def run(self, statement: str) -> None:
        async with self.database.begin() as connection:
            await connection.exec_driver_sql(statement)

    async def fill(self, rows: list[dict[str, Any]]) -> None:
        names = await self.names()
        table = sa.table("user", *(sa.column(name) for name in names.values()))
        async with self.database.begin() as connection:
            await connection.execute(
                table.insert(), [{names[name.lower()]: value for name, value in row.items()} for row in rows]
            )

    async def names(self) -> dict[str, str]:
        """Folded name -> name of the columns that the table has now."""
        async with self.database.connect() as connection:
            columns = await connection.run_sync(lambda sync: sa.inspect(sync).get_columns("user"))
        return {column["name"].lower(): column["name"] for column in columns}

    async def dump(self) -> tuple[list[str], list[Any]]:
        """All tables, and all rows of the table user as it stands."""
        names = await self.names()
        table = sa.table("user", *(sa.column(name) for name in names.values()))
        async with self.database.connect() as connection:
            tables = await connection.run_sync(lambda sync: sorted(sa.inspect(sync).get_table_names()))
            rows = (await connection.execute(sa.select(table).order_by(table.c[names["id"]]))).all()
        return tables, list(rows)

    async def forget(self) -> None:
        """Leave an empty database."""
        for table in (*metadata.tables, "alembic_version"):
            await self.run(f"DROP TABLE {self.quote}{table}{self.quote}")

    async def accounts(self) -> list[Any]:
        async with self.database.connect() as connection:
            return list((await connection.execute(sa.select(user).order_by(user.c.Id))).all())


@pytest.fixture
async def old(database_url: str, database_kind: str) -> AsyncIterator[Old]:
    database = await Database.open(database_url)
    try:
        yield Old(database, database_kind)
    finally:
        await database.close()


async def assert_schema_is_current(old: Old, *, apart_from: tuple[str, ...] = ()) -> None:
    def include(_object: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
        return not (name in apart_from and kind in ("table", "column"))

    def compare(connection: sa.Connection) -> list[Any]:
        options = {"compare_type": True, "compare_server_default": True, "include_object": include}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    async with old.database.connect() as connection:
        assert await connection.run_sync(compare) == []
    assert (await migrations.status(old.database)).is_current


def redemption(number: int, account: str) -> str:
    return f"INSERT INTO user_token VALUES ({number}, '{account}')"  # noqa: S608 - constants of this file


def charsets(kind: str) -> list[str]:
    return ["", " DEFAULT CHARSET=utf8mb3", " DEFAULT CHARSET=latin1"] if kind in ("mariadb", "mysql") else [""]


class TestAdoption:
    @pytest.mark.parametrize("variant", [SEED, ORIGINAL], ids=["seed", "original"])
    @pytest.mark.parametrize("has_redemptions", [False, True], ids=["alone", "referenced"])
    async def test_nothing_is_lost(self, old: Old, variant: str, has_redemptions: bool) -> None:
        for charset in charsets(old.kind):
            await old.create(variant, charset)
            await old.fill(ROWS)
            if has_redemptions:
                if variant == SEED and old.kind == "postgresql":
                    await old.create(REDEMPTIONS.replace("{q}", ""))
                else:
                    await old.create(REDEMPTIONS, charset)
                await old.run(redemption(1, "a" * 32))
            assert (await migrations.status(old.database)).is_foreign

            report = await migrations.upgrade(old.database)

            found = await old.accounts()
            assert [(row.Id, row.UserName, row.PassWord, row.Email) for row in found] == [
                (row["Id"], row["UserName"], row["PassWord"], row["Email"]) for row in ROWS
            ]
            assert [row.Tokens for row in found] == [500, 0, 0]
            assert [row.PicTimes for row in found] == [7, 0, 0]
            assert [row.NameKey for row in found] == ["alice", "josé", "carol"]
            assert [row.Academy for row in found] == [None] * 3
            assert len({row.AccountId for row in found}) == 3
            assert all(0 < row.AccountId < 1 << 53 for row in found)
            assert tuple(note.text(Language.EN) for note in report.notes) == (
                "Tokens balances set to 0 that were negative: 1 (in all -350)",
                "Tokens balances set to 0 that were not set: 1",
                "PicTimes balances set to 0 that were not set: 1",
                "accounts adopted: 3",
                "books opened for accounts with a balance: 1",
            )
            assert [difference async for difference in verify(old.database)] == []
            # On MySQL a column that others refer to keeps its character set, on purpose: changing one side only would
            # break the reference.
            kept = ("Id",) if has_redemptions and old.database.dialect == "mysql" else ()
            await assert_schema_is_current(old, apart_from=("user_token", *kept))
            if has_redemptions:
                await self.assert_reference_holds(old)
                await old.run("DROP TABLE user_token")
            await old.forget()

    async def assert_reference_holds(self, old: Old) -> None:
        async with old.database.connect() as connection:
            keys = await connection.run_sync(lambda sync: sa.inspect(sync).get_foreign_keys("user_token"))
        assert [(key["referred_table"], key["constrained_columns"]) for key in keys] == [("user", ["user_id"])]
        await old.run(redemption(2, "b" * 32))
        with pytest.raises(ConstraintViolation):
            await old.run(redemption(3, "nobody"))
        with pytest.raises(ConstraintViolation):
            async with old.database.begin() as connection:
                await connection.execute(user.delete().where(user.c.Id == "a" * 32))

    async def test_every_text_can_be_written_afterwards(self, old: Old) -> None:
        for charset in charsets(old.kind):
            await old.create(SEED, charset)
            await old.fill(ROWS)
            await migrations.upgrade(old.database)
            async with old.database.begin() as connection:
                await connection.execute(
                    user.update()
                    .where(user.c.Id == "a" * 32)
                    .values(
                        UserName="王𠮷" * 50, NameKey="王𠮷" * 100, PassWord="p" * 255, Email="e" * 254, Tokens=1 << 52
                    )
                )
            assert (await old.accounts())[0].UserName == "王𠮷" * 50
            await old.forget()

    async def test_other_tables_are_left_alone(self, old: Old) -> None:
        await old.create(ORIGINAL)
        await old.run("CREATE TABLE admin (Id INTEGER PRIMARY KEY, Auth INTEGER, Admin VARCHAR(50))")
        await old.run("INSERT INTO admin VALUES (1, 1, 'root')")
        await migrations.upgrade(old.database)
        async with old.database.connect() as connection:
            assert (await connection.execute(sa.text("SELECT * FROM admin"))).all() == [(1, 1, "root")]

    async def test_columns_that_somebody_added_stay(self, old: Old) -> None:
        await old.create(SEED)
        await old.fill(ROWS)
        await old.run(f"ALTER TABLE {old.quote}user{old.quote} ADD COLUMN remark VARCHAR(20) DEFAULT 'none'")
        await migrations.upgrade(old.database)
        async with old.database.begin() as connection:
            await connection.execute(
                user.insert(),
                {"Id": "n", "UserName": "n", "PassWord": "", "Email": "", "AccountId": 1, "NameKey": "n"},
            )
        async with old.database.connect() as connection:
            table = sa.table("user", sa.column("remark"))
            assert (await connection.scalars(sa.select(table.c.remark))).all() == ["none"] * 4
        await assert_schema_is_current(old, apart_from=("remark",))

    async def test_many_rows_get_numbers_of_their_own(self, old: Old) -> None:
        count = 1203  # two whole batches and a rest
        await old.create(SEED)
        await old.fill(
            [
                {"Id": f"{n:032x}", "UserName": f"User{n}", "PassWord": MD5, "Tokens": n, "Email": "", "PicTimes": 0}
                for n in range(count)
            ]
        )
        await migrations.upgrade(old.database)
        found = await old.accounts()
        assert [row.Tokens for row in found] == list(range(count))
        assert [row.NameKey for row in found] == [f"user{n}" for n in range(count)]
        assert len({row.AccountId for row in found}) == count


class TestWhatBlocks:
    """Each is found before anything is changed."""

    async def test_names_that_are_one(self, old: Old) -> None:
        await old.create(SEED, charsets(old.kind)[-1].replace("latin1", "utf8mb4"))
        names = ["Ann", "ＡＮＮ", "bob", "Bob ", "BOB", "eve"]
        await old.fill([{**ROWS[0], "Id": f"id-{number}", "UserName": name} for number, name in enumerate(names)])
        message = await self.blocked(old)
        assert "2 names are borne by more than one account (5 rows)" in message
        assert all(repr(name) in message for name in names[:5])
        assert "eve" not in message
        assert "id-" not in message

    async def test_a_table_of_somebody_else(self, old: Old) -> None:
        await old.run(f"CREATE TABLE {old.quote}user{old.quote} (Id INTEGER PRIMARY KEY, UserName VARCHAR(20))")
        assert "it has no PassWord, Email" in await self.blocked(old)

    async def test_a_column_that_we_could_not_fill(self, old: Old) -> None:
        await old.create(SEED.replace("PicTimes", "phone VARCHAR(20) NOT NULL, PicTimes"))
        assert "column phone" in await self.blocked(old)

    async def test_values_too_long_for_their_column(self, old: Old) -> None:
        await old.create(SEED.replace("UserName VARCHAR(50)", "UserName VARCHAR(300)"))
        await old.fill([{**ROWS[0], "UserName": "n" * 101}])
        assert "UserName is longer than 100 characters in 1 rows" in await self.blocked(old)

    async def blocked(self, old: Old) -> str:
        before = await old.dump()
        with pytest.raises(MigrationBlocked) as caught:
            await migrations.upgrade(old.database)
        assert await old.dump() == before
        assert (await migrations.status(old.database)).is_foreign
        return format_error(caught.value, Language.EN)


class TestBrokenOff:
    @pytest.mark.parametrize("has_table", [True, False], ids=["adopted", "fresh"])
    async def test_an_upgrade_broken_off_anywhere_can_be_repeated(self, old: Old, has_table: bool) -> None:
        numbers = 0
        while True:
            if has_table:
                await old.create(SEED)
                await old.fill(ROWS)
            with power_cut_before(numbers + 1) as has_happened:
                try:
                    await migrations.upgrade(old.database)
                except PowerCut:
                    assert has_happened()
            if not has_happened():
                break
            numbers += between_cuts(old.database.dialect)
            assert not (await migrations.status(old.database)).is_current
            await migrations.upgrade(old.database)
            found = await old.accounts()
            if has_table:
                assert [(row.Id, row.Tokens, row.NameKey) for row in found] == [
                    ("a" * 32, 500, "alice"),
                    ("b" * 32, 0, "josé"),
                    ("c" * 32, 0, "carol"),
                ]
            await assert_schema_is_current(old)
            assert [difference async for difference in verify(old.database)] == []
            await old.forget()
        assert numbers >= (6 if has_table else 3)  # else nothing was tried
