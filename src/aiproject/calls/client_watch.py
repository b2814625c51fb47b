"""Detects that a client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from aiproject.adapters.http.asgi import HANG_UP, Receive, Scope
from aiproject.adapters.http.bodies import ClientGone

__all__ = ["CancelIfGone", "ClientWatch"]


class ClientWatch:
    """Detects a client that disconnects, while inside: ``with ClientWatch(…) as client: …``.

    The request's body must have been read.

    Attributes:
        is_gone: whether the client has disconnected.
        on_gone: called when the client disconnects; may be replaced as the call proceeds.
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
            # A server without the extension needs a task for each call, which costs ten times as much as a callback.
            self._watcher = asyncio.create_task(self._wait())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._subscribe is not None:
            # A disconnect after the answer is normal, and must not end anything.
            self._subscribe(None)
        if self._watcher is not None:
            self._watcher.cancel()

    def _gone(self) -> None:
        self.is_gone = True
        self.on_gone()

    async def _wait(self) -> None:
        # The body has been read, so only a disconnect can follow; other messages are ignored.
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone()


class CancelIfGone:
    """Ends the current task's work with `ClientGone` if the client disconnects while inside.

    For waits before anything is sent to the provider, which can be abandoned without loss. The request's body must have
    been read.
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
        # A cancellation that the watch did not cause comes from the server and must propagate.
        if self._watch.is_gone and isinstance(error, asyncio.CancelledError):
            self._task.uncancel()
            raise ClientGone from None
