"""Running calls: counted, given their grace, then ended with a reason."""

from __future__ import annotations

import asyncio

import pytest

from aiproject.calls.running import RunningCalls
from aiproject.errors import Unavailable
from virtual_time import run


class Stream:
    """Waits until it is aborted, then takes ``farewell`` seconds to end its call."""

    def __init__(self, *, farewell: float = 0.0) -> None:
        self.reasons: list[BaseException] = []
        self.farewell = farewell
        self._aborted = asyncio.Event()

    def abort(self, reason: BaseException) -> None:
        self.reasons.append(reason)
        self._aborted.set()

    async def play(self, calls: RunningCalls) -> str:
        with calls.enter(), calls.streaming(self):
            await self._aborted.wait()
            await asyncio.sleep(self.farewell)
            return "told why"


async def work(calls: RunningCalls, seconds: float) -> str:
    with calls.enter():
        await asyncio.sleep(seconds)
        return "done"


def now() -> float:
    return asyncio.get_running_loop().time()


def test_calls_are_counted_while_they_run() -> None:
    async def scenario() -> None:
        calls = RunningCalls()
        tasks = [asyncio.create_task(work(calls, seconds)) for seconds in (1, 2)]
        await asyncio.sleep(0.5)
        assert len(calls) == 2
        await asyncio.sleep(1)
        assert len(calls) == 1
        await asyncio.gather(*tasks)
        assert len(calls) == 0

    run(scenario())


def test_a_call_that_fails_counts_no_more() -> None:
    async def scenario() -> None:
        calls = RunningCalls()
        with pytest.raises(ZeroDivisionError), calls.enter():
            raise ZeroDivisionError
        assert len(calls) == 0

    run(scenario())


def test_no_new_call_once_draining() -> None:
    async def scenario() -> None:
        calls = RunningCalls()
        before = calls.is_draining
        await calls.drain(10)
        assert (before, calls.is_draining) == (False, True)
        with pytest.raises(Unavailable) as caught, calls.enter():
            pytest.fail("let in")
        assert caught.value.retry_after == 5

    run(scenario())


def test_an_idle_server_stops_at_once() -> None:
    async def scenario() -> None:
        began = now()
        await RunningCalls().drain(20)
        assert now() == began

    run(scenario())


def test_calls_end_by_themselves_within_the_grace() -> None:
    async def scenario() -> None:
        calls = RunningCalls()
        task = asyncio.create_task(work(calls, 7))
        await asyncio.sleep(0)
        began = now()
        await calls.drain(20)
        assert task.result() == "done"
        assert 7 <= now() - began <= 7.3

    run(scenario())


def test_streams_are_ended_with_a_reason_after_the_grace() -> None:
    async def scenario() -> None:
        calls = RunningCalls()
        stream = Stream(farewell=0.5)
        task = asyncio.create_task(stream.play(calls))
        await asyncio.sleep(0)
        began = now()
        await calls.drain(20)
        assert task.result() == "told why"
        assert 20.5 <= now() - began < 21
        (reason,) = stream.reasons
        assert isinstance(reason, Unavailable)

    run(scenario())


def test_who_does_not_end_is_cancelled() -> None:
    async def scenario() -> None:
        calls = RunningCalls()
        tasks = [asyncio.create_task(work(calls, 3600)), asyncio.create_task(Stream(farewell=3600).play(calls))]
        await asyncio.sleep(0)
        began = now()
        await calls.drain(5)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 2
        assert now() - began == pytest.approx(7, abs=0.01)
        assert len(calls) == 0

    run(scenario())


def test_a_second_signal_ends_the_grace() -> None:
    async def scenario() -> None:
        calls = RunningCalls()
        stream = Stream()
        task = asyncio.create_task(stream.play(calls))
        await asyncio.sleep(0)
        began = now()
        await calls.drain(3600, skip_grace=lambda: now() - began > 1)
        assert task.result() == "told why"
        assert now() - began < 2

    run(scenario())


def test_no_grace_at_all() -> None:
    async def scenario() -> None:
        calls = RunningCalls()
        stream = Stream()
        task = asyncio.create_task(stream.play(calls))
        await asyncio.sleep(0)
        began = now()
        await calls.drain(0)
        assert task.result() == "told why"
        assert now() == began

    run(scenario())


def test_a_finished_stream_is_not_aborted() -> None:
    async def scenario() -> None:
        calls = RunningCalls()
        stream = Stream()
        with calls.enter(), calls.streaming(stream):
            pass
        await calls.drain(0)
        assert stream.reasons == []

    run(scenario())
