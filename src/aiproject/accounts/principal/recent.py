"""Pairs of uuid and name that were right a moment ago, so that a call need not ask the database who calls.

What stands here proves nothing. Whoever acts by it has it confirmed in the transaction that holds the quota, which
reads the account's row anyway (`aiproject.ledger.model.OpenHold`); so a changed uuid, another name and a disabled
account count at once, on every node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from aiproject.accounts.core.model import Account

__all__ = ["Pair", "RecentPairs"]

KEPT_SECONDS = 60.0
MOST = 10_000
"""Pairs; some 20 MB."""


class Pair(NamedTuple):
    """What a caller showed, as the database has it.

    Attributes:
        uuid: a secret.
        name_key: see `Account.name_key`.
    """

    uuid: str
    name_key: str

    def __repr__(self) -> str:
        return "Pair(…)"


class RecentPairs:
    """Remembers accounts by what their owners send, for a minute.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[float, Account, Pair]] = {}

    def find(self, uuid: str, username: str) -> tuple[Account, Pair] | None:
        """Return the account that these very words belonged to, and what is to be confirmed."""
        found = self._known.get((uuid, username))
        if found is None:
            return None
        until, account, pair = found
        if until < self._clock():
            del self._known[uuid, username]
            return None
        return account, pair

    def remember(self, uuid: str, username: str, account: Account, pair: Pair) -> None:
        """Remember a pair that was right; where there are too many, the oldest goes."""
        if len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[uuid, username] = (self._clock() + KEPT_SECONDS, account, pair)
