"""Use cases of accounts; each opens and commits its own transaction."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.accounts import store
from aiproject.accounts.model import MAX_PASSWORD_LENGTH, Account, check_new_account, is_askable
from aiproject.adapters.database import Database, UniqueViolation, retry_transient
from aiproject.adapters.log import get_logger
from aiproject.adapters.passwords import PasswordService
from aiproject.adapters.schema import NAME_KEY_LENGTH, NAME_LENGTH, name_key, new_account_id
from aiproject.audit import Fact, Origin, record
from aiproject.errors import AccountUnknown, InvalidInput, LoginFailed, NameTaken

__all__ = ["Accounts", "OpenBooks"]

log = get_logger("accounts")

DRAWS = 5
"""Numbers drawn for a new account at most; two accounts of one second draw the same one once in two million."""

MAX_UUID_LENGTH = 50
"""Characters of a uuid; the width of the seed's column."""

LIST_PAGE = 500
"""Accounts read in one go when all are listed."""


OpenBooks = Callable[[AsyncConnection, int], Awaitable[None]]
"""Gives a new account its quota: called with the transaction that opens it, and its number."""


class Accounts:
    """Registration, login and identity."""

    def __init__(
        self,
        database: Database,
        passwords: PasswordService,
        open_books: OpenBooks,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._open_books = open_books
        self._clock = clock

    async def register(
        self,
        username: str,
        password: str,
        email: str,
        academy: str | None = None,
        *,
        open_books: OpenBooks | None = None,
        origin: Origin | None = None,
    ) -> Account:
        """Open an account, with the sign-up quota if not told otherwise.

        Args:
            open_books: gives it another quota.
            origin: who opens it for somebody else: an entry of the audit log.

        Raises:
            InvalidInput: see `check_new_account`.
            NameTaken: decided by the database's unique index, so two at the same moment cannot both win.
        """
        new = check_new_account(username, password, email, academy)
        key = name_key(new.username)
        if len(key) > NAME_KEY_LENGTH:
            raise InvalidInput("用户名展开后过长")  # one character can stand for eighteen: U+FDFA
        async with self._database.connect() as connection:
            if await store.by_name_keys(connection, [key]):
                raise NameTaken
        stored = await self._passwords.hash(new.password)
        now = self._clock()

        async def open_account() -> None:
            account_id = new_account_id(now)
            async with self._database.begin() as connection:
                await store.add(
                    connection,
                    account_id=account_id,
                    # 128 bits from the system's generator: the value is the account's credential.
                    uuid=secrets.token_hex(16),
                    name_key=key,
                    username=new.username,
                    password=stored,
                    email=new.email,
                    academy=new.academy,
                    now=now,
                )
                await (open_books or self._open_books)(connection, account_id)
                if origin is not None:
                    after: dict[str, Fact] = {"account": account_id, "email": new.email, "academy": new.academy}
                    await record(connection, origin, "user.add", new.username, after=after)

        for draw in range(1, DRAWS + 1):
            try:
                await retry_transient(open_account)
                break
            except UniqueViolation as error:
                if error.constraint == "uq_user_name_key":
                    raise NameTaken from None
                if draw == DRAWS:
                    raise
                # The number of another account: drawn again.
        account = await self.named(new.username)
        log.info("account opened", account=account.account_id)
        return account

    async def login(self, username: str, password: str) -> Account:
        """Return the account that the password opens.

        An unknown name costs the same work as a wrong password. A password in an older form (the seed's MD5, or plain)
        is replaced by its argon2id hash here.

        Raises:
            LoginFailed: unknown name, wrong password or disabled account; never says which.
        """
        username, password = username.strip(), password.strip()
        if not username or not password or len(username) > NAME_LENGTH or len(password) > MAX_PASSWORD_LENGTH:
            raise LoginFailed
        found = []
        if is_askable(username):
            async with self._database.connect() as connection:
                found = await store.by_name_keys(connection, [name_key(username)])
        if not found:
            await self._passwords.dummy_verify()
            raise LoginFailed
        account, stored = found[0]
        verdict = await self._passwords.verify(stored, password)
        if not verdict.ok or account.is_disabled:
            raise LoginFailed
        if verdict.needs_rehash:
            new = await self._passwords.hash(password)
            async with self._database.begin() as connection:
                await store.set_password(connection, account.account_id, old=stored, new=new)
            log.info("password hash upgraded", account=account.account_id)
        return account

    async def identify(self, uuid: str, usernames: Sequence[str]) -> Account:
        """Return the account to which a uuid and one of the spellings of a name belong.

        Args:
            usernames: how the name may be read (a header can be raw UTF-8 or percent-encoded), at most a few.

        Raises:
            AccountUnknown: they do not belong together, or the account is disabled.
        """
        uuid = uuid.strip()
        names = (name for name in usernames if 0 < len(name.strip()) <= NAME_LENGTH and is_askable(name))
        keys = list(dict.fromkeys(name_key(name) for name in names))
        if not uuid or not keys:
            raise AccountUnknown
        async with self._database.connect() as connection:
            found = await store.by_name_keys(connection, keys)
        for account, _ in found:
            # Looked up by the name and compared here, so that the time tells nothing about the uuid.
            if hmac.compare_digest(account.uuid.encode(), uuid.encode("utf-8", "replace")) and not account.is_disabled:
                return account
        raise AccountUnknown

    async def identify_by_uuid(self, uuid: str) -> Account:
        """Return the account of a uuid, for the one old call that sends no name along.

        Raises:
            AccountUnknown: there is none, or it is disabled.
        """
        uuid = uuid.strip()
        if not uuid or len(uuid) > MAX_UUID_LENGTH or not is_askable(uuid):
            raise AccountUnknown
        async with self._database.connect() as connection:
            account = await store.by_uuid(connection, uuid)
        # Compared here once more: a database may take for the same what differs in case or in blanks at the end.
        if account is None or account.is_disabled or not hmac.compare_digest(account.uuid.encode(), uuid.encode()):
            raise AccountUnknown
        return account

    async def named(self, username: str) -> Account:
        """Return the account with this name.

        Raises:
            AccountUnknown: there is none.
        """
        if not is_askable(username):
            raise AccountUnknown
        async with self._database.connect() as connection:
            found = await store.by_name_keys(connection, [name_key(username)])
        if not found:
            raise AccountUnknown
        return found[0][0]

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
            after = name_key(page[-1].username)

    async def set_disabled(self, username: str, disabled: bool, *, origin: Origin | None = None) -> Account:
        """Disable an account (login and calls are refused from then on) or enable it again.

        Args:
            origin: whose act it is: an entry of the audit log.

        Raises:
            AccountUnknown: there is none of this name.
        """
        account = await self.named(username)

        async def once() -> None:
            async with self._database.begin() as connection:
                await store.set_disabled(connection, account.account_id, self._clock() if disabled else None)
                if origin is not None:
                    action = "user.disable" if disabled else "user.enable"
                    before, after = {"is_disabled": account.is_disabled}, {"is_disabled": disabled}
                    await record(connection, origin, action, account.username, before=before, after=after)

        await retry_transient(once)
        log.info("account disabled" if disabled else "account enabled", account=account.account_id)
        return await self.named(username)
