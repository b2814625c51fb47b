"""Named points at which a process can be made to crash, for tests of crash recovery.

``AIPROJECT_FAULT_POINT=after hold`` kills the process (with SIGKILL, like the kernel's out-of-memory killer) the first
time it reaches the point; ``after hold:0.02`` kills it with that probability each time. Without the variable, as in
every process outside of tests, a fault point costs one comparison.
"""

from __future__ import annotations

import os
import random
import signal

from aiproject.codes import Detail
from aiproject.errors import Misconfigured

__all__ = ["FAULT_POINTS", "arm", "fault_point"]

FAULT_POINTS = (
    "after claim",
    "after hold",
    "at sent",
    "at first frame",
    "at last frame",
    "before commit of a settlement",
    "after settlement",
    "before reply",
)

_armed: str | None = None
_probability = 1.0


def arm(order: str | None) -> None:
    """Activate one fault point, or none.

    Args:
        order: ``NAME`` or ``NAME:PROBABILITY``; empty or ``None``: no fault point.

    Raises:
        Misconfigured: there is no such fault point, or the probability is not a number.
    """
    global _armed, _probability
    _armed = None
    if not order:
        return
    name, _, probability = order.partition(":")
    if name not in FAULT_POINTS:
        raise Misconfigured(Detail.FAULT_POINT_UNKNOWN, name=repr(name), names=tuple(FAULT_POINTS))
    try:
        _probability = float(probability or 1.0)
    except ValueError:
        raise Misconfigured(Detail.FAULT_PROBABILITY_MALFORMED, probability=repr(probability)) from None
    _armed = name


def fault_point(name: str) -> None:
    """Kill the process if this fault point is active."""
    if _armed == name and random.random() < _probability:  # noqa: S311 - chooses a moment, hides nothing
        os.kill(os.getpid(), signal.SIGKILL)
