"""One call's hold is settled once, on every way out."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from aiproject.adapters.http.bodies import ClientGone
from aiproject.calls.settlement import CallSettlement, outcome_of
from aiproject.errors import (
    InvalidInput,
    QuotaExhausted,
    Unavailable,
    UnusableFile,
    UpstreamFailed,
    UpstreamProtocolViolation,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from aiproject.ledger.model import Hold, KeyLost, Meter, Outcome, Stage
from aiproject.ledger.service import Quotas
from aiproject.protocols.iflytek.error_codes import Service, refusal

HOLD = Hold(1, Meter.TOKENS, 100, "request")
FINISHED, GIVEN = Outcome.FINISHED, ("account 1", "key", b"answer")


class Recorder:
    """Stands for `Quotas`: writes down what is settled, slowly or not at all if told so."""

    def __init__(self, *, pause: float = 0.0, failure: Exception | None = None) -> None:
        self.orders: list[tuple[Outcome, Stage, dict[str, Any]]] = []
        self.notes: list[Stage] = []
        self._pause = pause
        self._failure = failure

    def note(self, hold: Hold, stage: Stage) -> None:
        assert hold is HOLD
        self.notes.append(stage)

    async def settle(self, hold: Hold, outcome: Outcome, stage: Stage, **facts: Any) -> int:
        assert hold is HOLD
        self.orders.append((outcome, stage, facts))
        await asyncio.sleep(self._pause)
        if self._failure is not None:
            raise self._failure
        return 42


def charge_on(recorder: Recorder) -> CallSettlement:
    return CallSettlement(cast("Quotas", recorder), HOLD, estimate=lambda: 7)


class TestWaysOut:
    async def test_a_finished_call_is_settled_by_itself(self) -> None:
        recorder = Recorder()
        async with charge_on(recorder) as charge:
            charge.reached(Stage.SENT)
            charge.reached(Stage.LAST_FRAME, sid="sid")
            assert await charge.settle(FINISHED, reported=9, answer=GIVEN) == 42
        assert recorder.notes == [Stage.SENT, Stage.LAST_FRAME]
        facts = {"reported": 9, "estimated": 0, "seen": 0, "sid": "sid", "answer": GIVEN}
        assert recorder.orders == [(FINISHED, Stage.LAST_FRAME, facts)]

    async def test_of_a_failed_call_it_counts_what_was_seen(self) -> None:
        recorder = Recorder()
        charge = CallSettlement(cast("Quotas", recorder), HOLD, estimate=lambda: 7, seen=lambda: 5)
        charge.reached(Stage.FIRST_FRAME)
        with pytest.raises(UpstreamTruncated):
            async with charge:
                raise UpstreamTruncated
        ((_, _, facts),) = recorder.orders
        assert (facts["estimated"], facts["seen"]) == (7, 5)

    async def test_only_the_first_order_counts(self) -> None:
        recorder = Recorder()
        async with charge_on(recorder) as charge:
            await charge.settle(Outcome.TRUNCATED)
            assert await charge.settle(FINISHED) == 0
        assert [order[0] for order in recorder.orders] == [Outcome.TRUNCATED]

    @pytest.mark.parametrize("error", [UpstreamTruncated(), ClientGone(), LookupError()])
    async def test_an_error_settles_it_and_goes_on(self, error: Exception) -> None:
        recorder = Recorder()
        charge = charge_on(recorder)
        charge.reached(Stage.FIRST_FRAME)
        with pytest.raises(type(error)):
            async with charge:
                raise error
        assert [order[:2] for order in recorder.orders] == [(outcome_of(error), Stage.FIRST_FRAME)]

    async def test_being_left_without_a_word_is_no_success(self) -> None:
        recorder = Recorder()
        async with charge_on(recorder):
            pass
        assert [order[:2] for order in recorder.orders] == [(Outcome.SERVER_STOPPED, Stage.HELD)]

    async def test_a_failing_settlement_does_not_hide_the_error(self) -> None:
        with pytest.raises(UpstreamTruncated):
            async with charge_on(Recorder(failure=Unavailable("away"))):
                raise UpstreamTruncated

    async def test_a_lost_key_is_told(self) -> None:
        recorder = Recorder(failure=KeyLost("in other hands"))
        with pytest.raises(KeyLost):
            async with charge_on(recorder) as charge:
                await charge.settle(FINISHED, reported=9, answer=GIVEN)
        assert len(recorder.orders) == 1


class TestCancellation:
    """A stopping server cancels the calls that are left."""

    async def cancelled_in(self, outcome: Outcome) -> tuple[Recorder, asyncio.Task[int]]:
        recorder = Recorder(pause=0.01)

        async def call() -> int:
            async with charge_on(recorder) as charge:
                charge.reached(Stage.LAST_FRAME)
                charged = await charge.settle(outcome, reported=9)
                await asyncio.sleep(0)  # the answer leaves; not cancelled any more
                return charged

        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert recorder.orders
        task.cancel()
        await asyncio.wait([task])
        return recorder, task

    async def test_lets_an_answer_out_that_is_being_paid_for(self) -> None:
        recorder, task = await self.cancelled_in(FINISHED)
        assert task.result() == 42
        assert len(recorder.orders) == 2, "the same order again, which the books take for one"
        assert recorder.orders[0] == recorder.orders[1]

    async def test_ends_a_call_that_failed(self) -> None:
        recorder, task = await self.cancelled_in(Outcome.TRUNCATED)
        assert task.cancelled()
        assert len(recorder.orders) == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome.SERVER_STOPPED),
        (ClientGone(), Outcome.CLIENT_GONE),
        (UpstreamTimeout("gap", 1.0), Outcome.TIMED_OUT),
        (UpstreamTruncated(), Outcome.TRUNCATED),
        (refusal(Service.SPARK, 10013, "", None), Outcome.MODERATED),
        (refusal(Service.SPARK, 10014, "", None), Outcome.MODERATED),
        (refusal(Service.SPARK, 10012, "", None), Outcome.UPSTREAM_FAILED),
        (UpstreamRefused(), Outcome.UPSTREAM_FAILED),
        (UpstreamProtocolViolation(), Outcome.UPSTREAM_FAILED),
        (UpstreamUnreachable(), Outcome.UPSTREAM_FAILED),
        (UpstreamFailed(), Outcome.UPSTREAM_FAILED),
        (InvalidInput(), Outcome.UPSTREAM_FAILED),
        (UnusableFile(), Outcome.UPSTREAM_FAILED),
        (QuotaExhausted("tokens"), Outcome.UPSTREAM_FAILED),
        (Unavailable("stopping"), Outcome.SERVER_STOPPED),
        (asyncio.CancelledError(), Outcome.SERVER_STOPPED),
        (LookupError(), Outcome.SERVER_FAILED),
        (TimeoutError(), Outcome.SERVER_FAILED),
    ],
)
def test_what_an_error_means_for_the_table(error: BaseException | None, outcome: Outcome) -> None:
    assert outcome_of(error) is outcome
