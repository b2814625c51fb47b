"""Rate limits: their arithmetic and their header fields.

A rate is measured by two counters per limit (*sliding window counter*): the count of the current minute, and that of
the previous one, weighted by the part of it that lies within the last 60 seconds. Two numbers replace a list of up to
as many timestamps as the limit allows. The error is small: the method assumes that the calls of the previous minute
were evenly distributed.

Source of the fields: draft-ietf-httpapi-ratelimit-headers-11 (23 May 2026), sections 3, 4 and 6; quota units: section
10.3 (there is none for tokens, so these fields do not report a limit on tokens).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import ceil
from typing import NamedTuple

__all__ = [
    "WINDOW_SECONDS",
    "LimitStatus",
    "policy_field",
    "status_field",
    "waiting_time",
    "weighted_count",
    "whole_seconds",
]

WINDOW_SECONDS = 60
"""All limits are per minute."""


class LimitStatus(NamedTuple):
    """The state of one limit after a request was counted or refused.

    Attributes:
        policy: the limit's name.
        limit: requests per minute, or concurrent requests.
        remaining: the number of further requests that are allowed now.
        seconds: the time until more than ``remaining`` are allowed; ``None`` for a concurrency limit, where the time
            is unknown.
        is_concurrent: whether it limits concurrent requests.
        is_reported: whether the header fields have a unit for it.
    """

    policy: str
    limit: int
    remaining: int
    seconds: int | None
    is_concurrent: bool = False
    is_reported: bool = True


def weighted_count(previous: int, current: int, elapsed: float) -> float:
    """Return the weighted count of the last 60 seconds.

    Args:
        previous, current: the counts of the previous minute and of the current one.
        elapsed: seconds of the current minute that have passed, 0 to 60.
    """
    return previous * (WINDOW_SECONDS - elapsed) / WINDOW_SECONDS + current


def waiting_time(previous: int, current: int, elapsed: float, limit: int, cost: int) -> float:
    """Return the seconds until ``cost`` more fit under ``limit`` if no other request comes; 0 if they fit now.

    Args:
        cost: at most ``limit``.
    """
    if weighted_count(previous, current, elapsed) + cost <= limit:
        return 0.0
    free = limit - cost - current
    if free >= 0:  # enough of the previous minute must leave the window
        return WINDOW_SECONDS * (1 - free / previous) - elapsed
    # Not in this minute. In the next one, the current count becomes the previous one and leaves the window.
    return WINDOW_SECONDS - elapsed + WINDOW_SECONDS * (1 - (limit - cost) / current)


@lru_cache(1024)
def _policy(policy: str, limit: int, is_concurrent: bool) -> str:
    if is_concurrent:
        return f'"{policy}";q={limit};qu="concurrent-requests"'
    return f'"{policy}";q={limit};w={WINDOW_SECONDS}'


def policy_field(limit_statuses: Iterable[LimitStatus]) -> bytes:
    """Return the value of ``RateLimit-Policy``; empty if no limit can be reported."""
    return ", ".join(
        [
            _policy(limit_status.policy, limit_status.limit, limit_status.is_concurrent)
            for limit_status in limit_statuses
            if limit_status.is_reported
        ]
    ).encode()


def status_field(limit_statuses: Iterable[LimitStatus]) -> bytes:
    """Return the value of ``RateLimit``; empty if no limit can be reported."""
    return ", ".join(
        [
            f'"{limit_status.policy}";r={limit_status.remaining}'
            if limit_status.seconds is None
            else f'"{limit_status.policy}";r={limit_status.remaining};t={limit_status.seconds}'
            for limit_status in limit_statuses
            if limit_status.is_reported
        ]
    ).encode()


def whole_seconds(seconds: float) -> int:
    """Return the time to wait in full seconds, at least one."""
    return max(1, ceil(seconds))
