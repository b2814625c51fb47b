"""Calls that wait for quota: in order, no longer than allowed, and without anybody asking again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.errors import AccountUnknown, QuotaBusy, QuotaExhausted, Unavailable
from aiproject.ledger.account_store import Balance
from aiproject.ledger.model import Hold, Meter, OpenHold
from aiproject.ledger.waiting import HoldQueue
from virtual_time import run

WAIT = 10.0


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Ledger:
    """One account's tokens, kept without a database; what holds leave is free.

    Attributes:
        served: request ids in the order in which their holds were opened.
        tries: how often a hold was asked for.
        looks: when balances were read.
    """

    balance: int | None
    held: int = 0
    wait: float = WAIT
    is_away: bool = False
    served: list[str] = field(default_factory=list)
    tries: int = 0
    looks: list[float] = field(default_factory=list)
    transactions: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.queue = HoldQueue(self.attempt, self.read, self.wait)

    async def attempt(self, command: OpenHold) -> Hold:
        self.tries += 1
        async with self.transactions:
            await asyncio.sleep(0.001)
        if self.balance is not None:
            if self.balance < command.least:
                raise QuotaExhausted(command.capability)
            if self.balance - self.held < command.least:
                raise QuotaBusy(command.capability)
        self.held += command.want
        self.served.append(command.request_id)
        return Hold(command.account_id, command.capability, command.want, command.request_id)

    async def read(self, account_ids: Collection[int]) -> Mapping[tuple[int, Meter], Balance]:
        assert set(account_ids) == {1}
        self.looks.append(now())
        if self.is_away:
            raise Unavailable("the database is away")
        return {(1, Meter.TOKENS): Balance(self.balance, self.held)}

    def free(self, units: int, *, is_ours: bool = True) -> None:
        """Give held units back; those of another process wake nobody here."""
        self.held -= units
        if is_ours:
            self.queue.freed(1, Meter.TOKENS)

    def call(self, name: str, units: int) -> asyncio.Task[Hold]:
        command = OpenHold(1, Meter.TOKENS, units, units, name, 1, "here", 30_000, "{}")
        return asyncio.create_task(self.queue.hold(command))


async def refusal(task: asyncio.Task[Hold]) -> type[object]:
    """Wait for a call that is refused, and return how."""
    return type((await asyncio.gather(task, return_exceptions=True))[0])


class TestWaiting:
    def test_a_call_is_served_as_soon_as_enough_is_free(self) -> None:
        async def scenario() -> None:
            ledger = Ledger(100, held=100)
            call, started = ledger.call("a", 40), now()
            await asyncio.sleep(3.3)
            assert not call.done()
            ledger.free(40)
            await call
            assert now() - started == pytest.approx(3.301)
            assert ledger.tries == 2  # between them nobody asked
            assert len(ledger.looks) == 3

        run(scenario())

    def test_in_vain_it_is_refused_within_the_time(self) -> None:
        async def scenario() -> None:
            ledger = Ledger(100, held=100)
            call, started = ledger.call("a", 40), now()
            assert await refusal(call) is QuotaBusy
            assert WAIT - 0.5 < now() - started <= WAIT
            assert ledger.tries == 2
            await asyncio.sleep(5)
            assert len(ledger.looks) <= WAIT + 1  # and none while nobody waits

        run(scenario())

    @pytest.mark.parametrize(("balance", "wait", "error"), [(30, WAIT, QuotaExhausted), (100, 0.0, QuotaBusy)])
    def test_who_need_not_wait_is_refused_at_once(self, balance: int, wait: float, error: type[Exception]) -> None:
        async def scenario() -> None:
            ledger = Ledger(balance, held=balance, wait=wait)
            started = now()
            assert await refusal(ledger.call("a", 40)) is error
            assert now() - started < 0.1
            assert not ledger.looks

        run(scenario())

    def test_what_other_processes_free_is_seen_by_one_look_a_second(self) -> None:
        async def scenario() -> None:
            ledger = Ledger(100, held=100)
            calls = [ledger.call(f"{number}", 10) for number in range(10)]
            await asyncio.sleep(2.5)
            ledger.free(100, is_ours=False)
            await asyncio.gather(*calls)
            assert ledger.served == [f"{number}" for number in range(10)]
            assert len(ledger.looks) == 3

        run(scenario())

    def test_what_came_free_in_the_very_batch_that_refused_is_not_overlooked(self) -> None:
        async def scenario() -> None:
            ledger = Ledger(100, held=100)
            call, started = ledger.call("a", 40), now()
            await asyncio.sleep(0.0005)  # while its attempt is on its way
            ledger.queue.freed(1, Meter.TOKENS)
            ledger.balance = 200
            await call
            assert now() - started < 0.1

        run(scenario())

    def test_an_account_that_has_too_little_by_now_ends_the_wait(self) -> None:
        async def scenario() -> None:
            ledger = Ledger(100, held=100)
            large, small, started = ledger.call("large", 80), ledger.call("small", 10), now()
            await asyncio.sleep(0.5)
            ledger.balance, ledger.held = 50, 50
            assert await refusal(large) is QuotaExhausted
            assert now() - started < 2
            ledger.free(10)
            await small

        run(scenario())

    def test_an_account_that_is_unmetered_or_gone_by_now_is_tried(self) -> None:
        async def scenario() -> None:
            ledger = Ledger(100, held=100)
            calls = [ledger.call("a", 50), ledger.call("b", 60)]
            await asyncio.sleep(0.5)
            ledger.balance = None
            await asyncio.gather(*calls)

            async def unknown(command: OpenHold) -> Hold:
                raise QuotaBusy(command.capability) if not gone else AccountUnknown

            async def nothing(_: Collection[int]) -> Mapping[tuple[int, Meter], Balance]:
                gone.append(True)
                return {}

            gone: list[bool] = []
            ledger.queue = HoldQueue(unknown, nothing, WAIT)
            assert await refusal(ledger.call("c", 1)) is AccountUnknown

        run(scenario())

    def test_a_database_that_is_away_is_looked_at_again(self) -> None:
        async def scenario() -> None:
            ledger = Ledger(100, held=100)
            call = ledger.call("a", 40)
            ledger.is_away = True
            await asyncio.sleep(2.5)
            ledger.is_away = False
            ledger.free(40, is_ours=False)
            await call
            assert len(ledger.looks) == 3

        run(scenario())

    def test_a_line_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aiproject.ledger.waiting.MAX_WAITING", 3)

        async def scenario() -> None:
            ledger = Ledger(100, held=100)
            calls = [ledger.call(f"{number}", 10) for number in range(4)]
            started = now()
            assert await refusal(calls[3]) is QuotaBusy
            assert now() - started < 0.1
            ledger.free(30)
            await asyncio.gather(*calls[:3])

        run(scenario())


class TestOrder:
    def test_a_small_call_does_not_overtake_a_large_one(self) -> None:
        async def scenario() -> None:
            ledger = Ledger(100, held=95)
            large = ledger.call("large", 90)
            await asyncio.sleep(0.1)
            small = ledger.call("small", 5)  # for which enough is free
            await asyncio.sleep(2)
            assert not small.done()
            ledger.free(95)
            await asyncio.gather(large, small)
            assert ledger.served == ["large", "small"]

        run(scenario())

    def test_who_leaves_makes_room_at_once(self) -> None:
        async def scenario() -> None:
            ledger = Ledger(100, held=90)
            large = ledger.call("large", 90)
            await asyncio.sleep(0.1)
            small, started = ledger.call("small", 5), now()
            await asyncio.sleep(0.5)
            large.cancel()
            await small
            assert now() - started < 0.6
            assert ledger.served == ["small"]
            assert large.cancelled()

        run(scenario())

    @given(
        sizes=st.lists(st.integers(1, 100), min_size=1, max_size=12),
        ends=st.lists(st.tuples(st.floats(0.01, 2.0), st.integers(1, 60)), max_size=20),
        leaving=st.sets(st.integers(0, 11), max_size=3),
    )
    def test_calls_are_served_in_the_order_in_which_they_came(
        self, sizes: list[int], ends: list[tuple[float, int]], leaving: set[int]
    ) -> None:
        """Whatever comes free and when, and whoever leaves: never too much, never too late, in order."""

        async def scenario() -> None:
            ledger = Ledger(100, held=100)
            started = now()
            finished: list[float] = []
            calls = [ledger.call(f"{number}", size) for number, size in enumerate(sizes)]
            for call in calls:
                call.add_done_callback(lambda _: finished.append(now() - started))
            await asyncio.sleep(0.01)
            for number in leaving & set(range(len(calls))):
                calls[number].cancel()
            for pause, units in ends:
                await asyncio.sleep(pause)
                ledger.free(min(units, ledger.held), is_ours=units % 3 > 0)
                assert 0 <= ledger.held <= 100
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(each, Hold | QuotaBusy | asyncio.CancelledError) for each in results)
            assert ledger.served == sorted(ledger.served, key=int)
            assert all(seconds <= WAIT for seconds in finished)
            assert ledger.held <= 100

        run(scenario())


class TestEnds:
    def test_a_stopping_server_ends_the_waits(self) -> None:
        async def scenario() -> None:
            ledger = Ledger(100, held=100)
            calls = [ledger.call(f"{number}", 10) for number in range(3)]
            await asyncio.sleep(1.5)
            started = now()
            ledger.queue.stop()
            assert {await refusal(call) for call in calls} == {Unavailable}
            assert await refusal(ledger.call("late", 10)) is QuotaBusy
            assert now() - started < 0.1
            ledger.held = 0
            await ledger.call("who need not wait", 10)

        run(scenario())

    def test_the_watch_is_opened_for_a_wait_only_and_ends_it(self) -> None:
        async def scenario() -> None:
            ledger = Ledger(100)
            watched: list[str] = []

            @contextmanager
            def watch() -> Iterator[None]:
                watched.append("opened")
                try:
                    yield
                finally:
                    watched.append("closed")

            def command(name: str) -> OpenHold:
                return OpenHold(1, Meter.TOKENS, 60, 60, name, 1, "here", 30_000, "{}")

            await ledger.queue.hold(command("a"), watch)
            assert watched == []
            waiting = asyncio.create_task(ledger.queue.hold(command("b"), watch))
            await asyncio.sleep(1)
            assert watched == ["opened"]
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert watched == ["opened", "closed"]
            ledger.free(60)
            await ledger.queue.hold(command("c"), watch)
            assert watched == ["opened", "closed"]

        run(scenario())
