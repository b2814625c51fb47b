"""The running calls: counted, and ended with a reason when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from aiproject.errors import Unavailable

__all__ = ["RunningCalls"]


class Abortable(Protocol):
    """Something that waits for a provider and can be woken with a reason."""

    def abort(self, reason: BaseException) -> None: ...


T = TypeVar("T")


class _Membership(Generic[T]):
    """Keeps a member in a collection while inside."""

    # A class instead of a generator with contextlib: entered twice by each call, it is on the hot path.
    __slots__ = ("_collection", "_member")

    def __init__(self, collection: dict[T, None], member: T) -> None:
        self._collection = collection
        self._member = member

    def __enter__(self) -> None:
        self._collection[self._member] = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._collection.pop(self._member, None)


class RunningCalls:
    """The registry of all relayed calls. After `drain`, new calls are refused."""

    def __init__(self) -> None:
        self._streams: dict[Abortable, None] = {}
        self._tasks: dict[asyncio.Task[object], None] = {}
        self._is_draining = False
        self._on_drain: list[Callable[[], object]] = []

    @property
    def is_draining(self) -> bool:
        """Whether the server is stopping."""
        return self._is_draining

    def __len__(self) -> int:
        return len(self._tasks)

    def enter(self) -> _Membership[asyncio.Task[object]]:
        """Count the current task as a running call while inside: ``with calls.enter(): …``.

        Raises:
            Unavailable: the server is stopping.
        """
        if self._is_draining:
            raise Unavailable("the server is stopping", retry_after=5)
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call runs in a task")
        return _Membership(self._tasks, task)

    def on_drain(self, callback: Callable[[], object]) -> None:
        """Register ``callback`` to be called when the server begins to stop, before the grace period."""
        self._on_drain.append(callback)

    def streaming(self, stream: Abortable) -> _Membership[Abortable]:
        """While inside, `drain` ends the call by waking ``stream``, so that its client gets an error frame."""
        return _Membership(self._streams, stream)

    async def drain(self, grace: float, *, skip_grace: Callable[[], bool] = lambda: False) -> None:
        """Refuse new calls, give the running ones ``grace`` seconds, then end the remaining ones with a reason.

        Args:
            skip_grace: polled a few times per second; true ends the grace period (a second Ctrl-C).
        """
        self._is_draining = True
        for callback in self._on_drain:
            callback()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        # Polled, because nothing announces a second Ctrl-C.
        while self._tasks and loop.time() < deadline and not skip_grace():
            await asyncio.wait(list(self._tasks), timeout=min(0.25, deadline - loop.time()))
        # Streams first: their clients get an error frame, which a cancellation would prevent.
        for stream in list(self._streams):
            stream.abort(Unavailable("the server is stopping", retry_after=5))
        if self._tasks:
            # Time for the error frames to be sent; calls that wait for something else are cancelled afterwards.
            await asyncio.wait(list(self._tasks), timeout=2.0)
        for task in list(self._tasks):
            task.cancel()
