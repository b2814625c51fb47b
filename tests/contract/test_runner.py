"""The writer's own transactions on each database: whole or not at all, and its connection is fit for the next one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa

from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import StatementFailed, TransientConflict, UniqueViolation
from aiproject.adapters.db.runner import Rows, Statement, Steps, Writer, open_writer, take_steps
from aiproject.adapters.db.schema import operator_loss
from aiproject.ledger.sql import insert_rows, select_rows, update_rows

COLUMNS = ("request_id", "attempt", "account_id", "capability", "amount", "reason", "created_at")
KEY = ("request_id", "attempt")


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    opened = open_writer(database)
    yield opened
    await opened.close()


class Losses:
    """Steps on a table that has a key of two columns, words and numbers."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.dialect = database.dialect

    def add(self, *names: str, amount: int = 1) -> Steps[int]:
        rows = [(name, 1, 7, "tokens", amount, "it's 100% \\ ' \"", 5) for name in names]
        yield insert_rows(self.dialect, operator_loss, COLUMNS, rows)
        return len(rows)

    def change(self, amounts: dict[str, int], where: tuple[str, str] | None = None) -> Steps[None]:
        rows = [(amount, name, 1) for name, amount in amounts.items()]
        yield update_rows(self.dialect, operator_loss, KEY, ("amount",), rows, where=where)

    def read(self, *names: str) -> Steps[Rows]:
        keys = [(name, 1) for name in sorted(names)]
        rows = yield select_rows(self.dialect, operator_loss, ("request_id", "amount"), KEY, keys, is_locked=True)
        return rows

    async def all(self) -> dict[str, int]:
        async with self.database.connect() as connection:
            rows = await connection.execute(sa.select(operator_loss.c.request_id, operator_loss.c.amount))
            return {row[0]: row[1] for row in rows}


@pytest.fixture
def losses(database: Database) -> Losses:
    return Losses(database)


class TestStatements:
    async def test_rows_go_in_and_come_back(self, writer: Writer, losses: Losses) -> None:
        assert await writer.run(lambda: losses.add("a", "b", "é", "e", "E")) == 5
        rows = await writer.run(lambda: losses.read("a", "é", "unknown"))
        assert sorted((row[0], row[1]) for row in rows) == [("a", 1), ("é", 1)]

    async def test_the_clock_stands_behind_the_columns(self, writer: Writer, losses: Losses) -> None:
        await writer.run(lambda: losses.add("a"))
        rows = await writer.run(lambda: losses.read("a"))
        assert 1_700_000_000_000 < rows[0][2] < 5_000_000_000_000

    @pytest.mark.parametrize("names", [["a"], ["a", "b", "é"]])
    async def test_rows_are_changed_by_their_whole_key(self, writer: Writer, losses: Losses, names: list[str]) -> None:
        await writer.run(lambda: losses.add("a", "A", "b", "é", "e"))
        await writer.run(lambda: losses.change({name: 10 + number for number, name in enumerate(names)}))
        expected = dict.fromkeys(["a", "A", "b", "é", "e"], 1) | {name: 10 + n for n, name in enumerate(names)}
        assert await losses.all() == expected

    @pytest.mark.parametrize("names", [["a"], ["a", "b"]])
    async def test_and_only_where_they_are_as_told(self, writer: Writer, losses: Losses, names: list[str]) -> None:
        await writer.run(lambda: losses.add("a", "b"))
        amounts = dict.fromkeys(names, 9)
        await writer.run(lambda: losses.change(amounts, where=("capability", "pic_times")))
        assert await losses.all() == {"a": 1, "b": 1}
        await writer.run(lambda: losses.change(amounts, where=("capability", "tokens")))
        assert await losses.all() == {"a": 1, "b": 1} | amounts

    async def test_sqlalchemy_s_connection_takes_the_same_steps(self, database: Database, losses: Losses) -> None:
        async with database.begin() as connection:
            assert await take_steps(connection, losses.add("a", "b", "c")) == 3
            await take_steps(connection, losses.change({"a": 5, "b": 6}))
            await take_steps(connection, losses.change({"c": 7}))
            rows = await take_steps(connection, losses.read("a", "b", "c"))
        assert sorted((row[0], row[1]) for row in rows) == [("a", 5), ("b", 6), ("c", 7)]


