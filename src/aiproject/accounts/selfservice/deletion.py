"""The deletion of an account: the owner's personal data are erased, and the ledger stays.

Ledger entries, holds, redemptions and the operator's losses refer to the account by its number only. They stay, and the
number is never used again. Everything that identifies or describes the owner, and every credential, is replaced or
deleted. Running calls are settled when they end.
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

__all__ = ["AccountDeletion", "Forget"]

log = get_logger("accounts")

DRAWS = 5

Forget = Callable[[Connection, int], Awaitable[None]]
"""Deletes what another package stores about an account's owner. Takes the transaction and the account's number."""


class AccountDeletion:
    """Deletes accounts.

    Args:
        database: the database.
        forget: functions with which other packages delete their data in the same transaction.
        clock: returns the current time, aware.
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

    async def delete(self, account: Account, *, within: Within | None = None) -> None:
        """Erase the personal data of an account's owner. The name can be registered again at once.

        Args:
            within: awaited at the end of the same transaction, for an entry of the audit log.

        Raises:
            AccountUnknown: it was deleted already.
        """
        for draw in range(1, DRAWS + 1):
            try:
                await self._database.transact(self._erase, account.account_id, within)
                break
            except UniqueViolation:
                if draw == DRAWS:
                    raise
        log.info("account deleted", account=account.account_id)

    async def _erase(self, connection: Connection, account_id: int, within: Within | None) -> None:
        # A user may have registered such a name, so `delete` draws another one if it exists.
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
