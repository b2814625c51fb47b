"""One call's hold, from the moment it is committed to its settlement, on every way out."""

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


_FAULT_POINTS = {stage: f"at {stage}" for stage in Stage}


class CallSettlement:
    """Settles its hold when left: by `settle` where the call ended well, else by the error that it is left with.

    Attributes:
        hold: the committed hold.
        estimate: our estimate of what the call has consumed so far, in the hold's units.
        seen: our estimate of the prompt and of what was passed on to the caller, if that counts.
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
            # The error on its way is what the caller must hear of; the sweeper gives the hold back.
            log.error("a failed call is not settled", request_id=self.hold.request_id, error=type(failure).__name__)

    def reached(self, stage: Stage, *, sid: str | None = None) -> None:
        """Note how far the call has got."""
        self._stage = stage
        self._sid = sid or self._sid
        self._quotas.note(self.hold, stage)
        fault_point(_FAULT_POINTS[stage])

    async def settle(
        self, outcome: Outcome, *, reported: int | None = None, answer: tuple[str, str, bytes] | None = None
    ) -> int:
        """Close the hold by the written table; return what the account is charged.

        Args:
            reported: units that upstream reported; ``None``: it said nothing.
            answer: to store with the settlement, see `aiproject.calls.idempotency`.

        The first order counts; a later one does nothing and returns 0.

        Raises:
            KeyLost: the answer must not go out; nothing is charged.
        """
        if self._is_settled:
            return 0
        self._is_settled = True
        settle = partial(
            self._quotas.settle,
            self.hold,
            outcome,
            self._stage,
            reported=reported,
            # Where upstream told a number, that is what counts, whatever the outcome.
            estimated=0 if reported is not None and self._stage is Stage.LAST_FRAME else self.estimate(),
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
            # A stopping server ends its calls, but this one is being paid for: what is ordered of the books cannot be
            # called back. See it through, so that the answer leaves; the books take the same order twice for one.
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
    """Return what an error means for the table of charges."""
    match error:
        case ClientGone():
            return Outcome.CLIENT_GONE
        case UpstreamFailed():
            return _OUTCOMES.get(error.reason, Outcome.UPSTREAM_FAILED)
        case Refused():
            return Outcome.UPSTREAM_FAILED
        case Unavailable() | asyncio.CancelledError() | None:
            return Outcome.SERVER_STOPPED
        case _:
            return Outcome.SERVER_FAILED
