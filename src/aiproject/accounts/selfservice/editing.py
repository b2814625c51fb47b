"""Changes that administrators make to an account, within the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiproject.accounts.core import store
from aiproject.accounts.core.model import Account, refuse_misleading_name
from aiproject.accounts.selfservice import token_store as mail_token_store
from aiproject.accounts.sessions import store as session_store
from aiproject.adapters.db.engine import Connection
from aiproject.adapters.db.errors import UniqueViolation
from aiproject.adapters.db.schema import name_key
from aiproject.errors import NameTaken

__all__ = ["Profile", "edit"]


@dataclass(frozen=True, slots=True, repr=False)
class Profile:
    """The new, checked properties of an account.

    Attributes:
        password_hash: ``None``: unchanged.
    """

    username: str
    email: str
    academy: str | None
    password_hash: str | None


async def edit(connection: Connection, account: Account, new: Profile, now: datetime) -> None:
    """Change an account whose row the caller has locked. The uuid is kept, since apps store it.

    Raises:
        InvalidInput: see `refuse_misleading_name`; an unchanged name is not checked.
        NameTaken: another account has this name.
    """
    columns: dict[str, Any] = {"Email": new.email, "Academy": new.academy}
    if new.username != account.username:
        refuse_misleading_name(new.username)
        bearer = await store.by_name(connection, new.username)
        if bearer is not None and bearer[0].account_id != account.account_id:
            # The other account may have an older form of the key, see `protocols.names.lookup_keys`.
            raise NameTaken
        columns |= {"UserName": new.username, "NameKey": name_key(new.username)}
    # The verification belongs to the old address.
    if new.email != account.email:
        columns["EmailVerifiedAt"] = None
    if new.password_hash is not None:
        columns |= {"PassWord": new.password_hash, "PasswordChangedAt": now}
    try:
        await store.set_profile(connection, account.account_id, **columns)
    except UniqueViolation as error:
        if error.constraint != "uq_user_name_key":
            raise
        raise NameTaken from None
    # A new password must exclude anyone who knew the old one or holds a token for a reset.
    if new.password_hash is not None:
        await session_store.end_all(connection, account.account_id)
        await mail_token_store.forget(connection, account.account_id)
