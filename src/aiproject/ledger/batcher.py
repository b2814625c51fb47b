"""Group commit: the commands of concurrent calls share transactions, and each waits until its own is committed.

There is no timer. While one transaction is under way, commands gather; the next takes them all, and those that the
event loop is just about to bring: a transaction costs as much as about ten commands, so that few large ones are half
the work of many small ones. A single command is committed at once. The batcher handles what happens to a batch:

* it conflicts with others (deadlock, busy): the batch is retried;
* its commit is in doubt: it is retried, and looks first whether it was committed;
* the database is away, or has conflicts for seconds on end: new holds are refused at once, settlements are kept and
  retried until it is back. It is asked for a sign of life until then, with commands or without;
* the database is silent: callers that wait for a hold are refused after a while; if it is committed after all, it is
  released;
* one command of the batch is at fault: each is committed by itself, so that only that one fails.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import overload

from msgspec import Struct

from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import CommitInDoubt, StatementFailed, TransientConflict
from aiproject.adapters.db.runner import Steps, Writer, open_writer
from aiproject.adapters.fault_points import fault_point
from aiproject.adapters.log import get_logger
from aiproject.errors import AiProjectError, Misconfigured, Unavailable
from aiproject.ledger.batch import Result, steps
from aiproject.ledger.model import (
    ClaimKey,
    ClaimResult,
    Command,
    ExtendHold,
    GiveKeyUp,
    Grant,
    Hold,
    OpenHold,
    Outcome,
    Renew,
    Settle,
    Settled,
    Stage,
)

__all__ = ["LedgerBatcher", "SettlementDeferred"]

log = get_logger("quotas")

MAX_BATCH = 256
"""Commands of one transaction; keeps its locks short (some milliseconds) and its statements small."""

GATHER_ROUNDS = 4
"""Rounds of the event loop that a batch waits at most while each brings more commands."""

FIRST_PAUSE = 0.01
"""Seconds before a batch that conflicted is retried: an upper bound that doubles each time, drawn at random below."""

MAX_PAUSE = 1.0
"""Seconds between two attempts while the database is away, at most."""

CONFLICT_SECONDS = 7.0
"""Seconds of conflicts without one success after which the database counts as away. Settlements are kept."""

COMMAND_PATIENCE = 7.0
"""Seconds after which a caller is told that its command was not committed, whatever the database does meanwhile. With
the time between two checks, a call is refused within 10 s. Not for settlements."""

SETTLE_PATIENCE = 5.0
"""Seconds that a finished call waits for its settlement before it gets `SettlementDeferred` instead."""

PATIENCE_CHECK = 1.0
"""Seconds between two checks of who has waited too long."""


class SettlementDeferred(Struct, frozen=True):
    """A settlement is not committed yet; it is kept and retried until the database is back."""


class _Pending(Struct, eq=False):
    """A command, and who waits for it.

    Attributes:
        done: resolved with the result, or that the command is kept, or that it took too long; cancelled if the caller
            does not wait any more.
        then: called with the result, whether anybody waits or not.
        since: when it was submitted, by the loop's clock.
        may_be_done: it was part of a commit that is in doubt.
        is_suspect: it was part of a batch of which one command is at fault, so it goes alone.
        is_given_up: its caller was told that it took too long.
    """

    command: Command
    done: asyncio.Future[Result | SettlementDeferred]
    then: Callable[[Result], None] | None
    since: float
    may_be_done: bool = False
    is_suspect: bool = False
    is_given_up: bool = False


class LedgerBatcher:
    """Commits commands in batches, one transaction at a time in this process.

    One at a time, because two batches of a process would mostly meet at the same accounts, where one waits for the
    other's locks anyway; and so commands are carried out in the order in which they were submitted.

    Args:
        writer: makes the transactions; ``None``: the database's own.
    """

    def __init__(self, database: Database, writer: Writer | None = None) -> None:
        self._dialect = database.dialect
        self._writer = open_writer(database) if writer is None else writer
        self._queue: deque[_Pending] = deque()
        self._batch: list[_Pending] = []  # the one that is being committed
        self._worker: asyncio.Task[None] | None = None
        self._is_away = False
        self._is_closing = False
        self._is_closed = False
        self._patience: asyncio.TimerHandle | None = None

    @property
    def is_database_away(self) -> bool:
        """True from a failed transaction until the next one that succeeds."""
        return self._is_away

    @overload
    async def submit(self, command: OpenHold | ExtendHold) -> Hold: ...
    @overload
    async def submit(
        self, command: Settle, then: Callable[[Result], None] | None = None
    ) -> Settled | SettlementDeferred | None: ...
    @overload
    async def submit(self, command: Grant) -> int: ...
    @overload
    async def submit(self, command: ClaimKey) -> ClaimResult: ...
    @overload
    async def submit(self, command: GiveKeyUp | Renew) -> None: ...

    async def submit(
        self, command: Command, then: Callable[[Result], None] | None = None
    ) -> Result | SettlementDeferred:
        """Return once the command is committed; if a settlement cannot be, return `SettlementDeferred` after a while.

        A caller that is cancelled meanwhile does not take its command back: it may be part of a transaction already.
        But a hold that nobody takes is released, and a key that nobody takes is given up.

        Args:
            then: called with the result once there is one, also if nobody waits any more. Must not raise.

        Raises:
            QuotaExhausted, QuotaBusy, SpendLimitReached, NotSignedIn: for `OpenHold`; nothing was held.
            AccountUnknown: there is no such account.
            Unavailable: the database is away or takes too long, or this batcher is closed. Not for `Settle` while
                it is open.
        """
        if self._is_closed:
            stopped = Unavailable("the server stopped")
            if then is not None:
                then(stopped)
            raise stopped
        if self._is_away and not isinstance(command, Settle):
            # Not queued: a refusal now is worth more to the caller than a hold in a minute.
            raise Unavailable("the database is away", retry_after=2)
        pending = self._queued(command, then)
        try:
            result = await pending.done
        except asyncio.CancelledError:
            if not pending.done.cancelled():  # the result was there, and the caller was cancelled before it took it
                self._undo_untaken(pending.command, pending.done.result())
            raise
        if isinstance(result, AiProjectError):
            raise result
        return result

    async def close(self, patience: float = 5.0) -> None:
        """Wait until every command is committed, at most ``patience`` seconds; the rest is left to the sweeper."""
        # Closing ends the signs of life to a database that is away, so that an empty queue ends the worker.
        self._is_closing = True
        if self._worker is not None:
            await asyncio.wait([self._worker], timeout=patience)
        # From here on nothing is queued any more, not even what undoes what nobody took.
        self._is_closed = True
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        # The batch as well: it was cancelled under way. Should it be committed, the sweeper gives back what it holds.
        left = [*self._batch, *self._queue]
        self._batch.clear()
        self._queue.clear()
        for pending in left:
            log.error("a command was not committed before the end", command=type(pending.command).__name__)
            self._resolve(pending, Unavailable("the server stopped"))
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        await self._writer.close()

    # -- the queue ------------------------------------------------------------------------------------------------

    def _queued(self, command: Command, then: Callable[[Result], None] | None = None) -> _Pending:
        loop = asyncio.get_running_loop()
        pending = _Pending(command, loop.create_future(), then, loop.time())
        self._queue.append(pending)
        if self._worker is None:
            # A worker ends with the queue: idle, there is no task that anybody would have to stop.
            self._worker = asyncio.create_task(self._work())
            if self._patience is None:
                self._patience = loop.call_later(PATIENCE_CHECK, self._check_patience)
        return pending

    async def _gather(self) -> None:
        """Let the loop go round as long as that brings more commands. Alone, a command waits for one empty round."""
        known = len(self._queue)
        for _ in range(GATHER_ROUNDS):
            # After a commit many callers run at once, and most of them submit their next command within a round or two.
            await asyncio.sleep(0)
            if len(self._queue) == known or known >= MAX_BATCH:
                return
            known = len(self._queue)

    def _next_batch(self) -> list[_Pending]:
        queue = self._queue
        batch = [queue.popleft()] if queue else []
        if batch and batch[0].is_suspect:
            return batch  # alone: if it fails again, it is the one at fault
        while queue and len(batch) < MAX_BATCH and not queue[0].is_suspect:
            batch.append(queue.popleft())
        return batch

    def _resolve(self, pending: _Pending, result: Result) -> None:
        """Hand a command's result to whoever waits for it, or undo what nobody waits for."""
        if pending.then is not None:
            pending.then(result)
        # Done already: the caller was cancelled, or was told that a settlement is kept or that a command took too long.
        if not pending.done.done():
            pending.done.set_result(result)
        elif pending.is_given_up or pending.done.cancelled():
            self._undo_untaken(pending.command, result)

    def _undo_untaken(self, command: Command, result: Result | SettlementDeferred) -> None:
        """Its caller has gone: nobody will use the hold or the key, nor end it."""
        if self._is_closed:
            return
        if isinstance(command, OpenHold) and isinstance(result, Hold):
            # An extension is not undone: its call has the hold still, and settles the whole of it.
            self._queued(_release_of(result, Outcome.CLIENT_GONE))
        elif isinstance(command, ClaimKey) and result is ClaimResult.OURS:
            self._queued(GiveKeyUp(command.key, command.request_id))

    def _refuse_new(self, pendings: Iterable[_Pending], error: Unavailable | Misconfigured) -> list[_Pending]:
        """Refuse all but settlements, since the database is away; return what is to be retried."""
        kept = []
        for pending in pendings:
            command = pending.command
            if isinstance(command, Settle):
                # What was consumed must be paid for, however long that takes; its call has its answer by now.
                kept.append(pending)
                continue
            self._resolve(pending, Unavailable(f"the database is away: {_detail(error)}", retry_after=2))
            if pending.may_be_done and isinstance(command, OpenHold):
                # It may be committed although nobody waits for it: give it back as soon as that can be seen.
                hold = Hold(command.account_id, command.capability, command.want, command.request_id, command.attempt)
                pending.command = _release_of(hold, Outcome.SERVER_FAILED)
                kept.append(pending)
        return kept

    # -- the worker -----------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        pause = FIRST_PAUSE
        conflict_since: float | None = None
        clock = asyncio.get_running_loop().time
        try:
            # Without commands too, while the database is away: an empty batch finds out when it is back.
            while self._queue or (self._is_away and not self._is_closing):
                await self._gather()
                batch = self._batch = self._next_batch()
                try:
                    results = await self._commit(batch)
                except TransientConflict as error:  # nothing was committed
                    conflict_since = clock() if conflict_since is None else conflict_since
                    self._put_back(batch)
                    if clock() - conflict_since > CONFLICT_SECONDS:
                        self._go_away(error)
                except CommitInDoubt as error:
                    # May be committed or not. The second time in a row the database is treated as away.
                    is_new = not any(pending.may_be_done for pending in batch)
                    for pending in batch:
                        pending.may_be_done = True
                    self._put_back(batch)
                    if is_new:
                        continue  # without a pause: the retry finds out whether it was committed
                    self._go_away(error)
                except (Unavailable, Misconfigured) as error:
                    self._put_back(batch)
                    self._go_away(error)
                except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to one command and must not stop the others
                    self._find_fault(batch, error)
                    if batch:
                        continue
                else:
                    self._batch = []
                    for pending, result in zip(batch, results, strict=True):
                        self._resolve(pending, result)
                    pause, conflict_since = FIRST_PAUSE, None
                    continue
                # Drawn at random: two nodes that deadlocked would otherwise meet again at every retry.
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - spreads, hides nothing
                pause = min(pause * 2, MAX_PAUSE)
        finally:
            self._worker = None

    async def _commit(self, batch: list[_Pending]) -> list[Result]:
        commands = [pending.command for pending in batch]
        may_be_done = any(pending.may_be_done for pending in batch)
        has_settlement = any(isinstance(command, Settle) for command in commands)

        # Called by the writer once its transaction has begun, so that the batch takes its time after all waiting.
        def make() -> Steps[list[Result]]:
            results = yield from steps(commands, dialect=self._dialect, may_be_done=may_be_done)
            if has_settlement:
                fault_point("before commit of a settlement")
            return results

        results = await self._writer.run(make)
        if self._is_away:
            self._is_away = False
            log.info("the database is back")
        return results

    def _put_back(self, batch: list[_Pending]) -> None:
        """Queue a batch again, before the others, without what nobody waits for and was certainly not committed."""
        self._batch = []
        # What may be committed stays, whoever waits: only a retry finds out, and undoes what nobody took.
        self._queue.extendleft(each for each in reversed(batch) if each.may_be_done or not each.is_given_up)

    def _go_away(self, error: Unavailable | Misconfigured) -> None:
        """Nothing can be committed now: refuse what is new, keep the settlements."""
        if not self._is_away:
            self._is_away = True
            log.warning("the database is away", error=_detail(error))
        self._queue = deque(self._refuse_new(self._queue, error))

    def _find_fault(self, batch: list[_Pending], error: Exception) -> None:
        """One command of the batch is at fault: commit each by itself, so that only that one fails."""
        if len(batch) > 1:
            for pending in batch:
                pending.is_suspect = True
            self._put_back(batch)
            return
        self._batch = []
        # The text of an error that is not of our tree may quote values, which must reach neither log nor caller.
        told = error if isinstance(error, AiProjectError) else StatementFailed(type(error).__name__, None)
        for pending in batch:
            log.error("a command failed", command=type(pending.command).__name__, error=str(told)[:300])
            self._resolve(pending, told)

    def _check_patience(self) -> None:
        """Resolve what has waited long: a settlement is kept, any other command took too long.

        One timer that runs on over the moments without commands, since there are many of those in a second.
        """
        self._patience = None
        if self._worker is None:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        for pending in (*self._batch, *self._queue):
            if pending.done.done():
                continue
            if isinstance(pending.command, Settle):
                # Resolved for its caller only. The command stays in the queue, and `then` is called at its end.
                if pending.since <= now - SETTLE_PATIENCE:
                    pending.done.set_result(SettlementDeferred())
            elif pending.since <= now - COMMAND_PATIENCE:
                pending.is_given_up = True
                waited = f"the database did not commit within {COMMAND_PATIENCE:g} s"
                pending.done.set_result(Unavailable(waited, retry_after=2))
        # Those in the queue were in no transaction yet, or in one that failed: nothing of them is committed.
        if any(each.is_given_up and not each.may_be_done for each in self._queue):
            self._queue = deque(each for each in self._queue if each.may_be_done or not each.is_given_up)
        self._patience = loop.call_later(PATIENCE_CHECK, self._check_patience)


def _release_of(hold: Hold, outcome: Outcome) -> Settle:
    return Settle(hold=hold, charge=0, outcome=outcome, stage=Stage.HELD)


def _detail(error: Unavailable | Misconfigured) -> str:
    return error.detail if isinstance(error, Unavailable) else "it refuses us; see `aiproject doctor`"
