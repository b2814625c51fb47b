"""How many connections a process may hold; the rest is shown over sockets, in tests/system/test_slow_senders.py."""

from __future__ import annotations

import resource

import pytest

from aiproject.adapters.http.connections import connection_limit


class Limits:
    """The system's limits of open files; refuses an infinite one as macOS does."""

    def __init__(self, soft: int, hard: int) -> None:
        self.now = (soft, hard)

    def get(self, _: int) -> tuple[int, int]:
        return self.now

    def set(self, _: int, limits: tuple[int, int]) -> None:
        if limits[0] == resource.RLIM_INFINITY:
            raise ValueError("not allowed to exceed maximum limit")
        self.now = limits


@pytest.mark.parametrize(
    ("soft", "hard", "expected", "raised"),
    [
        (1024, 1_048_576, 10_000, 1_048_576),
        (1024, 4096, (4096 - 64) // 2, 4096),
        (256, resource.RLIM_INFINITY, (256 - 64) // 2, 256),
        (64, 64, 1, 64),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 10_000, resource.RLIM_INFINITY),
    ],
)
def test_as_many_as_the_system_allows(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, expected: int, raised: int
) -> None:
    limits = Limits(soft, hard)
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(resource, "setrlimit", limits.set)
    assert connection_limit(10_000) == expected
    assert limits.now[0] == raised
