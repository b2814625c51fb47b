"""Repeating a transaction that other transactions were in the way of. `Database.transact` is the only user."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiproject.adapters.db.errors import TransientConflict

__all__ = ["retry_transient"]

# Seconds. Together with `TRANSACTION_SECONDS` a caller gets an answer within about 10 s, even of a database whose locks
# are never released.
ATTEMPTS_SECONDS = 8.0

_T = TypeVar("_T")


async def retry_transient(
    attempt: Callable[[], Awaitable[_T]],
    *,
    attempts: int = 10,
    seconds: float = ATTEMPTS_SECONDS,
    first_delay: float = 0.01,
    longest_delay: float = 0.5,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> _T:
    """Run a whole transaction, and again while it ends in `TransientConflict`.

    Args:
        attempt: opens its own transaction each time.
        attempts: the number of attempts at most.
        seconds: no attempt starts that would end later than this after the first one started, if it took as long as
            the one before. So a lock that is never released costs its time-out once, not ``attempts`` times.
        first_delay: upper bound of the first pause, in seconds. It doubles with each attempt, and the pause is drawn at
            random below it, so that two transactions that collided do not collide again.
        longest_delay: upper bound of every pause, in seconds.

    Raises:
        TransientConflict: the last attempt ended in one, too.
    """
    random = secrets.SystemRandom()
    first = time.monotonic()
    for number in range(attempts - 1):
        began = time.monotonic()
        try:
            return await attempt()
        except TransientConflict:
            now = time.monotonic()
            if now - first + now - began > seconds:
                raise
            await sleep(random.uniform(0, min(longest_delay, first_delay * 2**number)))
    return await attempt()
