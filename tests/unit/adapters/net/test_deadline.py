"""Deadlines: in made-up time."""

from __future__ import annotations

import asyncio

import pytest

from aiproject.adapters.net.deadline import Deadline
from virtual_time import run


def within(seconds: float) -> Deadline:
    loop = asyncio.get_running_loop()
    return Deadline(loop, loop.time() + seconds)


def test_what_ends_in_time_is_left_alone() -> None:
    async def scenario() -> None:
        with within(1):
            await asyncio.sleep(0.5)
        await asyncio.sleep(2)
        with pytest.raises(ZeroDivisionError), within(1):
            raise ZeroDivisionError

    run(scenario())


def test_what_takes_longer_ends_then_and_the_task_goes_on() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimeoutError), within(1):
            await asyncio.sleep(3600)
        assert loop.time() - began == pytest.approx(1)
        await asyncio.sleep(1)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    run(scenario())


@pytest.mark.parametrize(("inner", "outer"), [(1.0, 2.0), (2.0, 1.0), (1.0, 1.0)])
def test_the_nearer_of_two_ends_it(inner: float, outer: float) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimeoutError), within(outer), within(inner):
            await asyncio.sleep(3600)
        assert loop.time() - began == pytest.approx(1)

    run(scenario())


def test_a_cancellation_by_somebody_else_stays_one() -> None:
    async def wait() -> None:
        with within(1):
            await asyncio.sleep(3600)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        for moment in (0.5, 1.0):  # before it, and in the same turn of the loop
            task = asyncio.create_task(wait())
            await asyncio.sleep(0)
            loop.call_later(moment, task.cancel)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()

    run(scenario())


def test_what_failed_as_it_was_ended_tells_its_own_failure() -> None:
    async def scenario() -> None:
        async def break_when_cancelled() -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                raise ZeroDivisionError from None

        with pytest.raises(ZeroDivisionError), within(1):
            await break_when_cancelled()
        await asyncio.sleep(1)

    run(scenario())


def test_it_needs_a_task() -> None:
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(RuntimeError, match="needs a task"):
            Deadline(loop, 0.0)
    finally:
        loop.close()
