"""The end of an account: the person is removed, the books stay.

Ledger entries, holds, redemptions and operator's losses name the account's number only, and go on doing so; the number
is never used again. Everything that names or describes the person, or opens a door, is replaced or deleted. Calls that
run are settled as they end.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from aiproject.accounts.api_keys import store as key_store
from aiproject.accounts.core import person_store
from aiproject.accounts.core.model import Account
from aiproject.accounts.core.service import Within
from aiproject.accounts.selfservice import token_store as mail_token_store
from aiproject.accounts.sessions import store as session_store
from aiproject.adapters.db.engine import Connection, Database
from aiproject.adapters.db.errors import UniqueViolation
from aiproject.adapters.db.schema import name_key
from aiproject.adapters.log import get_logger
from aiproject.adapters.passwords import UNUSABLE_PASSWORD
from aiproject.errors import AccountUnknown

__all__ = ["Closing", "Forget"]

log = get_logger("accounts")

DRAWS = 5

Forget = Callable[[Connection, int], Awaitable[None]]
"""Deletes what another room keeps of an account's person: called with the transaction, and the account's number."""


class Closing:
    """Closes accounts.

    Args:
        forget: what other rooms delete with it.
    """

    def __init__(
        self,
        database: Database,
        *,
        forget: Sequence[Forget] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._forget = tuple(forget)
        self._clock = clock

    async def close(self, account: Account, *, within: Within | None = None) -> None:
        """Remove the person behind an account; the name is free at once.

        Args:
            within: done in the same transaction, at its end: an entry of the audit log.

        Raises:
            AccountUnknown: that was done already.
        """
        for draw in range(1, DRAWS + 1):
            try:
                await self._database.transact(self._erase, account.account_id, within)
                break
            except UniqueViolation:
                if draw == DRAWS:
                    raise
        log.info("account closed", account=account.account_id)

    async def _erase(self, connection: Connection, account_id: int, within: Within | None) -> None:
        # No account has this name, but somebody could register it on purpose: then `close` draws another one.
        placeholder = f"deleted-{account_id}-{secrets.token_hex(4)}"
        now = self._clock()
        if await person_store.lock(connection, account_id) is None:
            raise AccountUnknown
        await person_store.erase(
            connection,
            account_id,
            uuid=secrets.token_hex(16),
            username=placeholder,
            name_key=name_key(placeholder),
            password=UNUSABLE_PASSWORD,
            now=now,
        )
        await session_store.end_all(connection, account_id)
        await mail_token_store.forget(connection, account_id)
        await key_store.erase_all(connection, account_id, now)
        for forget in self._forget:
            await forget(connection, account_id)
        if within is not None:
            await within(connection)
