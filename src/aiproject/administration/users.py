"""What administrators do to accounts: one transaction each, with the ledger and the audit log in it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from aiproject.accounts.core import store
from aiproject.accounts.core.model import Account, check_new_account, is_askable
from aiproject.accounts.core.service import Accounts
from aiproject.accounts.login.password_policy import MIN_PASSWORD_LENGTH
from aiproject.accounts.selfservice.deletion import AccountDeletion
from aiproject.accounts.selfservice.editing import Profile, edit
from aiproject.adapters.db.engine import Connection, Database
from aiproject.adapters.passwords import PasswordService
from aiproject.administration.model import MASK
from aiproject.audit.model import CHANGED, AuditContext, Fact
from aiproject.audit.store import record
from aiproject.errors import AccountUnknown
from aiproject.ledger.grants import apply_grants, grants_of
from aiproject.ledger.model import Grant, Kind, Meter

__all__ = ["NewProfile", "UserAdministration"]


@dataclass(frozen=True, slots=True, repr=False)
class NewProfile:
    """What an administrator wants an account to be.

    Attributes:
        password: empty, or the mask that lists show instead of one: as it was.
        tokens: the balance that it shall have, not what is added.
        pic_times: likewise.
    """

    username: str
    password: str
    email: str
    academy: str | None
    tokens: int
    pic_times: int

    @property
    def has_password(self) -> bool:
        return self.password.strip() not in ("", MASK)


class UserAdministration:
    """Adding, changing and deleting accounts.

    Args:
        voice_ms: dictation that a new account starts with; ``None``: unmetered.
        password_min_length: characters of a new password.
    """

    def __init__(
        self,
        database: Database,
        passwords: PasswordService,
        accounts: Accounts,
        deletion: AccountDeletion,
        *,
        voice_ms: int | None,
        password_min_length: int = MIN_PASSWORD_LENGTH,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._accounts = accounts
        self._deletion = deletion
        self._voice_ms = voice_ms
        self._password_min_length = password_min_length
        self._clock = clock

    async def add(self, new: NewProfile, origin: AuditContext) -> Account:
        """Open an account with just the quota that is given.

        Raises:
            InvalidInput: see `check_new_account`.
            NameTaken: by another account.
        """
        return await self._accounts.register(
            new.username,
            new.password,
            new.email,
            new.academy,
            grant_opening=partial(self._grant_opening, new, origin),
            origin=origin,
        )

    async def _grant_opening(
        self, new: NewProfile, origin: AuditContext, connection: Connection, account_id: int
    ) -> None:  # fmt: skip
        orders = grants_of(
            account_id,
            {
                Meter.TOKENS: new.tokens or None,
                Meter.PIC_TIMES: new.pic_times or None,
                Meter.VOICE_SECONDS: self._voice_ms,
            },
            Kind.GRANT,
            origin.request_id,
        )
        if orders:
            await apply_grants(connection, orders, dialect=self._database.dialect, origin=origin)

    async def modify(self, target: str, new: NewProfile, origin: AuditContext) -> None:
        """Change an account. Its uuid stays; a new password ends its browser sessions.

        Balances are brought to their new values by a grant of the difference, under the account's lock, and not below
        what running calls have set aside.

        Raises:
            AccountUnknown: there is none of this name.
            NameTaken: by another account.
            InvalidInput: see `check_new_account` and `refuse_misleading_name`.
        """
        # No password given: the checks of a new account get one that passes.
        password = new.password if new.has_password else secrets.token_hex(16)
        checked = check_new_account(
            new.username, password, new.email, new.academy, password_min_length=self._password_min_length
        )
        hashed = await self._passwords.hash(checked.password) if new.has_password else None
        profile = Profile(checked.username, checked.email, checked.academy, hashed)
        old = await self._database.transact(self._modify, target, new, profile, origin)
        if hashed is not None:
            await self._accounts.unlock_account(old)

    async def _modify(
        self, connection: Connection, target: str, new: NewProfile, profile: Profile, origin: AuditContext
    ) -> Account:
        old = await self._locked(connection, target)
        await edit(connection, old, profile, self._clock())
        wanted = {Meter.TOKENS: new.tokens, Meter.PIC_TIMES: new.pic_times}
        have = {Meter.TOKENS: old.tokens, Meter.PIC_TIMES: old.pic_times}
        orders = [
            Grant(old.account_id, each, units - have[each], Kind.GRANT, origin.request_id)
            for each, units in wanted.items()
            if units != have[each]
        ]
        applied = await apply_grants(connection, orders, dialect=self._database.dialect) if orders else {}
        before, after = _difference(old, profile)
        before |= {str(each): have[each] for each in applied}
        after |= {str(each): have[each] + amount for each, amount in applied.items()}
        after["account"] = old.account_id
        await record(connection, origin, "user.modify", old.username, before=before, after=after)
        return old

    async def delete(self, target: str, origin: AuditContext) -> Account:
        """Erase what names the owner: name, mail, password, uuid, keys and sessions; the account's number stays.

        Raises:
            AccountUnknown: there is none of this name.
        """

        account = await self._accounts.named(target)

        async def note(connection: Connection) -> None:
            before: dict[str, Fact] = {
                "account": account.account_id,
                "tokens": account.tokens,
                "pic_times": account.pic_times,
            }
            await record(connection, origin, "user.delete", account.username, before=before)

        await self._deletion.delete(account, within=note)
        return account

    async def _locked(self, connection: Connection, target: str) -> Account:
        if not is_askable(target):
            raise AccountUnknown
        found = await store.by_name(connection, target)
        if found is None:
            raise AccountUnknown
        # Read anew under the lock: balances and name are those that will be changed.
        account = await store.locked(connection, found[0].account_id)
        if account is None or account.name_key != found[0].name_key:
            raise AccountUnknown
        return account


def _difference(old: Account, new: Profile) -> tuple[dict[str, Fact], dict[str, Fact]]:
    before: dict[str, Fact] = {}
    after: dict[str, Fact] = {}
    for field in ("username", "email", "academy"):
        if getattr(old, field) != getattr(new, field):
            before[field], after[field] = getattr(old, field), getattr(new, field)
    if new.password_hash is not None:
        after["password"] = CHANGED
    return before, after
