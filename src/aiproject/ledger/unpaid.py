"""What accounts have used in a day without paying for it, in a batch of commands: counted up to a bound.

Whoever counts for an account has locked its row, so the rows here need no lock of their own. A call that ended well is
not looked up here: only failed ones cost the batch a statement.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from aiproject.adapters.db.runner import Steps
from aiproject.adapters.db.schema import unpaid_usage
from aiproject.ledger.key_limits import day_of
from aiproject.ledger.model import Settle, Unpaid
from aiproject.ledger.sql import insert_rows, select_rows, update_rows

__all__ = ["Counted", "UnpaidUsage"]

KEY = ("account_id", "day")


class Counted(NamedTuple):
    """What was counted of a call.

    Attributes:
        units: that stay free.
        day: as YYYYMMDD.
    """

    units: int
    day: int


class UnpaidUsage:
    """The accounts of one batch, worked out in memory between `load` and `write`."""

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._days: dict[int, int] = {}
        self._stored: dict[tuple[int, int], int] = {}
        self._used: dict[tuple[int, int], int] = {}

    def load(self, commands: Iterable[Settle], now: int) -> Steps[None]:
        """Read the rows of the commands' accounts, which must be locked.

        Args:
            now: milliseconds since 1970, by the database's clock; it decides the day.
        """
        for command in commands:
            if command.unpaid is not None and command.hold.account_id is not None:
                self._days[command.hold.account_id] = day_of(now, command.unpaid.zone)
        if self._days:
            keys = sorted(self._days.items())
            rows = yield select_rows(self._dialect, unpaid_usage, (*KEY, "tokens"), KEY, keys)
            self._stored = {(row[0], row[1]): row[2] for row in rows}
            self._used = dict(self._stored)

    def count(self, account_id: int, unpaid: Unpaid) -> Counted:
        """Count what a call may leave unpaid, as far as the account's bound goes."""
        key = (account_id, self._days[account_id])
        used = self._used.get(key, 0)
        units = min(unpaid.seen, max(0, unpaid.per_day - used))
        if units:
            self._used[key] = used + units
        return Counted(units, key[1])

    def write(self) -> Steps[None]:
        """Write what has changed."""
        changed = [(used, *key) for key, used in sorted(self._used.items()) if used != self._stored.get(key)]
        known = [row for row in changed if row[1:] in self._stored]
        new = [row for row in changed if row[1:] not in self._stored]
        if known:
            yield update_rows(self._dialect, unpaid_usage, KEY, ("tokens",), known)
        if new:
            yield insert_rows(self._dialect, unpaid_usage, ("tokens", *KEY), new)
