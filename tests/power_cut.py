"""A power cut in the midst of an upgrade, for tests of what can be repeated then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

__all__ = ["PowerCut", "power_cut_before"]


class PowerCut(Exception):
    pass


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
