"""What the relay's endpoints share: errors become the seed's answers, and a client that hangs up is noticed."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiproject.adapters.asgi import HANG_UP, Receive, Scope, Send, note, send_json
from aiproject.adapters.log import get_logger
from aiproject.adapters.uploads import ClientGone
from aiproject.codes import Code
from aiproject.errors import AiProjectError, Unavailable, UpstreamFailed
from aiproject.protocols.seed import Failure, failure_of, json_bytes
from aiproject.protocols.vendor_codes import Service
from aiproject.relay.calls import RunningCalls

__all__ = ["ClientWatch", "Endpoint", "watch_client"]

log = get_logger("relay")


class Endpoint(ABC):
    """A relay endpoint of the seed's door. Subclasses implement `handle`.

    Attributes:
        failure_code: what this endpoint calls a failure without a code of its own.
        service: the vendor service it uses.
    """

    failure_code: Code
    service: Service

    def __init__(self, calls: RunningCalls) -> None:
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._calls.enter():
                await self.handle(scope, receive, send)
        except ClientGone:
            note(scope, outcome="client gone")
        except AiProjectError as error:
            await self.refuse(scope, send, error)
        except asyncio.CancelledError:
            # The grace of a stopping server ran out (a stream is ended otherwise, unless its client does not read).
            task = asyncio.current_task()
            if task is None or not self._calls.is_draining:
                raise
            task.uncancel()
            # Told by the outer layer, which knows whether an answer has begun: there is only one.
            raise Unavailable("the server is stopping") from None

    @abstractmethod
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call. Whatever of the error tree it raises before it sent anything becomes a JSON answer."""

    def failure(self, scope: Scope, error: BaseException) -> Failure:
        """Return how ``error`` is told, and leave it in the log's line."""
        failure = failure_of(error, code=self.failure_code, service=self.service)
        note(scope, outcome=str(failure.code), error=type(error).__name__)
        if isinstance(error, UpstreamFailed):
            note(scope, vendor_code=error.code, detail=error.detail)
            if error.sid:
                note(scope, sid=error.sid)
        return failure

    async def refuse(self, scope: Scope, send: Send, error: AiProjectError) -> None:
        """Answer with the failure as JSON."""
        failure = self.failure(scope, error)
        headers = []
        if failure.retry_after is not None:
            headers.append((b"retry-after", str(failure.retry_after).encode()))
        if failure.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110, section 15.5.2, asks for one
        if failure.ends_connection:
            headers.append((b"connection", b"close"))
        await send_json(send, failure.status, json_bytes(failure.body()), headers=headers)


class ClientWatch:
    """Notices a client that hangs up.

    Attributes:
        is_gone: it did.
        on_gone: called at that moment; may be set anew as the call goes on.
    """

    def __init__(self, on_gone: Callable[[], object]) -> None:
        self.is_gone = False
        self.on_gone = on_gone


@contextmanager
def watch_client(scope: Scope, receive: Receive, on_gone: Callable[[], object]) -> Iterator[ClientWatch]:
    """Watch for a client that hangs up while inside. The request's body must have been read."""
    watch = ClientWatch(on_gone)

    def gone() -> None:
        watch.is_gone = True
        watch.on_gone()

    tell: Callable[[Callable[[], object] | None], None] | None = scope.get("extensions", {}).get(HANG_UP)
    if tell is not None:
        tell(gone)
        try:
            yield watch
        finally:
            tell(None)
        return

    async def wait() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        gone()

    watcher = asyncio.create_task(wait())
    try:
        yield watch
    finally:
        watcher.cancel()
