"""A power cut in the midst of an upgrade, for tests of what can be repeated then."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

__all__ = ["PowerCut", "between_cuts", "power_cut_before"]

EACH_PLACE = os.environ.get("AIPROJECT_TEST_EACH_POWER_CUT") == "1"
"""Slow: whoever changes a migration sets it once; see CONTRIBUTING.md."""


class PowerCut(Exception):
    pass


def between_cuts(dialect: str) -> int:
    """Return how many statements lie between two places where the power is cut.

    On MySQL each DDL statement is a state of its own that is left behind: another place each time, all of them where
    they are asked for. Where all is one transaction, a few places show as much as each.
    """
    if dialect == "mysql":
        return 1 if EACH_PLACE else 7
    return 10


@contextmanager
def power_cut_before(number: int) -> Iterator[Callable[[], bool]]:
    """Break off before the `number`-th statement that changes anything, on any engine; yields whether it happened."""
    seen = 0

    def count(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        nonlocal seen
        if statement.split()[0].upper() in ("ALTER", "CREATE", "DELETE", "DROP", "INSERT", "UPDATE"):
            seen += 1
            if seen == number:
                raise PowerCut

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield lambda: seen >= number
    finally:
        event.remove(Engine, "before_cursor_execute", count)
