"""An event loop whose clock is made up: waiting costs nothing, and takes exactly as long as it says."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run"]

T = TypeVar("T")


class _Loop(asyncio.SelectorEventLoop):
    """Instead of sleeping until the next timer, moves its clock there."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: _Loop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing will happen any more")
        if timeout > 0:
            self._loop.now += timeout
        return super().select(0)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in made-up time. What its loop complains of (futures nobody asked for) fails the test."""
    complaints: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: complaints.append(context))
        result = runner.run(scenario)
    assert complaints == []
    return result
