"""A few threads for work that would stop the event loop: decoding pictures and sound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

__all__ = ["Workers"]

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """A bounded pool of threads; what is more waits in the order of arrival.

    Args:
        threads: at most so many pieces of work at once. A picture of 50 megapixels takes some 400 MiB and seconds, so
            this also bounds memory. Not the loop's own pool, which address look-ups need.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="media")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do ``work`` in a thread and return what it returns or raise what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *args, **kwargs))

    async def close(self) -> None:
        """Wait for work that has begun; forget what has not."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
