"""What a node of a Galera cluster says at COMMIT: refused for good, or nobody knows.

The numbers and texts are those that ``tools/galera_test.py`` met, with MariaDB 10.11 and Galera 26.4.
"""

from __future__ import annotations

import asyncmy.errors
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import CommitInDoubt, TransientConflict
from aiproject.adapters.db.runner import Steps, Writer, _MySQLWriter, open_writer
from aiproject.adapters.db.schema import operator_loss
from aiproject.errors import Unavailable
from aiproject.ledger.sql import insert_rows

COLUMNS = ("request_id", "attempt", "account_id", "capability", "amount", "reason", "created_at")
ROW = ("a", 1, 7, "tokens", 1, "late", 5)

LOST_ITS_GROUP = (
    1180,
    "Error while appending streaming replication fragment(provider status: Not connected to Primary Component)",
)
NOT_READY = (1047, "WSREP has not yet prepared node for application use")
REFUSED = (1213, "Deadlock found when trying to get lock; try restarting transaction")
UNHEARD_OF = (4999, "Something new")

pytestmark = pytest.mark.parametrize("database_kind", ["mariadb"])


@pytest.fixture
async def writer(database: Database) -> Writer:
    return open_writer(database)


def add() -> Steps[int]:
    yield insert_rows("mysql", operator_loss, COLUMNS, [ROW])
    return 1


async def count(database: Database) -> int:
    async with database.connect() as connection:
        return int((await connection.execute(sa.select(sa.func.count()).select_from(operator_loss))).scalar_one())


@pytest.mark.parametrize("answer", [LOST_ITS_GROUP, NOT_READY, UNHEARD_OF], ids=lambda answer: str(answer[0]))
@pytest.mark.parametrize("is_done", [True, False], ids=["done", "not done"])
class TestDoubt:
    async def test_of_the_writer(
        self,
        answer: tuple[int, str],
        is_done: bool,
        database: Database,
        writer: Writer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        command = _MySQLWriter._command

        async def refuse(self: _MySQLWriter, sql: str) -> None:
            if sql != "COMMIT" or is_done:
                await command(self, sql)
            if sql == "COMMIT":
                raise asyncmy.errors.OperationalError(*answer)

        with monkeypatch.context() as patch:
            patch.setattr(_MySQLWriter, "_command", refuse)
            with pytest.raises(CommitInDoubt):
                await writer.run(add)
        assert await count(database) == is_done
        if not is_done:
            assert await writer.run(add) == 1, "its connection is fit for the next one"

    async def test_of_a_transaction(
        self, answer: tuple[int, str], is_done: bool, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit = AsyncConnection.commit

        async def refuse(self: AsyncConnection) -> None:
            if is_done:
                await commit(self)
            error = asyncmy.errors.OperationalError(*answer)
            if answer is UNHEARD_OF:  # which the table lets through as it is
                raise OperationalError("COMMIT", None, error)
            raise Unavailable("as the table has it")

        async def attempt() -> None:
            async with database.begin() as connection:
                await connection.execute(sa.insert(operator_loss).values(dict(zip(COLUMNS, ROW, strict=True))))

        with monkeypatch.context() as patch:
            patch.setattr(AsyncConnection, "commit", refuse)
            with pytest.raises(CommitInDoubt):
                await attempt()
        assert await count(database) == is_done


async def test_a_refused_commit_is_a_conflict(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certification failed: another node was first. Nothing was written, and it may be tried again at once."""
    command = _MySQLWriter._command

    async def refuse(self: _MySQLWriter, sql: str) -> None:
        if sql == "COMMIT":
            await command(self, "ROLLBACK")
            raise asyncmy.errors.OperationalError(*REFUSED)
        await command(self, sql)

    with monkeypatch.context() as patch:
        patch.setattr(_MySQLWriter, "_command", refuse)
        with pytest.raises(TransientConflict):
            await writer.run(add)
    assert await count(database) == 0
    assert await writer.run(add) == 1
