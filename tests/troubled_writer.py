"""A real writer of the books with trouble before it, for tests of what a database may do to them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.runner import Steps, Writer, open_writer
from aiproject.errors import AiProjectError

__all__ = ["TroubledWriter"]

T = TypeVar("T")


class TroubledWriter(Writer):
    """A real writer with a gate before it, and troubles that are told beforehand.

    Attributes:
        runs: transactions until now, those in trouble included.
        troubles: errors to come: "instead" of the next transaction, or "after" it is committed in truth.
        gate: closed, transactions wait before it.
    """

    def __init__(self, database: Database) -> None:
        self.runs = 0
        self.troubles: deque[tuple[str, AiProjectError]] = deque()
        self.gate = asyncio.Event()
        self.gate.set()
        self._real = open_writer(database)

    async def run(self, make: Callable[[], Steps[T]]) -> T:
        self.runs += 1
        await self.gate.wait()
        when, error = self.troubles.popleft() if self.troubles else ("never", None)
        if error is not None and when == "instead":
            raise error
        result = await self._real.run(make)
        if error is not None:
            raise error
        return result

    async def close(self) -> None:
        await self._real.close()

    def trouble(self, error: AiProjectError, *, when: str = "instead", times: int = 1) -> None:
        self.troubles.extend([(when, error)] * times)
