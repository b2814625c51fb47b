"""A time limit on what is awaited, at half the CPU of `asyncio.timeout`."""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["Deadline"]


class Deadline:
    """``with Deadline(loop, moment):`` ends what is awaited inside at that moment, by `TimeoutError`.

    It does what `asyncio.timeout_at` does: the task is cancelled, and only its own cancellation becomes a
    `TimeoutError`. It cannot be moved to another moment than now, nor say whether it has passed, and entering and
    leaving it takes no coroutine.

    Args:
        moment: in the loop's time.

    Raises:
        TimeoutError: at the end of the block, where the moment came while it waited.
        RuntimeError: not in a task.
    """

    __slots__ = ("_before", "_has_come", "_loop", "_moment", "_task", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, moment: float) -> None:
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a deadline needs a task")
        self._loop = loop
        self._moment = moment
        self._task = task
        self._before = 0
        self._has_come = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Deadline:
        # Requests to cancel the task that were made before us: those are not ours to answer for.
        self._before = self._task.cancelling()
        self._timer = self._loop.call_at(self._moment, self._come)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # `uncancel` also where the block ends by something else: our request must not outlive the block. If another one
        # is left, somebody else wants the task to end, and that is stronger than the time limit.
        if self._has_come and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def come(self) -> None:
        """End what is awaited now; does nothing outside of the block, or if the moment has come already."""
        if self._timer is not None:
            self._timer.cancel()
            self._come()

    def _come(self) -> None:
        self._timer = None
        self._has_come = True
        self._task.cancel()
