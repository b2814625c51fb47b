"""The hold of one call, from its commit to its settlement, on every path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from types import TracebackType

from aiproject.adapters.fault_points import fault_point
from aiproject.adapters.http.bodies import ClientGone
from aiproject.adapters.log import get_logger
from aiproject.errors import Reason, Refused, Unavailable, UpstreamFailed
from aiproject.ledger.model import Hold, Outcome, Stage
from aiproject.ledger.service import Quotas

__all__ = ["CallSettlement", "outcome_of"]

log = get_logger("relay")


# Formatted once, because each call passes several of them.
_FAULT_POINTS = {stage: f"at {stage}" for stage in Stage}


class CallSettlement:
    """Settles its hold on exit: by `settle` if the call ended well, otherwise by the exception that leaves the block.

    Attributes:
        hold: the committed hold.
        estimate: returns an estimate of what the call has consumed so far, in the hold's units.
        seen: returns an estimate of the prompt and of what has reached the caller, where that matters.
        charged: what the account was charged; 0 until the hold is settled.
    """

    def __init__(
        self,
        quotas: Quotas,
        hold: Hold,
        *,
        estimate: Callable[[], int] = lambda: 0,
        seen: Callable[[], int] = lambda: 0,
    ) -> None:
        self.hold = hold
        self.estimate = estimate
        self.seen = seen
        self.charged = 0
        self._quotas = quotas
        self._stage = Stage.HELD
        self._sid: str | None = None
        self._is_settled = False

    async def __aenter__(self) -> CallSettlement:
        fault_point("after hold")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_settled:
            return
        try:
            await self.settle(outcome_of(error))
        except Exception as failure:
            if error is None:
                raise
            # The caller must get the original error. The sweeper releases a hold that could not be settled.
            log.error("a failed call is not settled", request_id=self.hold.request_id, error=type(failure).__name__)

    def reached(self, stage: Stage, *, sid: str | None = None) -> None:
        """Record how far the call has come."""
        # If the process dies, the sweeper settles the call by the last stage that was written to the database.
        self._stage = stage
        self._sid = sid or self._sid
        self._quotas.note(self.hold, stage)
        fault_point(_FAULT_POINTS[stage])

    async def settle(
        self, outcome: Outcome, *, reported: int | None = None, answer: tuple[str, str, bytes] | None = None
    ) -> int:
        """Settle the hold by the table of charges; return what the account is charged.

        Only the first call has an effect; a later one returns 0.

        Args:
            reported: the units that the provider reported; ``None``: it reported none.
            answer: stored together with the settlement, see `aiproject.calls.idempotency`.

        Raises:
            KeyLost: the answer must not be sent; nothing is charged.
        """
        if self._is_settled:
            return 0
        # Set before anything is awaited: a cancellation during the settlement must not start a second one on exit.
        self._is_settled = True
        settle = partial(
            self._quotas.settle,
            self.hold,
            outcome,
            self._stage,
            reported=reported,
            # A number from the provider takes precedence over any estimate, whatever the outcome.
            estimated=0 if reported is not None and self._stage is Stage.LAST_FRAME else self.estimate(),
            # Only calls that did not finish count towards the bound of unpaid usage.
            seen=0 if outcome is Outcome.FINISHED else self.seen(),
            sid=self._sid,
            answer=answer,
        )
        try:
            self.charged = await settle()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if outcome is not Outcome.FINISHED or task is None:
                raise
            # The stopping server cancels its calls, but this one is about to be paid for: a command that was handed to
            # the ledger cannot be withdrawn. So the charge is awaited, and the answer sent. Settling again is safe,
            # because the ledger applies a settlement only once.
            task.uncancel()
            self.charged = await settle()
        fault_point("after settlement")
        return self.charged


_OUTCOMES = {
    Reason.MODERATED: Outcome.MODERATED,
    Reason.TIMED_OUT: Outcome.TIMED_OUT,
    Reason.TRUNCATED: Outcome.TRUNCATED,
}


def outcome_of(error: BaseException | None) -> Outcome:
    """Return the outcome in the table of charges that an exception stands for."""
    match error:
        case ClientGone():
            return Outcome.CLIENT_GONE
        case UpstreamFailed():
            return _OUTCOMES.get(error.reason, Outcome.UPSTREAM_FAILED)
        # The provider or a decoder refused the input after the hold: nothing was generated.
        case Refused():
            return Outcome.UPSTREAM_FAILED
        # None: the block ended without a settlement, which is never a success.
        case Unavailable() | asyncio.CancelledError() | None:
            return Outcome.SERVER_STOPPED
        case _:
            return Outcome.SERVER_FAILED
