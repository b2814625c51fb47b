"""The memory for request bodies: who gets it, who goes when it is short, and that all of it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog.testing

from aiproject.adapters.http.asgi import Message, Receive, Scope, Send
from aiproject.adapters.http.bodies import ClientGone, read_body, refuse_body
from aiproject.adapters.http.receive_budget import (
    FREE_BYTES,
    MIN_BUDGET_BYTES,
    BodyBudget,
    NoRoomForBody,
    ReceiveBudget,
    TooManyUploads,
)
from aiproject.api.legacy import files
from aiproject.api.openai import chat
from aiproject.codes import Code
from aiproject.errors import AiProjectError, BodyTooLarge, NotSignedIn, TooManyRequests
from aiproject.protocols.legacy import failure_of
from aiproject.web.middleware import BodiesMiddleware

KIB = 1024
TOTAL = 1024 * KIB
HASTY = 0.02
"""Seconds that a body waits for room here."""


def budget(uploads: int | None = None, *, waiting: float = HASTY) -> ReceiveBudget:
    return ReceiveBudget(TOTAL, uploads, waiting_seconds=waiting)


async def begin(budget: ReceiveBudget, address: str, size: int, *, age: float = 0.0) -> BodyBudget:
    """A body of which ``size`` counted bytes have come, in ``age`` seconds."""
    body = budget.enter(address)
    body.began -= age
    await body.take(FREE_BYTES + size)
    return body


def pot_left(pot: ReceiveBudget) -> int:
    return TOTAL - pot.held


class TestShares:
    async def test_small_bodies_are_not_counted_and_always_get_through(self) -> None:
        pot = budget()
        await begin(pot, "a", TOTAL // 2)
        await begin(pot, "b", TOTAL // 4)
        held = pot.held
        for number in range(1000):
            await pot.enter(f"{number % 7}").take(FREE_BYTES)
        assert pot.held == held

    async def test_one_address_gets_half_at_most(self) -> None:
        pot = budget()
        bodies = [await begin(pot, "a", TOTAL // 8) for _ in range(4)]
        assert pot.held == TOTAL // 2
        for _ in range(20):
            bodies.append(await begin(pot, "a", TOTAL // 8))
            assert pot.held <= TOTAL // 2
        assert sum(body.refusal is None for body in bodies) == 4

    async def test_there_is_always_room_for_one_more_address(self) -> None:
        pot = budget()
        for number in range(20):
            await begin(pot, f"hog{number}", pot_left(pot) // 2)
        late = await begin(pot, "late", 0)
        await late.take(TOTAL // 64)
        assert late.refusal is None

    async def test_the_largest_other_address_goes_first(self) -> None:
        pot = budget()
        hog = await begin(pot, "hog", TOTAL // 2)
        modest = await begin(pot, "modest", TOTAL // 8)
        honest = await begin(pot, "honest", TOTAL // 4)
        assert isinstance(hog.refusal, NoRoomForBody)
        assert (modest.refusal, honest.refusal) == (None, None)

    async def test_an_address_cannot_push_out_one_that_holds_less(self) -> None:
        pot = budget()
        modest = [await begin(pot, f"modest{number}", TOTAL // 16, age=100) for number in range(4)]
        for _ in range(200):
            with pytest.raises(NoRoomForBody):
                await begin(pot, "hog", TOTAL)
            await begin(pot, "hog", TOTAL // 16)
        assert [body.refusal for body in modest] == [None] * 4

    async def test_of_an_address_the_slowest_goes(self) -> None:
        pot = budget()
        drip = await begin(pot, "a", TOTAL // 8, age=60)
        swift = [await begin(pot, "a", TOTAL // 8) for _ in range(3)]
        another = await begin(pot, "a", TOTAL // 8)
        assert isinstance(drip.refusal, NoRoomForBody)
        assert [body.refusal for body in (*swift, another)] == [None] * 4

    async def test_it_is_told_as_503_with_the_time_to_wait_and_logged_once(self) -> None:
        pot = budget()
        with structlog.testing.capture_logs() as lines:
            for _ in range(3):
                with pytest.raises(NoRoomForBody) as refused:
                    await begin(pot, "a", TOTAL)
        failure = failure_of(refused.value, code=Code.MODEL_ERROR)
        assert (failure.status, failure.code) == (503, Code.SERVICE_UNAVAILABLE)
        assert refused.value.retry_after == 5
        assert [line["event"] for line in lines] == ["bodies are refused, the receive budget is short"]

    async def test_a_refused_body_does_not_go_on_with_what_came_meanwhile(self) -> None:
        pot = budget()
        hog = await begin(pot, "hog", TOTAL // 2)
        await begin(pot, "honest", TOTAL // 4 + KIB)
        held = pot.held
        with pytest.raises(NoRoomForBody):
            await hog.take(KIB)
        assert pot.held == held


class TestWaiting:
    async def test_a_body_waits_for_those_that_are_whole(self) -> None:
        pot = budget(waiting=30)
        whole = await begin(pot, "a", TOTAL // 2)
        whole.finish()
        waiting = asyncio.create_task(begin(pot, "a", TOTAL // 4))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        whole.drop()
        assert (await waiting).refusal is None
        assert pot.held == TOTAL // 4

    async def test_not_for_ever(self) -> None:
        pot = budget()
        (await begin(pot, "a", TOTAL // 2)).finish()
        with pytest.raises(NoRoomForBody):
            await begin(pot, "a", TOTAL // 4)

    async def test_whole_ones_are_never_refused(self) -> None:
        pot = budget()
        whole = await begin(pot, "hog", TOTAL // 2)
        whole.finish()
        with pytest.raises(NoRoomForBody):
            await begin(pot, "b", TOTAL // 2)
        assert whole.refusal is None
        assert (await begin(pot, "b", TOTAL // 8)).refusal is None

    async def test_one_that_waits_can_be_the_one_to_go(self) -> None:
        pot = budget(waiting=30)
        whole = await begin(pot, "other", TOTAL // 3)
        whole.finish()
        slow = await begin(pot, "hog", TOTAL // 3, age=100)
        waiting = asyncio.create_task(slow.take(TOTAL // 3))
        await asyncio.sleep(0.01)
        await begin(pot, "c", TOTAL // 4)
        with pytest.raises(NoRoomForBody):
            await asyncio.wait_for(waiting, 5)

    async def test_only_those_are_woken_for_whom_there_is_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Waking all each time is work that grows with the square of the addresses that wait."""
        pot = budget(waiting=30)
        whole = await begin(pot, "a", TOTAL // 2)
        whole.finish()
        small = [await begin(pot, "a small one", 8 * KIB) for _ in range(4)]
        for body in small:
            body.finish()
        waits = 0
        wait = BodyBudget.wait

        async def counted(body: BodyBudget, until: float) -> None:
            nonlocal waits
            waits += 1
            await wait(body, until)

        monkeypatch.setattr(BodyBudget, "wait", counted)
        waiting = [asyncio.create_task(begin(pot, f"{number}", TOTAL // 4)) for number in range(100)]
        async with running(*waiting):
            await asyncio.sleep(0.01)
            assert waits == 100
            for body in small:
                body.drop()
                await asyncio.sleep(0.001)
            assert waits == 100, "there is no room yet"
            whole.drop()
            await asyncio.sleep(0.01)
            assert sum(task.done() for task in waiting) == 3
            assert waits <= 101


class TestUploadsAtOnce:
    async def test_the_slowest_of_too_many_goes(self) -> None:
        pot = budget(2)
        slow = await begin(pot, "a", KIB, age=60)
        swift = await begin(pot, "a", KIB)
        newest = await begin(pot, "a", KIB)
        assert isinstance(slow.refusal, TooManyUploads)
        assert (swift.refusal, newest.refusal) == (None, None)

    async def test_that_may_be_the_newest(self) -> None:
        pot = budget(1)
        first = await begin(pot, "a", 100 * KIB)
        with pytest.raises(TooManyRequests):
            await begin(pot, "a", KIB, age=60)
        assert first.refusal is None

    async def test_other_addresses_are_not_concerned(self) -> None:
        pot = budget(1)
        bodies = [await begin(pot, f"{number}", KIB) for number in range(10)]
        assert [body.refusal for body in bodies] == [None] * 10

    async def test_whole_ones_do_not_count(self) -> None:
        pot = budget(1)
        first = await begin(pot, "a", KIB)
        first.finish()
        await begin(pot, "a", KIB)
        assert first.refusal is None


# -- behind the middleware ---------------------------------------------------------------------------------------------


class Client:
    """Sends a body in pieces of 64 KiB, and then hangs up, stops, or has sent all of it."""

    def __init__(self, pieces: int, end: str) -> None:
        self._left = pieces
        self.end = end

    async def receive(self) -> Message:
        await asyncio.sleep(0)
        self._left -= 1
        if self._left >= 0:
            return {"type": "http.request", "body": bytes(64 * KIB), "more_body": self._left or self.end != "whole"}
        if self.end == "gone":
            return {"type": "http.disconnect"}
        await asyncio.sleep(3600)
        raise AssertionError("nobody waits as long")


async def ignore(message: Message) -> None: ...


def post(address: str) -> Scope:
    return {"type": "http", "client": (address, 1), "headers": [(b"transfer-encoding", b"chunked")]}


async def read_and_fail(scope: Scope, receive: Receive, send: Send) -> None:
    body = await read_body(receive, scope["headers"], limit=TOTAL // 4)
    await asyncio.sleep(0.001)
    if len(body) == 128 * KIB:
        raise RuntimeError("a bug")


async def stop_in_the_middle(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await receive()


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await refuse_body(receive, scope["headers"], NotSignedIn())


@asynccontextmanager
async def running(*calls: asyncio.Task[Any]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_after_a_storm_of_every_kind_of_end_nothing_is_held() -> None:
    chance = random.Random(7)
    pot = budget(5)
    seen: set[type[BaseException] | None] = set()

    async def call(number: int) -> None:
        application = chance.choice([read_and_fail, read_and_fail, stop_in_the_middle, refuse])
        client = Client(chance.randrange(2, 9), chance.choice(["whole", "whole", "gone", "silent"]))
        patience = 0.05 if client.end == "silent" else 5.0
        call = asyncio.ensure_future(
            BodiesMiddleware(application, patience, pot)(post(f"192.0.2.{number % 9}"), client.receive, ignore)
        )
        if number % 10 == 0:
            asyncio.get_running_loop().call_later(0.002, call.cancel)
        (error,) = await asyncio.gather(call, return_exceptions=True)
        seen.add(None if error is None else type(error))

    await asyncio.gather(*(call(number) for number in range(600)))
    assert seen >= {None, RuntimeError, ClientGone, NotSignedIn, asyncio.CancelledError, NoRoomForBody, TooManyUploads}
    assert (pot.held, pot.held_by_whole) == (0, 0)
    assert pot.addresses == 0


@pytest.mark.parametrize(
    ("pieces", "end", "total", "uploads"),
    [
        pytest.param(6, "whole", TOTAL, None, id="whole"),
        pytest.param(6, "gone", TOTAL, None, id="client gone"),
        pytest.param(6, "silent", TOTAL, None, id="too slow"),
        pytest.param(9, "whole", TOTAL, None, id="too large"),
        pytest.param(6, "whole", TOTAL // 4, None, id="no room"),
        pytest.param(6, "whole", TOTAL, 1, id="too many uploads"),
    ],
)
async def test_the_memory_of_an_ended_body_does_not_wait_for_the_garbage_collector(
    pieces: int, end: str, total: int, uploads: int | None
) -> None:
    """What is given back must be free, or refused bodies take memory beside the budget."""
    pot = ReceiveBudget(total, uploads, waiting_seconds=0.0)
    rival = await begin(pot, "192.0.2.1", 128 * KIB) if uploads else None
    client = Client(pieces, end)
    is_freed = weakref.ref(client)
    gc.collect()
    gc.disable()
    try:
        await asyncio.create_task(as_task_of_a_server(BodiesMiddleware(read_half, 0.05, pot), "192.0.2.1", client))
        del client
        assert is_freed() is None
    finally:
        gc.enable()
    if rival is not None:
        rival.drop()
    assert pot.held == 0


async def as_task_of_a_server(application: BodiesMiddleware, address: str, client: Client) -> None:
    with contextlib.suppress(AiProjectError, ClientGone):
        await application(post(address), client.receive, ignore)


async def read_half(scope: Scope, receive: Receive, send: Send) -> None:
    await read_body(receive, scope["headers"], limit=TOTAL // 2)


async def test_what_is_thrown_away_is_not_counted() -> None:
    """Thirty megabytes that nobody keeps push nobody out."""
    pot = budget()
    honest = await begin(pot, "honest", TOTAL // 8)

    async def read_little(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive, scope["headers"], limit=128 * KIB)

    with pytest.raises(BodyTooLarge):
        await BodiesMiddleware(read_little, 5.0, pot)(post("198.51.100.1"), Client(500, "whole").receive, ignore)
    assert honest.refusal is None
    assert pot.held == TOTAL // 8


async def test_a_customers_ipv6_networks_share_one_part() -> None:
    """A /56, as homes get it, has 256 networks: counted one by one they would leave hardly anything to others."""
    pot = budget()
    drips = [
        asyncio.create_task(
            as_task(BodiesMiddleware(read_to_end, 60.0, pot), f"2001:db8:1:{number:x}::1", Client(2, "silent"))
        )
        for number in range(12)
    ]
    async with running(*drips):
        await asyncio.sleep(0.05)
        assert pot.addresses == 1
        assert pot.held <= TOTAL // 2
        assert (await begin(pot, "192.0.2.1", TOTAL // 4)).refusal is None


async def test_a_refused_sender_is_not_waited_for() -> None:
    """A drip that is silent at the moment of its refusal goes at once, not with its next byte."""
    pot = budget()
    slow = asyncio.create_task(as_task(BodiesMiddleware(read_to_end, 60.0, pot), "198.51.100.1", Client(7, "silent")))
    async with running(slow):
        await asyncio.sleep(0.05)
        assert pot.held == 6 * 64 * KIB
        await begin(pot, "192.0.2.1", 350 * KIB)
        with pytest.raises(NoRoomForBody):
            await asyncio.wait_for(asyncio.shield(slow), 5)


async def read_to_end(scope: Scope, receive: Receive, send: Send) -> None:
    await read_body(receive, scope["headers"], limit=TOTAL)


async def as_task(application: BodiesMiddleware, address: str, client: Client) -> None:
    await application(post(address), client.receive, ignore)


@pytest.mark.parametrize("largest", [chat.MAX_BODY_BYTES, files.MAX_UPLOAD_BYTES])
async def test_the_smallest_budget_has_room_for_the_largest_body_of_each_api(largest: int) -> None:
    budget = ReceiveBudget(MIN_BUDGET_BYTES)
    with budget.enter("192.0.2.1") as body:
        for _ in range(largest // FREE_BYTES):
            await body.take(FREE_BYTES)
        body.finish()
        assert budget.held == largest - FREE_BYTES
    assert budget.held == 0
