"""Use cases of accounts; each opens and commits its own transaction."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from aiproject.accounts.core import store
from aiproject.accounts.core.directory import AccountDirectory
from aiproject.accounts.core.fingerprints import uuid_fingerprint
from aiproject.accounts.core.model import Account, NewAccount, check_new_account, is_askable, refuse_misleading_name
from aiproject.accounts.login.password_policy import MIN_PASSWORD_LENGTH, check_new_password
from aiproject.accounts.login.throttle import LoginThrottle, ThrottleScope
from aiproject.accounts.login.verifier import PasswordVerifier, StoredPassword
from aiproject.adapters.db.engine import Connection, Database
from aiproject.adapters.db.errors import UniqueViolation
from aiproject.adapters.db.schema import NAME_LENGTH, name_key, new_account_id
from aiproject.adapters.log import get_logger
from aiproject.adapters.passwords import PasswordService
from aiproject.audit.model import CHANGED, ActorKind, AuditContext, Fact, account_origin
from aiproject.audit.store import record
from aiproject.errors import AccountUnknown, LoginFailed, NameTaken
from aiproject.protocols.names import lookup_keys

__all__ = ["Accounts", "GrantOpening", "Within"]

log = get_logger("accounts")

DRAWS = 5
"""Attempts to draw an unused account number; two accounts of one second draw the same one once in two million."""

MAX_UUID_LENGTH = 50
"""Characters of a uuid; the width of the legacy column."""

GrantOpening = Callable[[Connection, int], Awaitable[None]]
"""Gives a new account its quota: called with the connection of the transaction that opens it, and its number."""


Within = Callable[[Connection], Awaitable[None]]
"""Further work of the same transaction: ending sessions, an entry of the audit log."""


def new_uuid() -> str:
    """Return 128 random bits in hexadecimal; the value is the account's credential for existing apps."""
    return secrets.token_hex(16)


class AccountPasswords:
    """The passwords of all accounts, for `PasswordVerifier`."""

    scope = ThrottleScope.LOGIN

    def __init__(self, database: Database) -> None:
        self._database = database

    async def stored_key(self, name: str) -> str | None:
        """Return the key under which the account that the name means is stored."""
        async with self._database.connect() as connection:
            found = await store.by_name(connection, name)
        return None if found is None else found[0].name_key

    async def find(self, name: str) -> StoredPassword[Account] | None:
        """Return the account that the name means, and its password."""
        async with self._database.connect() as connection:
            found = await store.by_name(connection, name)
        return None if found is None else StoredPassword(*found, is_disabled=found[0].is_disabled)


class OwnPassword:
    """The password of one account, by its number: its name may be another at this moment."""

    scope = ThrottleScope.LOGIN

    def __init__(self, database: Database, account: Account) -> None:
        self._database = database
        self._account = account

    async def stored_key(self, _name: str) -> str | None:
        """Return the account's key."""
        return self._account.name_key

    async def find(self, _name: str) -> StoredPassword[Account] | None:
        """Return the account and its password; ``None``: it was deleted."""
        async with self._database.connect() as connection:
            stored = await store.stored_password(connection, self._account.account_id)
        if stored is None:
            return None
        return StoredPassword(self._account, stored, is_disabled=self._account.is_disabled)


