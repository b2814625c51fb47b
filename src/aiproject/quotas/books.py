"""Group commit: the orders of concurrent calls share transactions, and each waits until its own is committed.

There is no timer. While one transaction is on its way, orders gather; the next takes them all. Alone, an order goes at
once. What the database does to a batch is dealt with here:

* in the way of others (deadlock, busy): the batch is done again;
* its commit is in doubt: done again, looking first whether it was done;
* away: new holds are refused at once, settlements are kept and tried again until the database is back;
* one order of the batch is at fault: each is done by itself, so that only that one fails.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass
from typing import TypeVar, overload

from aiproject.adapters.database import CommitInDoubt, Database, TransientConflict
from aiproject.adapters.fault_points import reach
from aiproject.adapters.log import get_logger
from aiproject.errors import AiProjectError, Unavailable
from aiproject.quotas.model import Grant, Hold, OpenHold, Settle, Settled
from aiproject.quotas.store import Order, Result, apply

__all__ = ["Books"]

log = get_logger("quotas")

T = TypeVar("T")

MAX_BATCH = 256
"""Orders of one transaction; keeps its locks short (some milliseconds) and its statements small."""

FIRST_PAUSE = 0.01
"""Seconds before a batch that met others is done again; doubled each time, drawn at random below."""

LONGEST_PAUSE = 1.0
"""Seconds between two tries while the database is away."""

CONFLICT_ATTEMPTS = 25
"""Tries of a batch that meets others, before its orders fail with `Unavailable`."""


@dataclass(slots=True)
class _Pending:
    order: Order
    done: asyncio.Future[Result]


class Books:
    """Takes orders and commits them in batches, one transaction at a time in this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: deque[_Pending] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._is_away = False
        self._is_closing = False

    @property
    def is_database_away(self) -> bool:
        """True from a failed commit until the next one that succeeds."""
        return self._is_away

    @overload
    async def order(self, order: OpenHold) -> Hold: ...
    @overload
    async def order(self, order: Settle) -> Settled | None: ...
    @overload
    async def order(self, order: Grant) -> int: ...

    async def order(self, order: Order) -> Result:
        """Return once the order is committed. A caller that is cancelled meanwhile does not take it back.

        Raises:
            QuotaExhausted: for `OpenHold`; nothing was held.
            AccountUnknown: there is no such account.
            Unavailable: the database is away; not for `Settle`, which waits until it is back.
        """
        if self._is_away and not isinstance(order, Settle):
            raise Unavailable("the database is away", retry_after=2)
        result = await asyncio.shield(self.submit(order))
        if isinstance(result, AiProjectError):
            raise result
        return result

    def submit(self, order: Order) -> asyncio.Future[Result]:
        """Queue an order; the future tells its result, an error of the tree as a value."""
        pending = _Pending(order, asyncio.get_running_loop().create_future())
        self._queue.append(pending)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return pending.done

    async def close(self, patience: float = 5.0) -> None:
        """Wait until everything queued is committed, at most ``patience`` seconds; the rest is left to the sweeper."""
        self._is_closing = True
        if self._worker is not None and not self._worker.done():
            await asyncio.wait([self._worker], timeout=patience)
            if not self._worker.done():
                self._worker.cancel()
                await asyncio.gather(self._worker, return_exceptions=True)
        for pending in self._queue:
            log.error("an order was not committed before the end", order=type(pending.order).__name__)
            _tell(pending, Unavailable("the server stopped"))
        self._queue.clear()

    async def _work(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
            await self._commit(batch)

    async def _commit(self, batch: list[_Pending]) -> None:
        may_be_done = False
        conflicts = 0
        pause = FIRST_PAUSE
        while batch:
            try:
                await self._once(batch, may_be_done=may_be_done)
                return
            except TransientConflict as error:
                conflicts += 1
                if conflicts >= CONFLICT_ATTEMPTS:
                    for pending in batch:
                        _tell(pending, error)
                    return
            except CommitInDoubt as error:
                may_be_done = True
                batch = self._without_new_work(batch, error, keep=True)
            except Unavailable as error:
                batch = self._without_new_work(batch, error, keep=may_be_done)
            except asyncio.CancelledError:
                for pending in batch:
                    _tell(pending, Unavailable("the server stopped"))
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to one order and must not stop the books
                if len(batch) == 1:
                    log.error("an order failed", order=type(batch[0].order).__name__, error=type(error).__name__)
                    batch[0].done.set_exception(error)
                    return
                for pending in batch:
                    await self._commit([pending])
                return
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - spreads, hides nothing
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _once(self, batch: list[_Pending], *, may_be_done: bool) -> None:
        async with self._database.begin() as connection:
            results = await apply(
                connection,
                [pending.order for pending in batch],
                dialect=self._database.dialect,
                may_be_done=may_be_done,
            )
            if any(isinstance(pending.order, Settle) for pending in batch):
                reach("before commit of a settlement")
        if self._is_away:
            self._is_away = False
            log.info("the database is back")
        for pending, result in zip(batch, results, strict=True):
            _tell(pending, result)

    def _without_new_work(self, batch: list[_Pending], error: Unavailable, *, keep: bool) -> list[_Pending]:
        """The database is away: refuse what is new, keep the settlements. ``keep``: holds may be committed, so wait."""
        if not self._is_away:
            self._is_away = True
            log.warning("the database is away", error=error.detail)
        kept = []
        for pending in batch:
            if isinstance(pending.order, Settle) or (keep and isinstance(pending.order, OpenHold)):
                kept.append(pending)
            else:
                _tell(pending, error)
        return kept


def _tell(pending: _Pending, result: Result) -> None:
    if not pending.done.done():
        pending.done.set_result(result)
