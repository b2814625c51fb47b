"""Noticing that a client hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from aiproject.adapters.http.asgi import HANG_UP, Receive, Scope
from aiproject.adapters.http.bodies import ClientGone

__all__ = ["CancelIfGone", "ClientWatch"]


class ClientWatch:
    """Notices a client that hangs up, while inside: ``with ClientWatch(…) as client: …``.

    The request's body must have been read.

    Attributes:
        is_gone: it did.
        on_gone: called at that moment; may be set anew as the call goes on.
    """

    __slots__ = ("_receive", "_subscribe", "_watcher", "is_gone", "on_gone")

    def __init__(self, scope: Scope, receive: Receive, on_gone: Callable[[], object]) -> None:
        self._subscribe: Callable[[Callable[[], object] | None], None] | None = scope.get("extensions", {}).get(HANG_UP)
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self.is_gone = False
        self.on_gone = on_gone

    def __enter__(self) -> ClientWatch:
        if self._subscribe is not None:
            self._subscribe(self._gone)
        else:
            # A server without the extension: a task for each call, which costs ten times as much as a callback.
            self._watcher = asyncio.create_task(self._wait())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._subscribe is not None:
            self._subscribe(None)
        if self._watcher is not None:
            self._watcher.cancel()

    def _gone(self) -> None:
        self.is_gone = True
        self.on_gone()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone()


class CancelIfGone:
    """Ends the current task's work with `ClientGone` if the client hangs up while inside.

    For a wait before anything was asked upstream: nothing is lost if it ends. The request's body must have been read.
    """

    __slots__ = ("_task", "_watch")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an endpoint runs in a task
        self._task = task
        self._watch = ClientWatch(scope, receive, task.cancel)

    def __enter__(self) -> None:
        self._watch.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.__exit__(kind, error, trace)
        if self._watch.is_gone and isinstance(error, asyncio.CancelledError):
            self._task.uncancel()
            raise ClientGone from None
