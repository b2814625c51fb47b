"""Calls that wait, in the order of their arrival, for quota which other running calls of their account hold.

A call is refused at once if its account has too little. If the account has enough and only too little of it is free,
the call joins the line of its account and meter, and the first in line tries again whenever something may have become
free:

* a settlement, grant or refund of this process wakes it directly;
* what other processes free is noticed by one statement a second for all lines together, while there are any;
* shortly before its time is up, each call tries once more.

Only the first in line tries, and who arrives later joins at the end. So a small request never overtakes a large one,
whichever API key of the account it is made with, and a settlement costs one attempt however many calls wait. A waiting
call holds neither a transaction nor a connection: it is one future in this process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext

from aiproject.adapters.log import get_logger
from aiproject.errors import AiProjectError, QuotaBusy, QuotaExhausted, Unavailable
from aiproject.ledger.account_store import Balance
from aiproject.ledger.model import Hold, Meter, OpenHold

__all__ = ["HoldQueue", "Watch"]

log = get_logger("quotas")

LOOK_SECONDS = 1.0
"""Seconds between two looks at the balances of all accounts with waiting calls, which find what other nodes freed."""

MAX_WAITING = 200
"""Calls that wait in one line. The limits of concurrent calls are lower; this one stands where they are off."""

LAST_TRY = 0.25
"""Seconds before its time is up at which a call tries once more, so that the wait with its answer keeps the setting;
a tenth of a wait that is shorter than ten times as long."""

Read = Callable[[Collection[int]], Awaitable[Mapping[tuple[int, Meter], Balance]]]
"""Reads what these accounts have, in one statement."""

Watch = Callable[[], AbstractContextManager[object]]
"""Opens what looks out for a caller that hangs up while its call waits, and cancels the task then."""


class _Waiting:
    """One call in line.

    Attributes:
        least: units without which it is not served.
        woken: set when it should try again, or look at what follows.
        is_hopeless: its account has less than ``least`` altogether by now.
    """

    __slots__ = ("is_hopeless", "least", "woken")

    def __init__(self, least: int) -> None:
        self.least = least
        self.woken = asyncio.Event()
        self.is_hopeless = False


_Line = deque[_Waiting]


class HoldQueue:
    """Opens holds, and lets calls wait whose quota is held by other calls of their account.

    Args:
        attempt: opens a hold, or raises `QuotaBusy` if its account has enough and too little of it is free.
        read: asked for all accounts with waiting calls, at most once in `LOOK_SECONDS`.
        seconds: that a call waits at most; 0: not at all.
    """

    def __init__(self, attempt: Callable[[OpenHold], Awaitable[Hold]], read: Read, seconds: float) -> None:
        self._attempt = attempt
        self._read = read
        self._seconds = seconds
        self._lines: dict[tuple[int, Meter], _Line] = {}
        self._times_freed = 0
        self._looking: asyncio.Task[None] | None = None
        self._is_stopped = False

    async def hold(self, command: OpenHold, watch: Watch | None = None) -> Hold:
        """Open a hold, at once if nobody of its account waits before it and enough is free.

        Args:
            watch: entered only by a call that waits.

        Raises:
            QuotaBusy: the wait was in vain, or there is none.
            Unavailable: the server is stopping; or as in `LedgerBatcher.submit`, whose other errors it raises as well.
        """
        # An account without waiting calls, which is nearly every one, costs one look into an empty dict.
        times_freed = self._times_freed
        if not self._lines or not command.want or (command.account_id, command.capability) not in self._lines:
            try:
                return await self._attempt(command)
            except QuotaBusy:
                if not self._seconds or self._is_stopped:
                    raise
        # What was freed by a settlement of the very batch that refused this call woke nobody: look again at once.
        return await self._in_line(command, watch, is_outdated=self._times_freed != times_freed)

    def freed(self, account_id: int | None, meter: Meter) -> None:
        """Note that an account may have more free of something than before."""
        self._times_freed += 1
        # Only the first: what is left after it wakes the next, so that nobody is tried out of order.
        if self._lines and account_id is not None and (line := self._lines.get((account_id, meter))):
            line[0].woken.set()

    def stop(self) -> None:
        """End all waits, and let no new one begin: the server is stopping."""
        self._is_stopped = True
        for line in self._lines.values():
            for waiting in line:
                waiting.woken.set()
        if self._looking is not None:
            self._looking.cancel()

    async def _in_line(self, command: OpenHold, watch: Watch | None, *, is_outdated: bool) -> Hold:
        key = (command.account_id, command.capability)
        line = self._lines.setdefault(key, deque())
        if len(line) >= MAX_WAITING:
            raise QuotaBusy(command.capability)
        waiting = _Waiting(command.least)
        line.append(waiting)
        if is_outdated and line[0] is waiting:
            waiting.woken.set()
        self._look_on()
        try:
            with nullcontext() if watch is None else watch():
                return await self._when_its_turn_comes(command, line, waiting)
        finally:
            # On every way out, also of a caller that hung up: what is left may do for the next.
            line.remove(waiting)
            if line:
                line[0].woken.set()
            else:
                del self._lines[key]

    async def _when_its_turn_comes(self, command: OpenHold, line: _Line, waiting: _Waiting) -> Hold:
        end = asyncio.get_running_loop().time() + self._seconds
        # Before the end, so that the answer of the last attempt is there by then.
        last_try = end - min(LAST_TRY, self._seconds / 10)
        is_last = False
        while True:
            try:
                async with asyncio.timeout_at(end if is_last else last_try):
                    await waiting.woken.wait()
            except TimeoutError:
                if is_last:
                    raise QuotaBusy(command.capability) from None
                is_last = True
                if line[0] is not waiting:
                    continue  # those before it are at their last tries as well, and wake it when they leave
            if self._is_stopped:
                raise Unavailable("the server is stopping", retry_after=5)
            if waiting.is_hopeless:
                raise QuotaExhausted(command.capability)
            # Cleared before the attempt: what is freed while it is under way causes another one.
            waiting.woken.clear()
            try:
                return await self._attempt(command)
            except QuotaBusy:
                if is_last:
                    raise

    # -- what other processes free ------------------------------------------------------------------------------------

    def _look_on(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_while_somebody_waits())

    async def _look_while_somebody_waits(self) -> None:
        await asyncio.sleep(LOOK_SECONDS)
        while self._lines:
            try:
                await self._look()
            except AiProjectError as error:
                # The tries of those who wait will say so to their callers.
                log.debug("balances of waiting calls not read", error=type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)
        # Nothing is awaited between the look at the lines and the end: who joins now starts another task.
        self._looking = None

    async def _look(self) -> None:
        found = await self._read({account_id for account_id, _ in self._lines})
        for (account_id, meter), line in list(self._lines.items()):
            now = found.get((account_id, meter))
            if now is None or now.balance is None:  # gone, or unmetered by now: the attempt says which
                line[0].woken.set()
                continue
            # Not only the first in line: nobody waits for what cannot come.
            for waiting in line:
                if waiting.least > now.balance:
                    waiting.is_hopeless = True
                    waiting.woken.set()
            if line[0].least <= now.balance - now.held:
                line[0].woken.set()
