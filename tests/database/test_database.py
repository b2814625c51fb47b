"""The border to the database: transactions, their limits, and what becomes of faults."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import uvloop

from aiproject.adapters.db.engine import Connection, Database
from aiproject.adapters.db.errors import CommitInDoubt, StatementFailed, TransientConflict
from aiproject.errors import Misconfigured, Unavailable
from services import MariaDB, MySQL, PostgreSQL, Server, free_port

COUNTERS = sa.Table(
    "counters", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.BigInteger)
)


@pytest.fixture
async def counters(database_url: str) -> AsyncIterator[Database]:
    """A database with two counters at 0."""
    database = await Database.open(database_url, pool_size=4)
    try:
        async with database.begin() as connection:
            await connection.run_sync(COUNTERS.metadata.create_all)
            await connection.execute(COUNTERS.insert(), [{"id": 1, "n": 0}, {"id": 2, "n": 0}])
        yield database
    finally:
        await database.close()


async def count(database: Database, number: int = 1) -> int:
    async with database.connect() as connection:
        return int(await connection.scalar(sa.select(COUNTERS.c.n).where(COUNTERS.c.id == number)) or 0)


async def increase(database: Database, number: int = 1) -> None:
    async with database.begin() as connection:
        await connection.execute(COUNTERS.update().where(COUNTERS.c.id == number).values(n=COUNTERS.c.n + 1))


async def add_to(connection: Connection, number: int, amount: int) -> int:
    """Add to a counter; return its new value."""
    await connection.execute(COUNTERS.update().where(COUNTERS.c.id == number).values(n=COUNTERS.c.n + amount))
    return int(await connection.scalar(sa.select(COUNTERS.c.n).where(COUNTERS.c.id == number)) or 0)


class TestTransactions:
    async def test_a_block_that_ends_is_committed(self, counters: Database) -> None:
        await increase(counters)
        assert await count(counters) == 1

    async def test_a_block_that_raises_leaves_nothing(self, counters: Database) -> None:
        async def fail() -> None:
            async with counters.begin() as connection:
                await connection.execute(COUNTERS.update().values(n=9))
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        assert await count(counters) == 0

    async def test_what_a_reader_writes_is_not_kept(self, counters: Database) -> None:
        async with counters.connect() as connection:
            await connection.execute(COUNTERS.update().values(n=9))
        assert await count(counters) == 0

    async def test_a_savepoint_undoes_its_part_only(self, counters: Database) -> None:
        async with counters.begin() as connection:
            await connection.execute(COUNTERS.update().values(n=1))
            inner = await connection.begin_nested()
            await connection.execute(COUNTERS.update().values(n=2))
            await inner.rollback()
        assert await count(counters) == 1

    async def test_many_writers_lose_no_update(self, counters: Database) -> None:
        """More writers than connections, reading before they write."""

        async def add(connection: Connection) -> None:
            row = sa.select(COUNTERS.c.n).where(COUNTERS.c.id == 1).with_for_update()
            found = int(await connection.scalar(row) or 0)
            await connection.execute(COUNTERS.update().where(COUNTERS.c.id == 1).values(n=found + 1))

        await asyncio.gather(*(counters.transact(add) for _ in range(40)))
        assert await count(counters) == 40

    async def test_writers_in_two_pools_lose_no_update(self, counters: Database, database_url: str) -> None:
        """As two processes would: SQLite's own lock decides, not our queue."""
        other = await Database.open(database_url, pool_size=2)
        try:
            await asyncio.gather(*(each.transact(add_to, 1, 1) for _ in range(10) for each in (counters, other)))
        finally:
            await other.close()
        assert await count(counters) == 20

    async def test_a_deadlock_is_a_transient_conflict(self, counters: Database) -> None:
        if counters.dialect == "sqlite":
            pytest.skip("SQLite has one writer; nothing to lock crosswise")
        meeting = asyncio.Barrier(2)
        outcomes: list[str] = []

        async def crosswise(first: int, second: int) -> None:
            try:
                async with counters.begin() as connection:
                    await connection.execute(COUNTERS.update().where(COUNTERS.c.id == first).values(n=1))
                    await meeting.wait()
                    await connection.execute(COUNTERS.update().where(COUNTERS.c.id == second).values(n=1))
                outcomes.append("done")
            except TransientConflict:
                outcomes.append("conflict")

        await asyncio.gather(crosswise(1, 2), crosswise(2, 1))
        assert sorted(outcomes) == ["conflict", "done"]

    async def test_a_block_within_a_block_on_sqlite_ends(self, counters: Database) -> None:
        """A mistake in the code, but it must not hang for ever."""
        if counters.dialect != "sqlite":
            pytest.skip("only SQLite's writers wait for each other")
        with pytest.raises(Unavailable):
            async with counters.begin(seconds=0.2), counters.begin():
                pytest.fail("two writers at once")
        await increase(counters)

    async def test_a_cancelled_block_leaves_a_usable_database(self, counters: Database) -> None:
        sleep = {"sqlite": None, "mysql": "SELECT SLEEP(20)", "postgresql": "SELECT pg_sleep(20)"}[counters.dialect]

        async def hang() -> None:
            async with counters.begin() as connection:
                await connection.execute(COUNTERS.update().values(n=9))
                if sleep is None:
                    await asyncio.sleep(20)
                else:
                    await connection.execute(sa.text(sleep))

        for _ in range(5):  # more often than there are connections
            task = asyncio.create_task(hang())
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await increase(counters)
        assert await count(counters) == 1

    async def test_a_block_over_its_time_is_cut(self, counters: Database) -> None:
        async def hang() -> None:
            async with counters.begin(seconds=0.1) as connection:
                await connection.execute(COUNTERS.update().values(n=9))
                await asyncio.sleep(20)

        with pytest.raises(Unavailable, match=r"within 0\.1 s"):
            await hang()
        assert await count(counters) == 0

    async def test_a_full_pool_says_so(self, counters: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aiproject.adapters.db.engine.QUEUE_SECONDS", 0.1)
        small = await Database.open(counters._url.render_as_string(hide_password=False), pool_size=1)
        try:
            async with small.connect() as connection:
                await connection.execute(sa.select(1))
                with pytest.raises(Unavailable, match="no free database connection"):
                    await small.ping()
        finally:
            await small.close()


class TestTransact:
    async def test_commits_and_returns_what_the_function_returns(self, counters: Database) -> None:
        assert await counters.transact(add_to, 2, amount=5) == 5
        assert await count(counters, 2) == 5

    async def test_a_function_that_raises_leaves_nothing_and_is_not_called_again(self, counters: Database) -> None:
        calls = 0

        async def fail(connection: Connection) -> None:
            nonlocal calls
            calls += 1
            await add_to(connection, 1, 1)
            raise KeyError

        with pytest.raises(KeyError):
            await counters.transact(fail)
        assert (calls, await count(counters)) == (1, 0)

    async def test_a_conflict_repeats_the_whole_transaction(self, counters: Database) -> None:
        """What the attempts before have written is rolled back; only the last one counts."""
        values: list[int] = []

        async def third_time(connection: Connection) -> str:
            values.append(await add_to(connection, 1, 1))
            if len(values) < 3:
                raise TransientConflict("made up")
            return "done"

        assert await counters.transact(third_time) == "done"
        assert values == [1, 1, 1]
        assert await count(counters) == 1

    async def test_both_of_a_deadlock_end_well(self, counters: Database) -> None:
        if counters.dialect == "sqlite":
            pytest.skip("SQLite has one writer; nothing to lock crosswise")
        meeting = asyncio.Barrier(2)
        attempts = 0

        async def crosswise(connection: Connection, first: int, second: int) -> None:
            nonlocal attempts
            attempts += 1
            await add_to(connection, first, 1)
            if attempts <= 2:
                await meeting.wait()
            await add_to(connection, second, 1)

        await asyncio.gather(counters.transact(crosswise, 1, 2), counters.transact(crosswise, 2, 1))
        assert attempts > 2, "there was no deadlock"
        assert (await count(counters, 1), await count(counters, 2)) == (2, 2)

    async def test_a_serialization_failure_is_tried_again(self, counters: Database) -> None:
        if counters.dialect != "postgresql":
            pytest.skip("only PostgreSQL refuses to serialize here; the others lock")
        attempts = 0

        async def read_then_write(connection: Connection) -> int:
            nonlocal attempts
            attempts += 1
            await connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            found = int(await connection.scalar(sa.select(COUNTERS.c.n).where(COUNTERS.c.id == 1)) or 0)
            if attempts == 1:
                await increase(counters)
            await connection.execute(COUNTERS.update().where(COUNTERS.c.id == 1).values(n=found + 10))
            return found + 10

        assert await counters.transact(read_then_write) == 11
        assert attempts == 2
        assert await count(counters) == 11

    async def test_a_conflict_at_the_commit_is_tried_again(
        self, counters: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where a block with a ``return`` would have reported the value of a transaction that was rolled back."""
        commits = 0
        commit = Connection.commit

        async def refuse_once(connection: Connection) -> None:
            nonlocal commits
            commits += 1
            if commits == 1:
                raise TransientConflict("refused at the commit, as Galera does")
            await commit(connection)

        monkeypatch.setattr(Connection, "commit", refuse_once)
        assert await counters.transact(add_to, 1, 1) == 1
        assert (commits, await count(counters)) == (2, 1)

    async def test_a_commit_in_doubt_is_not_tried_again(
        self, counters: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commits = 0
        commit = Connection.commit

        async def lose(connection: Connection) -> None:
            nonlocal commits
            commits += 1
            await commit(connection)
            raise Unavailable("connection lost")

        monkeypatch.setattr(Connection, "commit", lose)
        with pytest.raises(CommitInDoubt):
            await counters.transact(add_to, 1, 1)
        assert (commits, await count(counters)) == (1, 1)

    async def test_a_writer_that_stays_is_waited_for_less_than_ten_seconds(self, counters: Database) -> None:
        """One wait takes 5 s; a second one would end after the limit, so there is none."""
        if counters.dialect != "sqlite":
            pytest.skip("only SQLite's writers wait for each other")
        began = time.monotonic()
        async with counters.writers_turn():
            with pytest.raises(TransientConflict):
                await counters.transact(add_to, 1, 1)
        assert 5 <= time.monotonic() - began < 10

    async def test_a_snapshot_is_read_again_after_a_conflict(self, counters: Database) -> None:
        attempts = 0

        async def second_time(connection: Connection) -> int:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                await increase(counters)
                raise TransientConflict("made up")
            return int(await connection.scalar(sa.select(COUNTERS.c.n).where(COUNTERS.c.id == 1)) or 0)

        assert await counters.read_snapshot(second_time) == 1
        assert attempts == 2


class TestFaults:
    async def test_a_bug_is_told_without_values(self, counters: Database) -> None:
        with pytest.raises(StatementFailed, match="missing_table") as caught:
            async with counters.begin() as connection:
                await connection.execute(sa.text("SELECT * FROM missing_table WHERE a = :a"), {"a": "secret"})
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None

    async def test_the_servers_speak_utc(self, counters: Database) -> None:
        query = {
            "sqlite": "SELECT 0",
            "mysql": "SELECT TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), NOW())",
            "postgresql": "SELECT extract(timezone FROM now())",
        }[counters.dialect]
        async with counters.connect() as connection:
            assert int(await connection.scalar(sa.text(query)) or 0) == 0

    async def test_nobody_at_the_port(self) -> None:
        for scheme in ("mysql", "postgresql"):
            database = await Database.open(f"{scheme}://name:s3cret@127.0.0.1:{free_port()}/db")
            try:
                with pytest.raises(Unavailable) as caught:
                    await database.ping()
            finally:
                await database.close()
            assert "s3cret" not in str(caught.value)
            assert "s3cret" not in repr(database)

    async def test_a_wrong_password_or_database(self, database_url: str, database_kind: str) -> None:
        if database_kind == "sqlite":
            pytest.skip("SQLite asks for none")
        url, _, name = database_url.rpartition("/")
        server = url.rpartition("@")[2]
        for wrong in (f"{database_kind}://aiproject:s3cret@{server}/{name}", f"{url}/no_such_database"):
            database = await Database.open(wrong)
            try:
                with pytest.raises(Misconfigured) as caught:
                    await database.ping()
            finally:
                await database.close()
            assert "s3cret" not in str(caught.value)

    async def test_by_unix_socket(self, database_kind: str, request: pytest.FixtureRequest) -> None:
        if database_kind == "sqlite":
            pytest.skip("a file has no socket")
        server: Server = request.getfixturevalue(f"{database_kind}_server")
        name = server.create_database()
        database = await Database.open(server.socket_url(name))
        try:
            await database.ping()
        finally:
            await database.close()
            server.drop_database(name)

    def test_on_uvloop(self, database_url: str) -> None:
        """The loop that the server runs on."""

        async def use() -> None:
            database = await Database.open(database_url)
            try:
                for _ in range(3):
                    async with database.begin() as connection:
                        await connection.execute(sa.select(sa.literal("文" * 10_000)))
            finally:
                await database.close()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(use())


class TestOutage:
    """On servers of the tests' own, which may be killed."""

    @pytest.fixture(params=[MariaDB, MySQL, PostgreSQL], ids=lambda kind: kind.name)
    def server(self, request: pytest.FixtureRequest) -> Iterator[Server]:
        kind: type[Server] = request.param
        request.getfixturevalue(f"{kind.name}_server")  # skips, loudly, where there is none
        server = kind()
        try:
            server.start()
            yield server
        finally:
            server.remove()

    async def test_an_outage_is_told_and_passes(self, server: Server) -> None:
        """The first login after the start is the full one: MySQL has no password cached."""
        database = await Database.open(server.url(server.create_database()), pool_size=2)
        try:
            async with database.begin() as connection:
                await connection.run_sync(COUNTERS.metadata.create_all)
                await connection.execute(COUNTERS.insert(), [{"id": 1, "n": 0}])

            with pytest.raises(Unavailable) as caught:
                await self.kill_within(database, server, is_at_the_end=False)
            assert not isinstance(caught.value, CommitInDoubt)
            with pytest.raises(Unavailable):
                await database.ping()

            server.start()
            assert await count(database) == 0

            with pytest.raises(CommitInDoubt):
                await self.kill_within(database, server, is_at_the_end=True)

            server.start()
            await increase(database)
            assert await count(database) == 1
        finally:
            await database.close()

    async def kill_within(self, database: Database, server: Server, *, is_at_the_end: bool) -> None:
        async with database.begin() as connection:
            await connection.execute(COUNTERS.update().values(n=9))
            server.kill()
            if not is_at_the_end:
                await connection.execute(COUNTERS.update().values(n=10))

    async def test_a_server_that_hangs_is_given_up(self, server: Server) -> None:
        """As behind a cable that was pulled: the connection stands, but nothing comes."""
        database = await Database.open(server.url(server.create_database()), pool_size=2)
        try:
            await database.ping()
            server.pause()
            try:
                started = asyncio.get_running_loop().time()
                with pytest.raises(Unavailable):
                    async with database.begin(seconds=0.5) as connection:
                        await connection.execute(sa.text("SELECT 1"))
                assert asyncio.get_running_loop().time() - started < 8
            finally:
                server.resume()
            await database.ping()
        finally:
            await database.close()


class TestSqliteFile:
    async def test_is_for_our_eyes_only_and_logs_ahead(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "data" / "a.db"
        database = await Database.open(f"sqlite:///{path}")
        try:
            async with database.begin() as connection:
                await connection.execute(sa.text("CREATE TABLE t (a INTEGER)"))
                settings = [
                    await connection.scalar(sa.text(f"PRAGMA {name}"))
                    for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
                ]
            modes = [stat.S_IMODE(p.stat().st_mode) for p in (path.parent, path, Path(f"{path}-wal"))]
        finally:
            await database.close()
        assert settings == ["wal", 2, 1, 5_000]
        assert modes == [0o700, 0o600, 0o600]

    async def test_a_directory_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(Misconfigured, match="SQLITE_FILE_UNUSABLE"):
            await Database.open(f"sqlite:///{tmp_path}/file/a.db")

    async def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "a.db").write_bytes(b"a letter to somebody, certainly longer than SQLite's header is" * 20)
        with pytest.raises(Misconfigured, match="SQLITE_FILE_NOT_DATABASE"):
            await Database.open(f"sqlite:///{tmp_path}/a.db")

    async def test_a_lock_of_another_program_is_a_conflict(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("aiproject.adapters.db.sqlite.QUEUE_SECONDS", 0.2)
        database = await Database.open(f"sqlite:///{tmp_path}/a.db")
        other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(TransientConflict):
                async with database.begin():
                    pytest.fail("two writers at once")
            async with database.connect() as connection:  # readers do not mind
                await connection.execute(sa.text("SELECT * FROM sqlite_master"))
        finally:
            other.close()
            await database.close()
