"""A server that is stopped while a finished call waits for its settlement: the caller gets what it is charged for."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import sqlalchemy as sa

from aiproject.adapters.db.schema import user
from system.charged import caller_of, cluster, opened_books
from system.harness import Platform, eventually

GRACE, LAST_CHANCE = 0.2, 2.0
"""Seconds until streams are ended, and further ones until calls are cancelled: see `RunningCalls.drain`."""


async def test_its_answer_leaves(platform: Platform, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'books.db'}"
    async with (
        opened_books(url) as books,
        cluster(1, url, platform.address.environment(), tmp_path, shutdown_grace=str(GRACE)) as (node,),
    ):
        caller = await caller_of(books, node)
        completed = platform.counts("ocr")["completed"]
        platform.order("ocr", "slow", seconds=0.5)
        call = asyncio.create_task(caller.ask("picture"))
        await eventually(lambda: platform.counts("ocr")["open"] > 0, "upstream is asked")
        async with books.database.begin() as connection:  # nobody else writes meanwhile
            await connection.execute(sa.update(user).where(user.c.AccountId == 0).values(Tokens=0))
            await eventually(lambda: platform.counts("ocr")["completed"] > completed, "upstream has answered")
            node.signal(signal.SIGTERM)
            await asyncio.sleep(GRACE + LAST_CHANCE + 0.7)
            assert not call.done(), "it waits for the books, though it was cancelled"
        answer = await call
        assert answer.json()["code"] == 0
        assert await books.charges(caller.account) == [1]
        assert await node.stop() == 0
