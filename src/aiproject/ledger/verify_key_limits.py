"""What API keys have spent, recomputed from the holds that name them; a part of `aiproject.ledger.verify`."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.schema import api_key, spend_limit
from aiproject.ledger.model import HoldState

__all__ = ["Limit", "limits_of_keys"]

COUNTED = ("spent", "held", "day_spent", "day_held")


@dataclass(slots=True)
class Limit:
    """What a key has spent of a capability as its row says, and as the holds do. Caps may be lowered below it."""

    key_id: int
    capability: str
    day: int
    stored: Mapping[str, int]
    counted: Counter[str] = field(default_factory=Counter)

    def count(self, hold: Any) -> None:
        """Take in a hold of the key."""
        is_open = hold.state == HoldState.OPEN
        amount, word = (hold.amount, "held") if is_open else (hold.charged or 0, "spent")
        self.counted[word] += amount
        if hold.key_day == self.day:
            self.counted[f"day_{word}"] += amount

    def close(self, check: Callable[[str, int | str | None, int | str | None], bool]) -> None:
        for word, value in self.stored.items():
            check(f"{word} of API key {self.key_id}, {self.capability}", self.counted[word], value)


async def limits_of_keys(
    connection: AsyncConnection, *conditions: ColumnElement[bool]
) -> AsyncIterator[tuple[int, Limit]]:
    """Yield what keys may spend, each with its account's number."""
    statement = (
        select(
            api_key.c.account_id,
            api_key.c.key_id,
            spend_limit.c.capability,
            spend_limit.c.day,
            *(spend_limit.c[name] for name in COUNTED),
        )
        .select_from(api_key.join(spend_limit, spend_limit.c.key_id == api_key.c.key_id))
        .where(*conditions)
    )
    for row in await connection.execute(statement):
        yield row[0], Limit(row[1], row[2], row[3], dict(zip(COUNTED, row[4:], strict=True)))
