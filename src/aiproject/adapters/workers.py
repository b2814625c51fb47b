"""A thread pool for work that would block the event loop: decoding pictures and sound."""

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
    """A bounded thread pool; further work waits in the order of arrival.

    It is separate from the event loop's default pool, which address lookups need.

    Args:
        threads: maximum number of jobs at once. Decoding a picture of 50 megapixels takes about 400 MiB and some
            seconds, so this also limits memory.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="media")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``work`` in a thread; return what it returns or raise what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *args, **kwargs))

    async def close(self) -> None:
        """Wait for work that has begun; cancel the rest."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
