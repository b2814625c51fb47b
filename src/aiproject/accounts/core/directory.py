"""Looking accounts up; apart from the service, since a command that lists accounts loads nothing that changes them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiproject.accounts.core import store
from aiproject.accounts.core.model import Account, is_askable
from aiproject.adapters.db.engine import Database
from aiproject.errors import AccountUnknown

__all__ = ["AccountDirectory"]

LIST_PAGE = 500
"""Accounts read in one query when all are listed."""


class AccountDirectory:
    """Reads accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def named(self, username: str) -> Account:
        """Return the account with this name.

        Raises:
            AccountUnknown: there is none.
        """
        if not is_askable(username):
            raise AccountUnknown
        async with self._database.connect() as connection:
            found = await store.by_name(connection, username)
        if found is None:
            raise AccountUnknown
        return found[0]

    async def all(self) -> AsyncIterator[Account]:
        """Yield every account in the order of names, a page at a time."""
        after = ""
        while True:
            async with self._database.connect() as connection:
                page = await store.listed(connection, after=after, limit=LIST_PAGE)
            for account in page:
                yield account
            if len(page) < LIST_PAGE:
                return
            after = page[-1].name_key
