"""Places at which a process can be told to die."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiproject.adapters import fault_points
from aiproject.adapters.fault_points import FAULT_POINTS, arm, fault_point
from aiproject.errors import Misconfigured

SOURCES = Path(fault_points.__file__).parent.parent


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Who would have been killed, and by what."""
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    yield killed
    arm(None)


def test_a_process_dies_by_sigkill_where_it_is_told_to(deaths: list[tuple[int, int]]) -> None:
    arm("at sent")
    fault_point("after hold")
    assert deaths == []
    fault_point("at sent")
    assert deaths == [(os.getpid(), signal.SIGKILL)]


@pytest.mark.parametrize("order", [None, ""])
def test_and_nowhere_else(order: str | None, deaths: list[tuple[int, int]]) -> None:
    arm("at sent")
    arm(order)
    for point in FAULT_POINTS:
        fault_point(point)
    assert deaths == []


def test_perhaps(deaths: list[tuple[int, int]]) -> None:
    random.seed(1)
    arm("before reply:0.25")
    for _ in range(1000):
        fault_point("before reply")
    assert 200 < len(deaths) < 300


@pytest.mark.parametrize("order", ["nowhere", "at sent:often", ":0.5"])
def test_a_wrong_order_is_refused_and_arms_nothing(order: str, deaths: list[tuple[int, int]]) -> None:
    arm("at sent")
    with pytest.raises(Misconfigured, match="FAULT_"):
        arm(order)
    fault_point("at sent")
    assert deaths == []


def test_every_place_that_the_code_names_can_be_chosen() -> None:
    """A stage's place is named after it: at sent, at first frame, at last frame."""
    code = "".join(path.read_text("utf-8") for path in SOURCES.rglob("*.py") if path.name != "fault_points.py")
    for point in FAULT_POINTS:
        assert f'fault_point("{point}")' in code or (
            point.startswith("at ") and '{stage: f"at {stage}" for stage in Stage}' in code
        ), point
