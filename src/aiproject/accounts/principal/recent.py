"""A cache of recently valid pairs of uuid and name, which saves a call one database query.

An entry proves nothing by itself. The transaction that holds the quota reads the account's row anyway and confirms the
pair (`aiproject.ledger.model.OpenHold`), so a changed uuid, a new name or a disabled account takes effect at once, on
every node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from aiproject.accounts.core.model import Account

__all__ = ["Pair", "RecentPairs"]

KEPT_SECONDS = 60.0
MOST = 10_000
"""Maximum number of pairs; they take about 20 MB."""


class Pair(NamedTuple):
    """The credential that a caller presented, as the database stores it.

    Attributes:
        uuid: a secret.
        name_key: see `Account.name_key`.
    """

    uuid: str
    name_key: str

    def __repr__(self) -> str:
        return "Pair(…)"


class RecentPairs:
    """Caches accounts by the credentials that their owners send, for `KEPT_SECONDS`.

    Args:
        clock: returns seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[float, Account, Pair]] = {}

    def find(self, uuid: str, username: str) -> tuple[Account, Pair] | None:
        """Return the account to which exactly these values belonged, and the pair to confirm."""
        found = self._known.get((uuid, username))
        if found is None:
            return None
        until, account, pair = found
        if until < self._clock():
            del self._known[uuid, username]
            return None
        return account, pair

    def remember(self, uuid: str, username: str, account: Account, pair: Pair) -> None:
        """Cache a valid pair; if there are too many, the oldest is removed."""
        if len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[uuid, username] = (self._clock() + KEPT_SECONDS, account, pair)
