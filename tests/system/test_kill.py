"""The short form of ``tools/kill_test.py``: servers are killed at each fault point, and the books add up.

What is proved, and the long form with its figures, is in docs/en/explanation/crash-tests.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from aiproject.adapters.fault_points import FAULT_POINTS
from aiproject.sandbox.running import SandboxThread
from crash import SANDBOX, Node, ordeal
from forker import shared_forker
from services import Server


@pytest.mark.parametrize("kind", ["sqlite", "mariadb"])
async def test_the_books_add_up_after_kills_at_every_point(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'data' / 'books.db'}"
    if kind != "sqlite":
        server: Server = request.getfixturevalue(f"{kind}_server")
        url = server.url(server.create_database())
    with SandboxThread(SANDBOX) as platform:
        result = await ordeal(
            url,
            platform.environment(),
            tmp_path,
            forker=shared_forker(),
            kills=len(FAULT_POINTS) + 6,
            seconds=60,
            servers=3,
            clients=12,
            lease=1.0,
            seed=f"short form on {kind}",
        )
    assert result.verdict.faults == []
    kills = result.load.tally.kills
    assert {point for point in FAULT_POINTS if kills[point]} == set(FAULT_POINTS)
    # It proves nothing unless there was something to charge, to refuse and to lose.
    assert result.verdict.charges > 20
    assert result.verdict.calls["refused"]
    assert result.load.tally.attempts["lost"]
    assert result.verdict.outcomes["server killed"]


def test_a_wrong_fault_point_is_told_at_the_start(tmp_path: Path) -> None:
    node = Node("misled", {}, tmp_path, forker=shared_forker())
    served = node.start(fault_point="after lunch")
    assert not node.await_ready()
    assert served.status == 78
    assert "after lunch" in node.log_tail()
