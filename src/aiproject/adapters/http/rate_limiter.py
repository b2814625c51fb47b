"""The gate that requests pass: how many in a minute, how many at once, for any number of limits in one step.

`MemoryRateLimiter` counts in this process, `aiproject.adapters.http.redis_rate_limiter.RedisGate` in a Redis that nodes
and workers share. Either admits a request under all of its limits or counts it under none.
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
"""What a caller is told who has too many calls at once: one may end at any moment."""


class LimitRequest(NamedTuple):
    """What a request asks of one limit.

    Attributes:
        policy: the limit's name, as callers read it.
        subject: whom it counts.
        limit: in a minute, or at once.
        cost: how much of it the request takes; more than the limit counts as all of it.
        is_concurrent: it limits requests at once; the cost is one.
        guards_money: it is the only bound on what somebody spends, so that it is refused rather than not counted.
        is_told: the standard header fields have a unit for it.
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
        standing: under the limit that takes longest.
    """

    def __init__(self, limit_status: LimitStatus, retry_after: int) -> None:
        super().__init__(retry_after, Detail.TOO_MANY_AT_ONCE if limit_status.is_concurrent else None)
        self.limit_status = limit_status


class Admission(ABC):
    """A request that was let in. `leave` must be called at its end if it was let in under a limit at once.

    Attributes:
        standings: where its caller stands now, in the order of the demands.
    """

    limit_statuses: Sequence[LimitStatus]

    @abstractmethod
    def correct(self, policy: str, cost: int) -> None:
        """Count ``cost`` for this request under a limit instead of what was demanded."""

    @abstractmethod
    def leave(self) -> None:
        """Give back the places that it took; a second time does nothing."""


class RateLimiter(ABC):
    """Counts requests."""

    @abstractmethod
    async def admit(self, limit_requests: Sequence[LimitRequest]) -> Admission:
        """Count a request under all of its limits, or under none.

        Raises:
            OverLimit: one of them is reached.
            Unavailable: what guards money cannot be counted now.
        """


async def admit(scope: Scope, rate_limiter: RateLimiter, limit_requests: Sequence[LimitRequest]) -> Admission:
    """Like `RateLimiter.admit`; where the caller stands is told in the answer's header fields.

    Raises:
        OverLimit, Unavailable: see `RateLimiter.admit`.
    """
    fields = answer_headers(scope)
    try:
        admission = await rate_limiter.admit(limit_requests)
    except OverLimit as refusal:
        # That limit alone: no window may last longer than Retry-After says (the draft, section 6).
        fields.pop(POLICY_FIELD, None)
        fields.pop(STANDING_FIELD, None)
        _tell(fields, (refusal.limit_status,))
        raise
    _tell(fields, admission.limit_statuses)
    return admission


def _tell(fields: dict[bytes, bytes], limit_statuses: Sequence[LimitStatus]) -> None:
    policies, state = policy_field(limit_statuses), status_field(limit_statuses)
    if policies:
        # One field each, though a list may be split: not every client joins them.
        before = fields.get(POLICY_FIELD)
        fields[POLICY_FIELD] = policies if before is None else b"%b, %b" % (before, policies)
        fields[STANDING_FIELD] = state if before is None else b"%b, %b" % (fields[STANDING_FIELD], state)


class MemoryRateLimiter(RateLimiter):
    """Counts in this process.

    The counts of a minute stand in a dictionary of their own, which is dropped as a whole two minutes later: nothing
    has to be looked for and cleared away, however many addresses have called.

    Args:
        clock: seconds from any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._minute = 0
        self._current: dict[tuple[str, str], int] = {}
        self._previous: dict[tuple[str, str], int] = {}
        self._seats: dict[tuple[str, str], int] = {}

    async def admit(self, limit_requests: Sequence[LimitRequest]) -> Admission:
        """Count a request under all of its limits, or under none."""
        elapsed = self._turn()
        limit_statuses = []
        refusal: tuple[float, LimitStatus] | None = None
        for limit_request in limit_requests:
            limit_status, wait = self._look(limit_request, elapsed)
            limit_statuses.append(limit_status)
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
        """Begin a new minute if it is time; return the seconds of this one."""
        minute, elapsed = divmod(self._clock(), WINDOW_SECONDS)
        if minute != self._minute:
            self._previous = self._current if minute == self._minute + 1 else {}
            self._current = {}
            self._minute = int(minute)
        return elapsed

    def _look(self, limit_request: LimitRequest, elapsed: float) -> tuple[LimitStatus, float]:
        policy, subject, limit, cost, is_concurrent, _, is_reported = limit_request
        key = (policy, subject)
        if is_concurrent:
            remaining = limit - self._seats.get(key, 0) - 1
            wait = 0.0 if remaining >= 0 else float(SEAT_RETRY_SECONDS)
            return LimitStatus(policy, limit, max(0, remaining), None, is_concurrent=True), wait
        cost = min(cost, limit)
        previous, current = self._previous.get(key, 0), self._current.get(key, 0)
        left = limit - cost - weighted_count(previous, current, elapsed)
        if left >= 0:
            return LimitStatus(policy, limit, int(left), WINDOW_SECONDS, is_reported=is_reported), 0.0
        wait = waiting_time(previous, current, elapsed, limit, cost)
        return LimitStatus(policy, limit, 0, WINDOW_SECONDS, is_reported=is_reported), wait

    def correct(self, minute: int, limit_request: LimitRequest, cost: int) -> None:
        """Change what a request of ``minute`` was counted for; what is out of sight stays as it is."""
        self._turn()
        counts = {self._minute: self._current, self._minute - 1: self._previous}.get(minute)
        key = (limit_request.policy, limit_request.subject)
        if counts is not None and key in counts:
            counts[key] = max(0, counts[key] - min(limit_request.cost, limit_request.limit) + cost)

    def leave(self, limit_requests: Sequence[LimitRequest]) -> None:
        """Give the places of a request back."""
        for limit_request in limit_requests:
            if limit_request.is_concurrent:
                key = (limit_request.policy, limit_request.subject)
                left = self._seats[key] - 1
                if left:
                    self._seats[key] = left
                else:
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
