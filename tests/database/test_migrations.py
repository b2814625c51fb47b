"""Migrations on an empty database, on all four: what they build, and that many may try at once."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import CheckViolation, UniqueViolation
from aiproject.adapters.db.schema import metadata, name_key, new_account_id, user
from aiproject.assembly import prepare_schema
from aiproject.errors import Misconfigured
from services import Server

NOW = datetime(2026, 3, 1, 12, 30, 45, 123456, tzinfo=UTC)


def account(name: str, **columns: Any) -> dict[str, Any]:
    return {
        "Id": f"id-of-{name}",
        "UserName": name,
        "PassWord": "x",
        "Email": "a@example.org",
        "AccountId": new_account_id(NOW),
        "NameKey": name_key(name),
        **columns,
    }


async def differences(database: Database) -> list[Any]:
    def compare(connection: sa.Connection) -> list[Any]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    async with database.connect() as connection:
        return await connection.run_sync(compare)


async def tables(database: Database) -> list[Any]:
    """Every table as the database tells it, and every row."""

    def look(connection: sa.Connection) -> list[Any]:
        inspector = sa.inspect(connection)
        found: list[Any] = []
        for name in sorted(inspector.get_table_names()):
            # The collation says which character set it is; MySQL names that too, if the statement did.
            columns: list[dict[str, Any]] = [
                {**column, "type": re.sub("charset='.*?', ", "", repr(column["type"]))}
                for column in inspector.get_columns(name)
            ]
            rules: list[Any] = [
                *inspector.get_foreign_keys(name),
                *inspector.get_indexes(name),
                *inspector.get_unique_constraints(name),
                *inspector.get_check_constraints(name),
            ]
            rows = connection.execute(sa.table(name, *(sa.column(c["name"]) for c in columns)).select()).all()
            primary, options = inspector.get_pk_constraint(name), inspector.get_table_options(name)
            found.append((name, columns, primary, sorted(map(repr, rules)), options, rows))
        return found

    async with database.connect() as connection:
        return await connection.run_sync(look)


class TestUpgrade:
    async def test_all_migrations_give_the_schema(self, database_url: str) -> None:
        database = await Database.open(database_url)
        try:
            await migrations.upgrade(database)
            assert await differences(database) == []
        finally:
            await database.close()

    async def test_the_databases_of_all_other_tests_are_true_copies(
        self, database: Database, database_kind: str, request: pytest.FixtureRequest, tmp_path: Path
    ) -> None:
        """The fixture `database` gives copies of one that our migrations made."""
        server: Server | None = None
        if database_kind == "sqlite":
            url = f"sqlite:///{tmp_path / 'other.db'}"
        else:
            server = request.getfixturevalue(f"{database_kind}_server")
            assert server is not None
            name = server.create_database()
            url = server.url(name)
        other = await Database.open(url)
        try:
            await migrations.upgrade(other)
            for copy, original in zip(await tables(database), await tables(other), strict=True):
                assert copy == original
            assert (await migrations.status(database)).is_current
            assert await differences(database) == []
        finally:
            await other.close()
            if server is not None:
                server.drop_database(name)

    async def test_the_report_says_from_where_to_where(self, database_url: str) -> None:
        database = await Database.open(database_url)
        try:
            before = await migrations.status(database)
            report = await migrations.upgrade(database)
            after = await migrations.status(database)
            again = await migrations.upgrade(database)
        finally:
            await database.close()
        assert (before.current, before.is_empty, before.is_foreign, before.is_current) == (None, True, False, False)
        assert (report.from_revision, report.to_revision) == (None, before.head)
        assert report.notes
        assert (after.current, after.is_empty, after.is_foreign, after.is_current) == (before.head, False, False, True)
        assert (again.from_revision, again.notes) == (before.head, ())

    async def test_upgrades_at_once_give_one_schema(self, database_url: str) -> None:
        """Three nodes start together: each has an engine of its own, one of them does the work."""
        nodes = [await Database.open(database_url) for _ in range(3)]
        try:
            # Alembic's own turn-taking is per loop, so real contention needs a loop for each.
            reports = await asyncio.gather(
                *(asyncio.to_thread(lambda url: asyncio.run(upgrade_once(url)), database_url) for _ in nodes)
            )
            assert await differences(nodes[0]) == []
        finally:
            for node in nodes:
                await node.close()
        assert sorted(len(report.notes) for report in reports) == [0, 0, 1]

    async def test_a_start_waits_for_the_upgrade_of_another(self, database_url: str) -> None:
        """MySQL shows each step: a second worker must not take a half built schema for one of an earlier release."""
        database = await Database.open(database_url)
        try:
            async with database.maintenance() as connection, migrations._exclusive(connection, database):
                await connection.run_sync(lambda inner: command.upgrade(migrations.alembic_config(inner), "0002"))
                start = asyncio.create_task(prepare_schema(database))
                done, _ = await asyncio.wait([start], timeout=0.5)
                assert not done, "it did not wait"
                await connection.run_sync(lambda inner: command.upgrade(migrations.alembic_config(inner), "head"))
            async with asyncio.timeout(30):
                await start
            assert (await migrations.status(database)).is_current
        finally:
            await database.close()

    async def test_a_start_does_not_upgrade_somebody_s_database(self, database_url: str) -> None:
        database = await Database.open(database_url)
        try:
            async with database.maintenance() as connection, migrations._exclusive(connection, database):
                await connection.run_sync(lambda inner: command.upgrade(migrations.alembic_config(inner), "0002"))
            if database.dialect == "sqlite":
                await prepare_schema(database)
                assert (await migrations.status(database)).is_current
            else:
                with pytest.raises(Misconfigured, match="SCHEMA_OLDER found='0002'"):
                    await prepare_schema(database)
                assert (await migrations.status(database)).current == "0002"
        finally:
            await database.close()

    async def test_a_later_release_s_database_is_refused(self, database: Database) -> None:
        async with database.begin() as connection:
            await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        assert (await migrations.status(database)).is_newer
        with pytest.raises(Misconfigured, match="SCHEMA_NEWER"):
            await migrations.upgrade(database)


async def upgrade_once(url: str) -> migrations.UpgradeReport:
    database = await Database.open(url)
    try:
        return await migrations.upgrade(database)
    finally:
        await database.close()


class TestTheUserTable:
    async def test_a_row_comes_back_as_it_went_in(self, database: Database) -> None:
        row = account("王小明 𠮷", Tokens=1 << 52, PicTimes=3, Academy=None, VoiceMs=60_000, CreatedAt=NOW)
        async with database.begin() as connection:
            await connection.execute(user.insert(), row)
        async with database.connect() as connection:
            found = (await connection.execute(sa.select(user))).one()._asdict()
        held = dict.fromkeys(("HeldTokens", "HeldPicTimes", "HeldVoiceMs"), 0)
        never = dict.fromkeys(("DisabledAt", "EmailVerifiedAt", "PasswordChangedAt", "DeletedAt"))
        assert found == {**row, "VoiceUsedMs": 0, **never, **held, "LedgerSeq": 0, "LedgerHash": ""}

    async def test_balances_start_at_zero(self, database: Database) -> None:
        async with database.begin() as connection:
            await connection.execute(user.insert(), account("alice"))
        async with database.connect() as connection:
            row = (await connection.execute(sa.select(user))).one()
        assert (row.Tokens, row.PicTimes, row.VoiceMs, row.VoiceUsedMs) == (0, 0, None, 0)

    @pytest.mark.parametrize(
        ("column", "constraint"),
        [("Tokens", "ck_user_tokens"), ("PicTimes", "ck_user_pic_times"), ("VoiceMs", "ck_user_voice_ms")],
    )
    async def test_no_balance_goes_below_zero(self, database: Database, column: str, constraint: str) -> None:
        with pytest.raises(CheckViolation) as caught:
            async with database.begin() as connection:
                await connection.execute(user.insert(), account("alice", **{column: -1}))
        assert caught.value.constraint == constraint

    async def test_violated_uniqueness_is_named_and_quotes_nothing(self, database: Database) -> None:
        first = account("alice' for key 'x")
        changes: list[tuple[dict[str, Any], str]] = [
            ({"Id": "other", "AccountId": 1}, "uq_user_name_key"),
            ({"Id": "other", "NameKey": "other"}, "uq_user_account_id"),
            ({"AccountId": 1, "NameKey": "other"}, "PRIMARY"),
        ]
        for change, constraint in changes:
            async with database.begin() as connection:
                await connection.execute(user.delete())
                await connection.execute(user.insert(), first)
            with pytest.raises(UniqueViolation) as caught:
                async with database.begin() as connection:
                    await connection.execute(user.insert(), {**first, **change})
            assert caught.value.constraint == constraint
            assert caught.value.__cause__ is None
            assert "alice" not in str(caught.value)

    async def test_name_keys_are_compared_by_code_point(self, database: Database) -> None:
        """What MySQL's collations take for one, and PostgreSQL's sort elsewhere."""
        names = ["e", "é", "z", "ä", "ss", "王"]
        async with database.begin() as connection:
            await connection.execute(
                user.insert(), [account(name, AccountId=number) for number, name in enumerate(names)]
            )
        async with database.connect() as connection:
            found = (await connection.scalars(sa.select(user.c.NameKey).order_by(user.c.NameKey))).all()
        assert found == sorted(names)