class TestTransactions:
    async def test_what_the_steps_raise_undoes_them(self, writer: Writer, losses: Losses) -> None:
        def stumble() -> Steps[None]:
            yield from losses.add("a")
            raise LookupError("a mistake of ours")

        with pytest.raises(LookupError):
            await writer.run(stumble)
        assert await losses.all() == {}
        await writer.run(lambda: losses.add("a"))

    async def test_a_violation_is_named_and_quotes_nothing(self, writer: Writer, losses: Losses) -> None:
        await writer.run(lambda: losses.add("a secret"))

        def twice() -> Steps[None]:
            yield from losses.add("b")
            yield from losses.add("a secret")

        with pytest.raises(UniqueViolation) as caught:
            await writer.run(twice)
        assert caught.value.constraint == "PRIMARY"
        assert "secret" not in f"{caught.value!r} {caught.value.__cause__!r}"
        assert await losses.all() == {"a secret": 1}
        await writer.run(lambda: losses.add("b"))

    async def test_a_statement_that_is_refused_is_told_without_its_values(
        self, database: Database, writer: Writer
    ) -> None:
        mark = {"sqlite": "?", "mysql": "%s", "postgresql": "$1"}[database.dialect]

        def wrong() -> Steps[None]:
            yield Statement(f"SELECT no_such_column FROM operator_loss WHERE request_id = {mark}", ("secret",))  # noqa: S608

        with pytest.raises(StatementFailed, match="no_such_column") as caught:
            await writer.run(wrong)
        assert "secret" not in str(caught.value)

    async def test_a_caller_who_leaves_in_the_midst_leaves_nothing_behind(self, writer: Writer, losses: Losses) -> None:
        for moment in (0.0, 0.0005, 0.001, 0.003):
            running = asyncio.create_task(writer.run(lambda: losses.add("a", "b")))
            await asyncio.sleep(moment)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await writer.run(lambda: losses.read("a"))  # what is still under way is over then
            assert set(await losses.all()) in (set(), {"a", "b"})
            async with losses.database.begin() as connection:
                await connection.execute(sa.delete(operator_loss))

    @pytest.mark.parametrize("database_kind", ["sqlite"])
    async def test_who_leaves_before_the_thread_has_come_to_it_has_asked_for_nothing(
        self, writer: Writer, losses: Losses
    ) -> None:
        release = threading.Event()

        def slow() -> Steps[None]:
            release.wait(10)
            yield from losses.add("a")

        for make in (slow, lambda: losses.add("b")):
            running = asyncio.create_task(writer.run(make))
            await asyncio.sleep(0.05)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        release.set()
        await writer.run(lambda: losses.add("c"))
        assert set(await losses.all()) == {"a", "c"}

    async def test_after_its_end_it_can_begin_again(self, writer: Writer, losses: Losses) -> None:
        await writer.run(lambda: losses.add("a"))
        await writer.close()
        await writer.run(lambda: losses.add("b"))
        assert set(await losses.all()) == {"a", "b"}

    @pytest.mark.parametrize("database_kind", ["mariadb", "mysql", "postgresql"])
    async def test_a_deadlock_is_a_conflict_and_can_be_tried_again(self, writer: Writer, losses: Losses) -> None:
        await writer.run(lambda: losses.add("a", "b"))

        def crosswise() -> Steps[None]:
            yield from losses.read("a")
            yield from losses.change({"b": 2})

        victims = 0
        locked = sa.select(operator_loss).with_for_update()
        waiting = None
        try:
            async with losses.database.begin() as connection:
                await connection.execute(locked.where(operator_loss.c.request_id == "b"))
                waiting = asyncio.create_task(writer.run(crosswise))
                await asyncio.sleep(0.3)
                await connection.execute(locked.where(operator_loss.c.request_id == "a"))
        except TransientConflict:
            victims += 1
        assert waiting is not None
        try:
            await waiting
        except TransientConflict:
            victims += 1
        assert victims == 1
        await writer.run(crosswise)
        assert await losses.all() == {"a": 1, "b": 2}
