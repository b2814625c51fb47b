"""Spending limits of API keys within a batch of commands: checked, held, released and counted with the balances.

A key belongs to one account, whose row the batch has locked before it reads any row of the key. A change of a key's
caps locks that row first as well. So the rows here need no lock of their own and cannot deadlock.

No job resets the daily amounts. A row counts the day of its newest hold; on a later day nothing is spent yet. A hold
keeps the day on which it was opened and is settled against it: once the row counts another day, only its total changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

from aiproject.adapters.db.runner import Steps
from aiproject.adapters.db.schema import spend_limit
from aiproject.errors import AiProjectError, NotSignedIn, SpendLimitReached
from aiproject.ledger.model import OpenHold
from aiproject.ledger.sql import select_rows, update_rows

__all__ = ["KeyHold", "Spending", "day_of"]

KEY = ("key_id", "capability")
COUNTED = ("spent", "held", "day", "day_spent", "day_held")
UNLIMITED = float("inf")


class KeyHold(NamedTuple):
    """The part of a hold that concerns its key.

    Attributes:
        day: the day on which it was opened, as YYYYMMDD.
        amount: the amount that is or was held.
    """

    key_id: int
    capability: str
    day: int
    amount: int


@dataclass(slots=True)
class _Row:
    total: int | None
    daily: int | None
    spent: int
    held: int
    day: int
    day_spent: int
    day_held: int

    @property
    def total_left(self) -> float:
        return UNLIMITED if self.total is None else self.total - self.spent - self.held

    @property
    def day_left(self) -> float:
        return UNLIMITED if self.daily is None else self.daily - self.day_spent - self.day_held


class Spending:
    """The spending of the keys of one batch, computed in memory between `load` and `write`."""

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._rows: dict[tuple[int, str], _Row] = {}
        self._changed: set[tuple[int, str]] = set()

    def load(self, wanted: Iterable[tuple[int, str]]) -> Steps[None]:
        """Read the rows of these keys and capabilities; their accounts' rows must be locked."""
        keys = sorted(set(wanted))
        if keys:
            columns = (*KEY, "total", "daily", *COUNTED)
            rows = yield select_rows(self._dialect, spend_limit, columns, KEY, keys)
            self._rows = {(row[0], row[1]): _Row(*row[2:-1]) for row in rows}

    def open(self, command: OpenHold, key_id: int, amount: int, now: int) -> KeyHold | AiProjectError:
        """Hold ``amount`` against the key's limits, or as much as it may spend if that suffices for the command.

        Args:
            now: milliseconds since 1970, by the database's clock.

        Returns:
            The key's part of the hold, or the error with which the command is refused.
        """
        key = (key_id, str(command.capability))
        row = self._rows.get(key)
        if row is None:
            return NotSignedIn()  # the key was deleted after its authentication
        today = day_of(now, command.zone)
        if today > row.day:  # if the clock was set back, the row stays on its day
            row.day, row.day_spent, row.day_held = today, 0, 0
        need = command.least
        if row.total_left < need:
            return SpendLimitReached(command.capability)
        if row.day_left < need:
            is_ever = row.daily is not None and need <= row.daily
            return SpendLimitReached(
                command.capability, retry_after=seconds_to_next_day(now, command.zone) if is_ever else None
            )
        amount = int(min(amount, row.total_left, row.day_left))
        row.held += amount
        row.day_held += amount
        self._changed.add(key)
        return KeyHold(*key, row.day, amount)

    def extend(self, hold: KeyHold, units: int, now: int, zone: tzinfo) -> KeyHold:
        """Hold up to ``units`` more for an open hold, and return the new hold; unchanged if the limits allow no more.

        A hold counts against one day only. If it is extended on a later day, it moves to that day as a whole and must
        fit into that day's cap. So no day's cap is exceeded, whichever day the call is charged on.
        """
        row = self._rows.get((hold.key_id, hold.capability))
        if row is None:
            return hold
        today = max(day_of(now, zone), row.day)
        is_same_day = today == hold.day
        day_left = row.day_left
        if today > row.day:  # nothing is spent or held on the new day yet
            day_left = UNLIMITED if row.daily is None else row.daily
        if not is_same_day:
            day_left -= hold.amount
        granted = int(max(0, min(units, row.total_left, day_left)))
        if not granted:
            return hold
        if today > row.day:
            row.day, row.day_spent, row.day_held = today, 0, 0
        row.held += granted
        row.day_held += granted if is_same_day else hold.amount + granted
        self._changed.add((hold.key_id, hold.capability))
        return KeyHold(hold.key_id, hold.capability, today, hold.amount + granted)

    def release(self, hold: KeyHold) -> None:
        """Release the held amount."""
        if row := self._touched(hold):
            row.held -= hold.amount
            if row.day == hold.day:
                row.day_held -= hold.amount

    def room_of_late(self, hold: KeyHold) -> float:
        """Return the amount that may still be spent for a hold that was already released.

        It is 0 if the key has a daily cap and the row counts another day, since the rest of that cap is unknown then.
        """
        row = self._rows.get((hold.key_id, hold.capability))
        if row is None:
            return UNLIMITED
        day_left = row.day_left if row.day == hold.day or row.daily is None else 0
        return max(0, min(row.total_left, day_left))

    def spend(self, hold: KeyHold, units: int) -> None:
        """Count an amount that was taken from the balance."""
        if row := self._touched(hold):
            row.spent += units
            if row.day == hold.day:
                row.day_spent += units

    def write(self) -> Steps[None]:
        """Write the changed rows."""
        if self._changed:
            rows = [
                (row.spent, row.held, row.day, row.day_spent, row.day_held, *key)
                for key in sorted(self._changed)
                for row in [self._rows[key]]
            ]
            yield update_rows(self._dialect, spend_limit, KEY, COUNTED, rows)

    def _touched(self, hold: KeyHold) -> _Row | None:
        key = (hold.key_id, hold.capability)
        row = self._rows.get(key)
        if row is not None:
            self._changed.add(key)
        return row


def day_of(now: int, zone: tzinfo) -> int:
    """Return the day of a timestamp (milliseconds since 1970) in a time zone, as YYYYMMDD."""
    there = datetime.fromtimestamp(now / 1000, zone)
    return there.year * 10_000 + there.month * 100 + there.day


def seconds_to_next_day(now: int, zone: tzinfo) -> int:
    """Return the whole seconds until the next day begins in a time zone, at least 1."""
    there = datetime.fromtimestamp(now / 1000, zone)
    next_day = datetime.combine(there.date() + timedelta(days=1), datetime.min.time(), zone)
    return max(1, -int((now / 1000 - next_day.astimezone(UTC).timestamp()) // 1))
