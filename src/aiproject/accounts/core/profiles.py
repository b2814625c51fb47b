"""What an owner may change of an account's person: e-mail address and academy."""

from __future__ import annotations

import unicodedata
from typing import Any

from aiproject.accounts.core import person_store, store
from aiproject.accounts.core.model import MAX_ACADEMY_LENGTH, MAX_EMAIL_LENGTH, Account
from aiproject.adapters.db.engine import Connection, Database
from aiproject.adapters.log import get_logger
from aiproject.adapters.mailer import NotMailable, mailable
from aiproject.codes import Detail, Term
from aiproject.errors import AccountUnknown, InvalidInput

__all__ = ["Profiles"]

log = get_logger("accounts")


class Profiles:
    """Changes profiles."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def edit(self, account: Account, *, email: str | None = None, academy: str | None = None) -> Account:
        """Change what is given, ``""`` to remove it; return the account as it is then.

        Args:
            email: another address; it counts as unverified.

        Raises:
            InvalidInput: an address to which no mail can be sent, or a text that is too long or not printable.
            AccountUnknown: the account was closed meanwhile.
        """
        values: dict[str, Any] = {}
        if email is not None:
            values |= {"Email": _email(email), "EmailVerifiedAt": None}
        if academy is not None:
            values["Academy"] = _academy(academy)

        changed = await self._database.transact(_change, account.account_id, values)
        log.info("profile changed", account=account.account_id, fields=sorted(values))
        return changed


async def _change(connection: Connection, account_id: int, values: dict[str, Any]) -> Account:
    if values and not await person_store.change(connection, account_id, **values):
        raise AccountUnknown
    found = await store.by_account_id(connection, account_id)
    if found is None:
        raise AccountUnknown
    return found


def _email(text: str) -> str:
    """Stricter than at the registration, whose apps may send anything: who comes here wants mail."""
    text = text.strip()
    if not text:
        return ""
    if len(text) > MAX_EMAIL_LENGTH:
        raise InvalidInput(Detail.FIELD_TOO_LONG, field=Term.EMAIL, limit=MAX_EMAIL_LENGTH)
    try:
        mailable(text)
    except NotMailable:
        raise InvalidInput(Detail.EMAIL_MALFORMED) from None
    return text


def _academy(text: str) -> str | None:
    text = text.strip()
    if len(text) > MAX_ACADEMY_LENGTH:
        raise InvalidInput(Detail.FIELD_TOO_LONG, field=Term.ACADEMY, limit=MAX_ACADEMY_LENGTH)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise InvalidInput(Detail.FIELD_HAS_CONTROLS, field=Term.ACADEMY)
    return text or None
