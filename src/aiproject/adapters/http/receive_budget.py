"""The memory budget for all request bodies of this process, and how it is shared between clients' addresses.

The first 64 KiB of each body are not counted, so small bodies cost nothing to count and are never refused. Beyond that,
a body takes the bytes it receives from the budget. It returns them when its request has ended, since the endpoint keeps
the body until then.

An address (a /48 of IPv6, the largest block that one customer has) may hold as much as remains free (the *dynamic
threshold* of shared buffers in switches). One address alone gets half of the budget, two get a third each, so that
there is always space for another one. If a body does not fit:

1. The largest other address that holds more loses its slowest body.
2. Otherwise the body waits for a few seconds, provided that complete bodies are going to be released.
3. Otherwise the body's own address loses its slowest body, which may be this one.

A slow sender is therefore the first to be refused, and an address never loses a body to one that holds more.

Source: A. K. Choudhury and E. L. Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM
Transactions on Networking, 1998.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from aiproject.adapters.log import get_logger
from aiproject.adapters.net.deadline import Deadline
from aiproject.codes import Detail
from aiproject.errors import AiProjectError, TooManyRequests, Unavailable

__all__ = ["FREE_BYTES", "MIN_BUDGET_BYTES", "BodyBudget", "ReceiveBudget", "TooManyUploads"]

log = get_logger("web")

FREE_BYTES = 64 * 1024
"""Bytes of each body that are not counted; the longest body of the JSON endpoints."""

MIN_BUDGET_BYTES = 64 * 1024 * 1024
"""The smallest budget: one address may hold half of it, which must suffice for the largest body, 32 MiB."""

WAITING_SECONDS = 5.0
"""Seconds that a body may wait for free space in total; the client sees an upload that stalls."""

RETRY_SECONDS = 5
"""``Retry-After`` of a refusal: a call with a picture takes some seconds."""

WARNING_INTERVAL = 60.0
"""Seconds between two warnings that the budget is short."""


class NoRoomForBody(Unavailable):
    """The budget is exhausted and this body was selected for refusal; nothing was done and nothing was charged."""


class TooManyUploads(TooManyRequests):
    """The address already sends as many large bodies at once as it may."""


class BodyBudget:
    """The part of the budget that one body takes: ``with budget.enter(address) as body: …``.

    Attributes:
        refusal: the error with which the body was refused; ``None``: it was not refused.
        on_refused: called at the moment of the refusal, to interrupt a task that waits for the body's next bytes.
    """

    __slots__ = (
        "_budget",
        "_share",
        "_waiter",
        "address",
        "began",
        "held",
        "is_received",
        "on_refused",
        "refusal",
        "seen",
    )

    def __init__(self, budget: ReceiveBudget, address: str) -> None:
        self._budget = budget
        self._share: _Share | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.address = address
        self.began = asyncio.get_running_loop().time()
        self.seen = 0
        self.held = 0
        self.is_received = False
        self.refusal: AiProjectError | None = None
        self.on_refused: Callable[[], object] | None = None

    def __enter__(self) -> BodyBudget:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()
        # The refusal's traceback refers to the body's pieces and to this object. Without breaking that reference cycle,
        # the pieces would stay in memory until the next garbage collection, although the budget counts them as free.
        self.refusal = self.on_refused = None

    async def take(self, size: int) -> None:
        """Count bytes that were received.

        Raises:
            NoRoomForBody, TooManyUploads: the body must not go on.
        """
        # Another body may have displaced this one between the arrival of these bytes and now.
        if self.refusal is not None:
            raise self.refusal
        if self.is_received:
            return
        self.seen += size
        if self.seen <= FREE_BYTES:
            return
        if self._share is None:
            self._share = self._budget.admit(self)
        await self._budget.take(self, self._share, self.seen - FREE_BYTES - self.held)

    def finish(self) -> None:
        """Mark the body as complete: it is held until the request ends and can no longer be refused."""
        if not self.is_received:
            self.is_received = True
            if self._share is not None:
                self._share.receiving.pop(self, None)
                self._budget.held_by_whole += self.held

    def drop(self) -> None:
        """Return all bytes to the budget. The reader discards what still arrives, and it is not counted."""
        if self._share is not None:
            self._budget.give_back(self, self._share)
            self._share = None
        self.is_received = True

    def refuse(self, reason: AiProjectError) -> None:
        """Refuse the body and interrupt its request, whether that waits for free space or for the next bytes."""
        # First of all, so that everything which wakes up below finds the reason.
        self.refusal = reason
        self.drop()
        self.wake()
        if self.on_refused is not None:
            self.on_refused()

    def pace(self, now: float) -> float:
        """Return the bytes received per second. One second is added to the time.

        Without it, a body that has just begun would have a pace of nearly any size.
        """
        return self.seen / (now - self.began + 1.0)

    def wake(self) -> None:
        """Let the body check again whether there is free space."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, until: float) -> None:
        """Wait until `wake`, or until ``until`` in the loop's time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._waiter = loop.create_future()
        try:
            with Deadline(loop, until):
                await self._waiter
        except TimeoutError:
            return
        finally:
            self._waiter = None
            # The server caused this pause, so it must not lower the client's pace.
            self.began += loop.time() - began


class _Share:
    """The part of the budget that one address holds.

    Attributes:
        receiving: its bodies that are not complete yet; only those can be refused.
        bodies: the number of its bodies that are counted, complete ones included.
    """

    __slots__ = ("address", "bodies", "held", "receiving")

    def __init__(self, address: str) -> None:
        self.address = address
        self.bodies = 0
        self.held = 0
        # A dictionary as an ordered set: among bodies of the same pace, `slowest` returns the oldest.
        self.receiving: dict[BodyBudget, None] = {}

    def slowest(self, now: float) -> BodyBudget:
        return min(self.receiving, key=lambda body: body.pace(now))


class ReceiveBudget:
    """The budget of this process.

    Args:
        total: bytes; at least `MIN_BUDGET_BYTES`, so that the largest body fits.
        uploads_per_address: bodies over `FREE_BYTES` that one address may send at once; ``None``: any number.
        waiting_seconds: see `WAITING_SECONDS`.

    Attributes:
        held: bytes that all bodies hold now.
        held_by_whole: how many of them belong to complete bodies, which will be released without being refused.
    """

    def __init__(
        self, total: int, uploads_per_address: int | None = None, *, waiting_seconds: float = WAITING_SECONDS
    ) -> None:
        self._total = total
        self._uploads_per_address = uploads_per_address
        self._waiting_seconds = waiting_seconds
        self._shares: dict[str, _Share] = {}
        self._waiting: dict[BodyBudget, tuple[_Share, int]] = {}
        self._warn_at = 0.0
        self.held = 0
        self.held_by_whole = 0

    @property
    def addresses(self) -> int:
        """The number of addresses that hold a part of the budget."""
        return len(self._shares)

    def enter(self, address: str) -> BodyBudget:
        """Return the account of a new body of this address (see `aiproject.adapters.http.asgi.client_site`)."""
        return BodyBudget(self, address)

    def admit(self, body: BodyBudget) -> _Share:
        """Begin to count a body. If its address sends too many at once, the slowest of them is refused.

        Raises:
            TooManyUploads: this body is the slowest.
        """
        share = self._shares.get(body.address)
        if share is None:
            share = self._shares[body.address] = _Share(body.address)
        if self._uploads_per_address is not None and len(share.receiving) >= self._uploads_per_address:
            now = asyncio.get_running_loop().time()
            slowest = share.slowest(now)
            if slowest.pace(now) >= body.pace(now):
                raise TooManyUploads(1, Detail.TOO_MANY_AT_ONCE)
            # Before the refusal: `give_back` deletes a share without bodies.
            share.bodies += 1
            slowest.refuse(TooManyUploads(1, Detail.TOO_MANY_AT_ONCE))
        else:
            share.bodies += 1
        share.receiving[body] = None
        return share

    async def take(self, body: BodyBudget, share: _Share, size: int) -> None:
        """Take ``size`` bytes for a body, as soon as there is free space.

        Raises:
            NoRoomForBody, TooManyUploads: the body was refused.
        """
        until: float | None = None
        # A loop, since each refusal or wake-up may free less than is needed, or another body may be quicker.
        while not self._fits(share, size, self.held):
            rival = self._larger_rival(share, size)
            now = asyncio.get_running_loop().time()
            if rival is not None:
                self._refuse(rival.slowest(now))
            # Complete bodies return their bytes when their requests end. Without any, waiting frees nothing.
            elif self.held_by_whole and (until is None or now < until):
                until = now + self._waiting_seconds if until is None else until
                await self._wait(body, share, size, until)
            else:
                self._refuse(share.slowest(now))
            if body.refusal is not None:
                raise body.refusal
        self.held += size
        share.held += size
        body.held += size

    def give_back(self, body: BodyBudget, share: _Share) -> None:
        """Stop counting a body and wake the bodies that fit now."""
        if body.is_received:
            self.held_by_whole -= body.held
        share.receiving.pop(body, None)
        share.held -= body.held
        self.held -= body.held
        body.held = 0
        share.bodies -= 1
        if not share.bodies:
            del self._shares[share.address]
        self._wake_those_that_fit()

    def _wake_those_that_fit(self) -> None:
        """Wake the bodies for which there is free space, in the order of their arrival.

        Each body that wakes compares all addresses. If all were woken each time, the bodies of a thousand addresses
        would block the event loop.
        """
        held = self.held
        for body, (share, size) in self._waiting.items():
            if self._fits(share, size, held):
                held += size
                body.wake()

    def _fits(self, share: _Share, size: int, held: int) -> bool:
        # The dynamic threshold: after taking the bytes, an address holds at most what is still free.
        return share.held + size <= self._total - held - size

    def _larger_rival(self, share: _Share, size: int) -> _Share | None:
        """Return the largest of the other addresses that would still hold more than this one."""
        # Comparing with what this address would hold then prevents two addresses from displacing each other in turns.
        rivals = [rival for rival in self._shares.values() if rival.receiving and rival.held > share.held + size]
        return max(rivals, key=lambda rival: rival.held, default=None)

    async def _wait(self, body: BodyBudget, share: _Share, size: int, until: float) -> None:
        self._waiting[body] = share, size
        try:
            await body.wait(until)
        finally:
            del self._waiting[body]

    def _refuse(self, body: BodyBudget) -> None:
        now = asyncio.get_running_loop().time()
        # Under load this happens many times a second; one line a minute shows it without filling the log.
        if now >= self._warn_at:
            self._warn_at = now + WARNING_INTERVAL
            log.warning(
                "bodies are refused, the receive budget is short",
                held=self.held,
                budget=self._total,
                addresses=self.addresses,
            )
        body.refuse(NoRoomForBody("no room for the body", retry_after=RETRY_SECONDS))
