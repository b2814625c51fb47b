"""How fast a body must come: the rate holds over its whole length, whatever the pattern."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from aiproject.adapters.http.asgi import Message, Receive
from aiproject.adapters.http.receiving import MIN_BODY_RATE, PacedReceive
from aiproject.errors import BodyTooSlow


def sender(*pieces: tuple[float, int]) -> Receive:
    """A client that waits and sends so many bytes, again and again; then it is silent."""
    left: Iterator[tuple[float, int]] = iter(pieces)

    async def receive() -> Message:
        wait, size = next(left, (3600.0, 0))
        await asyncio.sleep(wait)
        return {"type": "http.request", "body": bytes(size), "more_body": True}

    return receive


async def read_on(receive: PacedReceive) -> None:
    while True:
        await receive()


async def seconds_until_cut(receive: PacedReceive) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(BodyTooSlow):
        await read_on(receive)
    return loop.time() - began


async def test_bytes_that_came_fast_are_no_credit_for_a_drip() -> None:
    """A megabyte at once would otherwise buy four minutes."""
    drip = [(0.02, 1)] * 1000
    assert await seconds_until_cut(PacedReceive(sender((0, 1024 * 1024), *drip), 0.2)) < 2


async def test_a_body_at_the_smallest_rate_ends_with_the_time_for_the_whole() -> None:
    steady = [(0.01, MIN_BODY_RATE)] * 10_000
    seconds = await seconds_until_cut(PacedReceive(sender(*steady), 5, longest=0.3))
    assert 0.25 < seconds < 3


async def test_somebody_who_stalls_and_catches_up_is_served() -> None:
    stalling = [(0.15, MIN_BODY_RATE), (0.0, MIN_BODY_RATE)] * 4
    receive = PacedReceive(sender(*stalling), 1.0)
    for _ in stalling:
        await receive()
