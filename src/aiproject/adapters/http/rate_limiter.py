"""Rate limits for requests: how many in a minute and how many at once, for any number of limits in one step.

`MemoryRateLimiter` counts in this process; `aiproject.adapters.http.redis_rate_limiter.RedisRateLimiter` counts in a
Redis that nodes and workers share. Both admit a request under all of its limits or count it under none, so that a
refused request takes nothing from the limits that would have admitted it.

The algorithm is a *sliding window counter* (see `aiproject.protocols.rate_limits`): it keeps two numbers for each
subject, where a sliding log would keep every event, and it does not admit twice the limit within one minute, as a token
bucket does with a full bucket and its refill.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from aiproject.adapters.http.asgi import Scope, answer_headers
from aiproject.codes import Detail
from aiproject.errors import TooManyRequests
from aiproject.protocols.rate_limits import (
    WINDOW_SECONDS,
    LimitStatus,
    policy_field,
    status_field,
    waiting_time,
    weighted_count,
    whole_seconds,
)

__all__ = ["SEAT_RETRY_SECONDS", "Admission", "LimitRequest", "MemoryRateLimiter", "OverLimit", "RateLimiter", "admit"]

POLICY_FIELD, STANDING_FIELD = b"ratelimit-policy", b"ratelimit"

SEAT_RETRY_SECONDS = 1
"""``Retry-After`` of a caller that has too many calls at once: one of them may end at any moment."""


class LimitRequest(NamedTuple):
    """The part of one limit that a request asks for.

    Attributes:
        policy: the limit's name, as callers read it.
        subject: the account, key or address whose requests are counted.
        limit: requests (or units of cost) in a minute, or requests at once.
        cost: how much of the limit the request takes; a cost above the limit counts as the whole limit.
        is_concurrent: whether it limits requests at once; the cost is then one.
        guards_money: whether it is the only bound on what a caller can spend. Such a request is refused when it cannot
            be counted.
        is_reported: whether the limit appears in the standard header fields, which have no unit for some limits.
    """

    policy: str
    subject: str
    limit: int
    cost: int = 1
    is_concurrent: bool = False
    guards_money: bool = False
    is_reported: bool = True


class OverLimit(TooManyRequests):
    """A limit is reached; the request was counted under none.

    Args:
        limit_status: the status under the limit with the longest waiting time.
        retry_after: seconds until the request can be admitted.
    """

    def __init__(self, limit_status: LimitStatus, retry_after: int) -> None:
        super().__init__(retry_after, Detail.TOO_MANY_AT_ONCE if limit_status.is_concurrent else None)
        self.limit_status = limit_status


class Admission(ABC):
    """An admitted request. Under a limit on concurrent requests, `leave` must be called at the request's end.

    Attributes:
        limit_statuses: the caller's status after this request, in the order of the limit requests.
    """

    limit_statuses: Sequence[LimitStatus]

    @abstractmethod
    def correct(self, policy: str, cost: int) -> None:
        """Count ``cost`` for this request under a limit, in place of the cost that was requested."""

    @abstractmethod
    def leave(self) -> None:
        """Release the slots that the request holds. A second call does nothing."""


class RateLimiter(ABC):
    """Counts requests."""

    @abstractmethod
    async def admit(self, limit_requests: Sequence[LimitRequest]) -> Admission:
        """Count a request under all of its limits, or under none.

        Raises:
            OverLimit: one of them is reached.
            Unavailable: a limit that guards money cannot be counted now.
        """


async def admit(scope: Scope, rate_limiter: RateLimiter, limit_requests: Sequence[LimitRequest]) -> Admission:
    """Like `RateLimiter.admit`, and report the caller's status in the header fields of the response.

    Raises:
        OverLimit, Unavailable: see `RateLimiter.admit`.
    """
    fields = answer_headers(scope)
    try:
        admission = await rate_limiter.admit(limit_requests)
    except OverLimit as refusal:
        # Report the exceeded limit only: no window may last longer than Retry-After says (section 6 of the draft).
        fields.pop(POLICY_FIELD, None)
        fields.pop(STANDING_FIELD, None)
        _tell(fields, (refusal.limit_status,))
        raise
    _tell(fields, admission.limit_statuses)
    return admission


def _tell(fields: dict[bytes, bytes], limit_statuses: Sequence[LimitStatus]) -> None:
    policies, state = policy_field(limit_statuses), status_field(limit_statuses)
    if policies:
        # A request passes this function several times (address, then account and key). All policies go into one field,
        # although HTTP allows a list to be split over several: not every client joins them.
        before = fields.get(POLICY_FIELD)
        fields[POLICY_FIELD] = policies if before is None else b"%b, %b" % (before, policies)
        fields[STANDING_FIELD] = state if before is None else b"%b, %b" % (fields[STANDING_FIELD], state)


class MemoryRateLimiter(RateLimiter):
    """Count requests in this process.

    The counts of each minute have their own dictionary, which is dropped as a whole two minutes later. Expired entries
    are never searched for, however many addresses have called.

    Methods do not await while they read and change counts, so the event loop makes each of them atomic.

    Args:
        clock: returns seconds since any fixed point.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._minute = 0
        self._current: dict[tuple[str, str], int] = {}
        self._previous: dict[tuple[str, str], int] = {}
        self._seats: dict[tuple[str, str], int] = {}

    async def admit(self, limit_requests: Sequence[LimitRequest]) -> Admission:
        """Count a request under all of its limits, or under none."""
        # Two passes: every limit is checked before any is counted, so that a refusal leaves all counts unchanged.
        elapsed = self._turn()
        limit_statuses = []
        refusal: tuple[float, LimitStatus] | None = None
        for limit_request in limit_requests:
            limit_status, wait = self._look(limit_request, elapsed)
            limit_statuses.append(limit_status)
            # Of several exceeded limits report the longest wait: an earlier retry would only be refused by that one.
            if wait > 0 and (refusal is None or wait > refusal[0]):
                refusal = (wait, limit_status)
        if refusal is not None:
            wait, limit_status = refusal
            retry_after = whole_seconds(wait)
            raise OverLimit(
                limit_status._replace(remaining=0, seconds=None if limit_status.is_concurrent else retry_after),
                retry_after,
            )
        current, seats = self._current, self._seats
        for limit_request in limit_requests:
            key = (limit_request.policy, limit_request.subject)
            if limit_request.is_concurrent:
                seats[key] = seats.get(key, 0) + 1
            else:
                current[key] = current.get(key, 0) + min(limit_request.cost, limit_request.limit)
        return _MemoryAdmission(self, self._minute, limit_requests, limit_statuses)

    def _turn(self) -> float:
        """Begin a new minute if the current one is over; return the seconds that have passed in it."""
        minute, elapsed = divmod(self._clock(), WINDOW_SECONDS)
        if minute != self._minute:
            # After an idle minute, the current counts are too old to be the previous minute's.
            self._previous = self._current if minute == self._minute + 1 else {}
            self._current = {}
            self._minute = int(minute)
        return elapsed

    def _look(self, limit_request: LimitRequest, elapsed: float) -> tuple[LimitStatus, float]:
        policy, subject, limit, cost, is_concurrent, _, is_reported = limit_request
        key = (policy, subject)
        if is_concurrent:
            # One less for this request: the status describes the time after its admission.
            remaining = limit - self._seats.get(key, 0) - 1
            wait = 0.0 if remaining >= 0 else float(SEAT_RETRY_SECONDS)
            return LimitStatus(policy, limit, max(0, remaining), None, is_concurrent=True), wait
        # A request that costs more than the whole limit would otherwise be refused for ever.
        cost = min(cost, limit)
        previous, current = self._previous.get(key, 0), self._current.get(key, 0)
        left = limit - cost - weighted_count(previous, current, elapsed)
        if left >= 0:
            return LimitStatus(policy, limit, int(left), WINDOW_SECONDS, is_reported=is_reported), 0.0
        wait = waiting_time(previous, current, elapsed, limit, cost)
        return LimitStatus(policy, limit, 0, WINDOW_SECONDS, is_reported=is_reported), wait

    def correct(self, minute: int, limit_request: LimitRequest, cost: int) -> None:
        """Change the cost that a request of ``minute`` was counted with; older minutes no longer count and are kept."""
        # A call may end minutes after its admission, so its count may have moved to the previous minute or be gone.
        self._turn()
        counts = {self._minute: self._current, self._minute - 1: self._previous}.get(minute)
        key = (limit_request.policy, limit_request.subject)
        if counts is not None and key in counts:
            # The admission counted at most the limit, so that much is taken back.
            counts[key] = max(0, counts[key] - min(limit_request.cost, limit_request.limit) + cost)

    def leave(self, limit_requests: Sequence[LimitRequest]) -> None:
        """Release the slots of a request."""
        for limit_request in limit_requests:
            if limit_request.is_concurrent:
                key = (limit_request.policy, limit_request.subject)
                left = self._seats[key] - 1
                if left:
                    self._seats[key] = left
                else:
                    # Otherwise every subject that ever called would stay in memory.
                    del self._seats[key]


class _MemoryAdmission(Admission):
    __slots__ = ("_is_left", "_limit_requests", "_minute", "_rate_limiter", "limit_statuses")

    def __init__(
        self,
        rate_limiter: MemoryRateLimiter,
        minute: int,
        limit_requests: Sequence[LimitRequest],
        limit_statuses: Sequence[LimitStatus],
    ) -> None:
        self._rate_limiter = rate_limiter
        self._minute = minute
        self._limit_requests = limit_requests
        self._is_left = False
        self.limit_statuses = limit_statuses

    def correct(self, policy: str, cost: int) -> None:
        for limit_request in self._limit_requests:
            if limit_request.policy == policy:
                self._rate_limiter.correct(self._minute, limit_request, cost)

    def leave(self) -> None:
        if not self._is_left:
            self._is_left = True
            self._rate_limiter.leave(self._limit_requests)
