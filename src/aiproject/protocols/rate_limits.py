"""Rate limits as numbers and as header fields.

A rate is counted by two counters a minute (*sliding window counter*): the count of this minute, and that of the one
before, weighted by how much of it still lies within the last 60 seconds. Two numbers hold what a list of up to as many
moments as the limit would, and the error is small: it assumes that the calls of the minute before came evenly.

Source of the fields: draft-ietf-httpapi-ratelimit-headers-11 (23 May 2026), sections 3, 4 and 6; quota units: section
10.3 (there is none for tokens, so a limit on tokens is not told in these fields).
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
"""All limits are told per minute."""


class LimitStatus(NamedTuple):
    """Where somebody stands under one limit, after a request was counted or refused.

    Attributes:
        policy: the limit's name.
        limit: requests in a minute, or requests at once.
        remaining: how many more may come now.
        seconds: until more than ``remaining`` may come; for a concurrency limit ``None``: nobody can tell.
        is_concurrent: it limits requests at once.
        is_told: the fields have a unit for it.
    """

    policy: str
    limit: int
    remaining: int
    seconds: int | None
    is_concurrent: bool = False
    is_reported: bool = True


def weighted_count(previous: int, current: int, elapsed: float) -> float:
    """Return the count of the last minute.

    Args:
        previous, current: counts of the minute before and of this one.
        elapsed: seconds of this minute, 0 to 60.
    """
    return previous * (WINDOW_SECONDS - elapsed) / WINDOW_SECONDS + current


def waiting_time(previous: int, current: int, elapsed: float, limit: int, cost: int) -> float:
    """Return the seconds until ``cost`` more fit under ``limit`` if nothing else comes; 0 if they fit now.

    Args:
        cost: at most ``limit``.
    """
    if weighted_count(previous, current, elapsed) + cost <= limit:
        return 0.0
    free = limit - cost - current
    if free >= 0:  # enough of the minute before must pass out of sight
        return WINDOW_SECONDS * (1 - free / previous) - elapsed
    # Not in this minute: in the next one, this one's count is the one that passes.
    return WINDOW_SECONDS - elapsed + WINDOW_SECONDS * (1 - (limit - cost) / current)


@lru_cache(1024)
def _policy(policy: str, limit: int, is_concurrent: bool) -> str:
    if is_concurrent:
        return f'"{policy}";q={limit};qu="concurrent-requests"'
    return f'"{policy}";q={limit};w={WINDOW_SECONDS}'


def policy_field(limit_statuses: Iterable[LimitStatus]) -> bytes:
    """Return the value of ``RateLimit-Policy``; empty where nothing can be told."""
    return ", ".join(
        [
            _policy(limit_status.policy, limit_status.limit, limit_status.is_concurrent)
            for limit_status in limit_statuses
            if limit_status.is_reported
        ]
    ).encode()


def status_field(limit_statuses: Iterable[LimitStatus]) -> bytes:
    """Return the value of ``RateLimit``; empty where nothing can be told."""
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
    """Return full seconds to wait, at least one."""
    return max(1, ceil(seconds))
