"""Verification of e-mail addresses and reset of forgotten passwords, both by e-mail.

A token has 256 random bits and is stored as its SHA-256. It is valid once, for a limited time, for one account and
address.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from aiproject.accounts.core import person_store, store
from aiproject.accounts.core.model import MAX_EMAIL_LENGTH, Account, is_askable
from aiproject.accounts.core.service import Accounts
from aiproject.accounts.login.throttle import LoginThrottle, ThrottleScope
from aiproject.accounts.selfservice import token_store as mail_token_store
from aiproject.accounts.selfservice.emails import reset_email, verification_email
from aiproject.accounts.selfservice.token_store import MailToken, Purpose
from aiproject.accounts.sessions import store as session_store
from aiproject.adapters.db.engine import Connection, Database
from aiproject.adapters.log import get_logger
from aiproject.adapters.mailer import Email, MailQueue, NotMailable, mailable
from aiproject.codes import Detail
from aiproject.errors import AccountUnknown, InvalidInput, NotFound, TooManyRequests, Unavailable

__all__ = ["Recovery"]

log = get_logger("accounts")

LIFETIMES = {Purpose.VERIFY: timedelta(hours=24), Purpose.RESET: timedelta(minutes=30)}

MAX_LIVE = {Purpose.VERIFY: 5, Purpose.RESET: 3}
"""Maximum valid tokens of an account, and so the e-mails that it receives within a token's lifetime. All nodes share
this limit, and it survives a restart."""

MAX_ACCOUNTS_OF_ADDRESS = 5
"""Maximum accounts with the same verified address for which a reset by address sends e-mails."""

TOKEN_FORM = re.compile(r"[0-9A-Za-z_-]{43}", re.ASCII)


class Recovery:
    """Sends tokens and redeems them.

    Args:
        mail_queue: ``None``: there is no mail server, and every request is refused with `NotFound`.
        public_url: the address at which browsers reach this server; ``None``: e-mails contain the token only.
        clock: returns the current time, aware.
    """

    def __init__(
        self,
        database: Database,
        accounts: Accounts,
        login_throttle: LoginThrottle,
        mail_queue: MailQueue | None,
        public_url: str | None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._login_throttle = login_throttle
        self._mail_queue = mail_queue
        self._public_url = public_url
        self._clock = clock

    def require_mail(self) -> MailQueue:
        """Return the mail queue.

        Raises:
            NotFound: there is no mail server.
        """
        if self._mail_queue is None:
            raise NotFound(Detail.MAIL_NOT_CONFIGURED)
        return self._mail_queue

    # -- verification --------------------------------------------------------------------------------------------------

    async def send_verification(self, account: Account) -> None:
        """Send an e-mail to the account's address, with a token that verifies it.

        Raises:
            InvalidInput: the account has no address to which mail can be sent.
            TooManyRequests: too many e-mails were sent already.
            Unavailable: the mail queue is full.
        """
        mail_queue = self.require_mail()
        if account.email_verified_at is not None:
            return
        try:
            mailable(account.email)
        except NotMailable:
            raise InvalidInput(Detail.EMAIL_NOT_DELIVERABLE) from None
        token = await self._mint(Purpose.VERIFY, account.account_id, account.email)
        if token is None:
            raise TooManyRequests(3600, Detail.TOO_MANY_VERIFICATION_MAILS)
        email = verification_email(account.email, token, self._public_url)

        async def write() -> Sequence[Email]:
            return [email]

        if not mail_queue.put(write):
            raise Unavailable("too many letters wait", retry_after=60)

    async def verify(self, token: str, *, address: str | None) -> None:
        """Mark the address to which the token was sent as verified.

        Raises:
            InvalidInput: the token is unknown, used or expired, or the account's address has changed; never says which.
        """
        self.require_mail()
        token_hash, found = await self._find(Purpose.VERIFY, token, address)
        if not await self._database.transact(_mark_verified, token_hash, found, self._clock()):
            raise InvalidInput(Detail.MAIL_TOKEN_INVALID)
        log.info("e-mail address verified", account=found.account_id)

    # -- reset ---------------------------------------------------------------------------------------------------------

    def ask_reset(self, *, username: str | None, email: str | None) -> None:
        """Send an e-mail to the verified address of the account, or of all accounts with this address.

        The account is looked up later, in the background, so that neither the response nor its time reveals whether
        there is one.

        Raises:
            NotFound: there is no mail server.
        """
        mail_queue = self.require_mail()

        async def write() -> Sequence[Email]:
            emails = []
            for account in await self._meant(username, email):
                if account.is_disabled or account.email_verified_at is None:
                    continue
                token = await self._mint(Purpose.RESET, account.account_id, account.email)
                if token is not None:
                    # To the stored address, never to the typed one: addresses whose characters look alike or have the
                    # same case folding can belong to different owners.
                    emails.append(reset_email(account.email, account.username, token, self._public_url))
            return emails

        mail_queue.put(write)

    async def reset(self, token: str, new_password: str, *, address: str | None) -> None:
        """Set a password with a token. All sessions end, the uuid changes, and the account's login lock is removed.

        Raises:
            InvalidInput: the password is refused (the token stays valid), or the token is unknown, used, expired, or
                for another address; never says which of these.
        """
        self.require_mail()
        token_hash, found = await self._find(Purpose.RESET, token, address)
        async with self._database.connect() as connection:
            account = await store.by_account_id(connection, found.account_id)
        if account is None:
            raise InvalidInput(Detail.MAIL_TOKEN_INVALID)

        async def use(connection: Connection) -> None:
            is_won = await mail_token_store.consume(connection, token_hash, self._clock())
            state = await person_store.lock(connection, found.account_id)
            is_meant = state is not None and not state.is_disabled and state.email_verified_at is not None
            if not is_won or state is None or not is_meant or state.email != found.email:
                raise InvalidInput(Detail.MAIL_TOKEN_INVALID)
            await mail_token_store.forget(connection, found.account_id, Purpose.RESET)
            await session_store.end_all(connection, found.account_id)

        try:
            await self._accounts.set_password(account, new_password, sign_out_everywhere=True, within=use)
        except AccountUnknown:
            raise InvalidInput(Detail.MAIL_TOKEN_INVALID) from None
        log.info("password reset by mail", account=found.account_id)

    # -- both ----------------------------------------------------------------------------------------------------------

    async def _meant(self, username: str | None, email: str | None) -> Sequence[Account]:
        if username is not None:
            try:
                return [await self._accounts.named(username)]
            except AccountUnknown:
                return []
        if email is None or not is_askable(email) or not 0 < len(email) <= MAX_EMAIL_LENGTH:
            return []
        async with self._database.connect() as connection:
            return await person_store.verified_at_address(connection, email, limit=MAX_ACCOUNTS_OF_ADDRESS)

    async def _mint(self, purpose: Purpose, account_id: int, email: str) -> str | None:
        """Create a token; ``None``: the account has as many as allowed, or no longer exists."""
        token = secrets.token_urlsafe(32)
        is_stored = await self._database.transact(_store_token, _hash(token), purpose, account_id, email, self._clock())
        return token if is_stored else None

    async def _find(self, purpose: Purpose, token: str, address: str | None) -> tuple[str, MailToken]:
        token = token.strip()
        found = None
        if TOKEN_FORM.fullmatch(token):
            async with self._database.connect() as connection:
                found = await mail_token_store.found(connection, _hash(token), purpose, self._clock())
        if found is None:
            await self._login_throttle.wrong_guess(ThrottleScope.TOKEN, name=None, address=address)
            raise InvalidInput(Detail.MAIL_TOKEN_INVALID)
        return _hash(token), found


async def _mark_verified(connection: Connection, token_hash: str, token: MailToken, now: datetime) -> bool:
    return await mail_token_store.consume(connection, token_hash, now) and await person_store.verified(
        connection, token.account_id, token.email, now
    )


async def _store_token(
    connection: Connection, token_hash: str, purpose: Purpose, account_id: int, email: str, now: datetime
) -> bool:
    """Store a token; ``False``: the account has as many as allowed, or no longer exists."""
    state = await person_store.lock(connection, account_id)
    if state is None or await mail_token_store.live(connection, account_id, purpose, now) >= MAX_LIVE[purpose]:
        return False
    await mail_token_store.drop_overdue(connection, now)
    await mail_token_store.add(
        connection, token_hash, purpose, account_id, email, now=now, expires_at=now + LIFETIMES[purpose]
    )
    return True


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