class Accounts(AccountDirectory):
    """Registration, login and identity.

    Args:
        guard: counts wrong passwords and uuids; one of its own if none is given.
        password_min_length: characters of a new password.
    """

    def __init__(
        self,
        database: Database,
        passwords: PasswordService,
        grant_opening: GrantOpening,
        *,
        login_throttle: LoginThrottle | None = None,
        password_min_length: int = MIN_PASSWORD_LENGTH,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._login_throttle = login_throttle or LoginThrottle(database)
        self._verifier = PasswordVerifier(passwords, self._login_throttle)
        self._directory = AccountPasswords(database)
        super().__init__(database)
        self._passwords = passwords
        self._grant_opening = grant_opening
        self._password_min_length = password_min_length
        self._clock = clock

    async def register(
        self,
        username: str,
        password: str,
        email: str,
        academy: str | None = None,
        *,
        grant_opening: GrantOpening | None = None,
        origin: AuditContext | None = None,
        address: str | None = None,
    ) -> Account:
        """Open an account, with the sign-up quota unless another is given.

        Args:
            grant_opening: gives it another quota.
            origin: the administrator who opens it, for an entry of the audit log; ``None``: its owner does.
            address: of the caller, which waits for its turn at a password's hash; ``None``: as in `PasswordService`.

        Raises:
            InvalidInput: see `check_new_account` and `refuse_misleading_name`.
            NameTaken: decided by the database's unique index, so two at the same moment cannot both win.
            TooManyRequests: too many passwords wait to be hashed.
        """
        new = check_new_account(username, password, email, academy, password_min_length=self._password_min_length)
        async with self._database.connect() as connection:
            if await store.by_name(connection, new.username) is not None:
                raise NameTaken
        refuse_misleading_name(new.username)
        with self._passwords.place(address):
            async with self._passwords.turn(address):
                stored = await self._passwords.hash(new.password)
        now = self._clock()

        for draw in range(1, DRAWS + 1):
            try:
                await self._database.transact(
                    _insert, new, stored, now=now, grant_opening=grant_opening or self._grant_opening, origin=origin
                )
                break
            except UniqueViolation as error:
                if error.constraint == "uq_user_name_key":
                    raise NameTaken from None
                if draw == DRAWS:
                    raise
                # Another account has the number: another one is drawn.
        account = await self.named(new.username)
        log.info("account opened", account=account.account_id)
        return account

    async def login(self, username: str, password: str, *, address: str | None = None) -> Account:
        """Return the account that the password opens.

        An unknown name costs the same work as a wrong password. A password that is stored in an older form (the legacy
        MD5, plain text, or argon2 with other parameters) is replaced by a hash in today's form.

        Args:
            address: of the caller; ``None`` counts failures by the name alone.

        Raises:
            LoginFailed: unknown name, wrong password or disabled account; never says which.
            TooManyRequests: failures before it, of the name or the address, or logins at this moment; no work is done.
        """
        async with self._verifier.verified(self._directory, username, password, address=address) as found:
            account = found.owner
            if found.rehashed is not None:
                await self._database.transact(
                    store.set_password, account.account_id, old=found.stored, new=found.rehashed
                )
                log.info("password hash upgraded", account=account.account_id)
            return account

    async def change_password(
        self,
        account: Account,
        current: str,
        new: str,
        *,
        sign_out_everywhere: bool = True,
        address: str | None = None,
        within: Within | None = None,
    ) -> Account:
        """Change a password on behalf of its owner, who must know the current one.

        Args:
            sign_out_everywhere: give the account another uuid as well, so that every app has to log in again.
            address: of the caller, for `LoginThrottle`: a wrong current password counts as a failed login.
            within: done in the same transaction.

        Returns:
            the account, with its new uuid.

        Raises:
            LoginFailed: ``current`` is wrong, the account is disabled, or its password was changed at the same moment.
            InvalidInput: see `check_new_password`.
            TooManyRequests: see `login`.
        """
        new = check_new_password(new, account.username, self._password_min_length)
        async with self._verifier.verified(
            OwnPassword(self._database, account), account.username, current, address=address, rehashes=False
        ) as found:
            return await self._store_password(
                account, new, old=found.stored, rotates=sign_out_everywhere, within=within
            )

    async def set_password(
        self, account: Account, new: str, *, sign_out_everywhere: bool = False, within: Within | None = None
    ) -> Account:
        """Set a password on behalf of an administrator or by the token of an e-mail; unlocks the account.

        Args:
            sign_out_everywhere: give it another uuid as well. Not by default: existing apps keep the uuid on disk, and
                an administrator who helps with a forgotten password does not intend to sign them out.
            within: done in the same transaction.

        Returns:
            the account, with its new uuid if it has one.

        Raises:
            AccountUnknown: it is gone.
            InvalidInput: see `check_new_password`.
        """
        new = check_new_password(new, account.username, self._password_min_length)
        changed = await self._store_password(account, new, old=None, rotates=sign_out_everywhere, within=within)
        await self.unlock_account(account)
        return changed

    async def _store_password(
        self, account: Account, new: str, *, old: str | None, rotates: bool, within: Within | None
    ) -> Account:
        hashed = await self._passwords.hash(new)
        changed = await self._database.transact(
            self._replace_password, account, hashed, old=old, uuid=new_uuid() if rotates else None, within=within
        )
        log.info("password changed", account=account.account_id, signed_out_everywhere=rotates)
        return changed

    async def _replace_password(
        self,
        connection: Connection,
        account: Account,
        hashed: str,
        *,
        old: str | None,
        uuid: str | None,
        within: Within | None,
    ) -> Account:
        """Args: old: the stored password that must still be there; uuid: the account's next one."""
        is_changed = await store.change_password(connection, account.account_id, new=hashed, now=self._clock(), old=old)
        if not is_changed:
            raise AccountUnknown if old is None else LoginFailed
        if uuid is not None:
            await store.set_uuid(connection, account.account_id, uuid)
        if within is not None:
            await within(connection)
        if uuid is not None:
            await _record_uuid(connection, account, uuid, account_origin(account.account_id))
        changed = await store.by_account_id(connection, account.account_id)
        if changed is None:
            raise AccountUnknown
        return changed

    async def rotate_uuid(self, account: Account, *, origin: AuditContext | None = None) -> str:
        """Replace an account's uuid and return the new one: every app that stored the old one has to log in again.

        Args:
            origin: the actor, for the audit log; ``None``: the owner.

        Raises:
            AccountUnknown: it is gone.
        """
        uuid = new_uuid()
        await self._database.transact(_rotate, account, uuid, origin or account_origin(account.account_id))
        log.info("uuid changed", account=account.account_id)
        return uuid

    async def unlock(self, username: str) -> bool:
        """Delete the failed logins of a name, whether it exists or not; return whether there were any."""
        key = await self._directory.stored_key(username) if is_askable(username) else None
        return await self._login_throttle.unlock(ThrottleScope.LOGIN, username, stored_key=key)

    async def unlock_account(self, account: Account) -> None:
        """Delete the failed logins of an account, under the name that it has in ``account``."""
        await self._login_throttle.unlock(ThrottleScope.LOGIN, account.username, stored_key=account.name_key)

    async def identify(self, uuid: str, usernames: Sequence[str], *, address: str | None = None) -> Account:
        """Return the account to which a uuid and one of the spellings of a name belong.

        A correct pair costs one query and is never refused because of others' guesses; a wrong one is counted.

        Args:
            usernames: how the name may be read (a header can be raw UTF-8 or percent-encoded), at most a few.
            address: of the caller, for `LoginThrottle`.

        Raises:
            AccountUnknown: they do not belong together, or the account is disabled.
            TooManyRequests: they do not belong together either, and were not the first that did not.
        """
        uuid = uuid.strip()
        names = (name for name in usernames if 0 < len(name.strip()) <= NAME_LENGTH and is_askable(name))
        keys = list(dict.fromkeys(key for name in names for key in lookup_keys(name)))
        if not uuid or not keys:
            raise AccountUnknown
        async with self._database.connect() as connection:
            found = await store.by_name_keys(connection, keys)
        for account, _ in found:
            # Looked up by name and compared here in constant time, so that timing reveals nothing about the uuid.
            if hmac.compare_digest(account.uuid.encode(), uuid.encode("utf-8", "replace")) and not account.is_disabled:
                return account
        await self._login_throttle.wrong_guess(ThrottleScope.UUID, name=keys[0], address=address)
        raise AccountUnknown

    async def identify_by_uuid(self, uuid: str, *, address: str | None = None) -> Account:
        """Return the account of a uuid, for the one legacy request that sends no name.

        Raises:
            AccountUnknown: there is none, or it is disabled.
            TooManyRequests: there is none, and the address has guessed before.
        """
        uuid = uuid.strip()
        if not uuid or len(uuid) > MAX_UUID_LENGTH or not is_askable(uuid):
            raise AccountUnknown
        async with self._database.connect() as connection:
            account = await store.by_uuid(connection, uuid)
        # Compared again: a database may consider values equal that differ in case or in trailing blanks.
        if account is None or account.is_disabled or not hmac.compare_digest(account.uuid.encode(), uuid.encode()):
            await self._login_throttle.wrong_guess(ThrottleScope.UUID, name=None, address=address)
            raise AccountUnknown
        return account

    async def set_disabled(self, username: str, disabled: bool, *, origin: AuditContext | None = None) -> Account:
        """Disable an account (login and calls are refused from then on) or enable it again.

        Args:
            origin: the actor, for an entry of the audit log; ``None``: no entry.

        Raises:
            AccountUnknown: there is none of this name.
        """
        account = await self.named(username)
        await self._database.transact(self._disable, account, disabled, origin)
        log.info("account disabled" if disabled else "account enabled", account=account.account_id)
        return await self.named(username)

    async def _disable(
        self, connection: Connection, account: Account, disabled: bool, origin: AuditContext | None
    ) -> None:
        await store.set_disabled(connection, account.account_id, self._clock() if disabled else None)
        if origin is not None:
            action = "user.disable" if disabled else "user.enable"
            before, after = {"is_disabled": account.is_disabled}, {"is_disabled": disabled}
            await record(connection, origin, action, account.username, before=before, after=after)


async def _insert(
    connection: Connection,
    new: NewAccount,
    stored: str,
    *,
    now: datetime,
    grant_opening: GrantOpening,
    origin: AuditContext | None,
) -> None:
    """Insert an account with a number and a uuid that are drawn here, so that another attempt draws others."""
    account_id, uuid = new_account_id(now), new_uuid()
    await store.add(
        connection,
        account_id=account_id,
        uuid=uuid,
        name_key=name_key(new.username),
        username=new.username,
        password=stored,
        email=new.email,
        academy=new.academy,
        now=now,
    )
    await grant_opening(connection, account_id)
    if origin is not None:
        after: dict[str, Fact] = {
            "account": account_id,
            "email": new.email,
            "academy": new.academy,
            "uuid_sha256": uuid_fingerprint(account_id, uuid),
        }
        await record(connection, origin, "user.add", new.username, after=after)


async def _rotate(connection: Connection, account: Account, uuid: str, origin: AuditContext) -> None:
    if not await store.set_uuid(connection, account.account_id, uuid):
        raise AccountUnknown
    await _record_uuid(connection, account, uuid, origin)


async def _record_uuid(connection: Connection, account: Account, uuid: str, origin: AuditContext) -> None:
    """Record in the audit log that an account has a new uuid; its fingerprint reveals one that was changed by hand."""
    after: dict[str, Fact] = {
        "account": account.account_id,
        "uuid": CHANGED,
        "uuid_sha256": uuid_fingerprint(account.account_id, uuid),
    }
    is_owner = origin.actor.kind is ActorKind.ACCOUNT
    target = str(account.account_id) if is_owner else account.username
    await record(connection, origin, "user.rotate", target, after=after)
