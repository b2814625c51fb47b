"""Browser sessions: opened by a login, recognised by a cookie, ended by their owner, by time, or with the password.

A token is 256 random bits; the database stores its SHA-256 only. A session is invalid, whatever its row says, as soon
as its account is disabled or the password was changed after it was opened. So code that sets a password does not need
to know about sessions.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from aiproject.accounts.core import person_store
from aiproject.accounts.core.model import Account
from aiproject.accounts.sessions import store as session_store
from aiproject.adapters.db.engine import Connection, Database
from aiproject.adapters.log import get_logger
from aiproject.errors import LoginFailed, NotFound, NotSignedIn

__all__ = ["OpenSession", "Session", "Sessions"]

log = get_logger("accounts")

MAX_SESSIONS = 50
"""Sessions of an account at most; a further login ends the least recently used one."""

SEEN_EVERY = timedelta(minutes=1)
"""The use of a session is recorded at most once in this time, so that a page of requests causes one write."""

TOKEN_FORM = re.compile(r"[0-9A-Za-z_-]{43}", re.ASCII)
"""32 random bytes in URL-safe base64; anything else is rejected without a query."""

MAX_USER_AGENT = 200
MAX_ADDRESS = 64
"""Characters; the widths of the columns."""


@dataclass(frozen=True, slots=True)
class Session:
    """A browser session as its owner sees it.

    Attributes:
        session_id: its public identifier; not a secret.
        seen_at: when it was used last, to the minute.
        expires_at: its end at the latest.
        address: of the client that opened it.
        user_agent: of the browser that opened it.
    """

    session_id: str
    account_id: int
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    address: str
    user_agent: str


@dataclass(frozen=True, slots=True, repr=False)
class OpenSession:
    """A session and its token, which is not stored and cannot be shown again."""

    session: Session
    token: str

    def __repr__(self) -> str:
        return f"OpenSession({self.session.session_id!r})"


class Sessions:
    """Opens, recognises, lists and ends sessions.

    Args:
        idle: seconds without use after which a session is over.
        lifetime: seconds after which it is over in any case.
    """

    def __init__(
        self,
        database: Database,
        *,
        idle: int,
        lifetime: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._idle = timedelta(seconds=idle)
        self._lifetime = timedelta(seconds=lifetime)
        self._clock = clock

    def now(self) -> datetime:
        """Return the time to pass to `open` later; call it before the password is verified."""
        return self._clock()

    async def open(
        self,
        account: Account,
        *,
        checked_at: datetime,
        address: str,
        user_agent: str,
        replaced: str | None = None,
        ends_others: bool = False,
    ) -> OpenSession:
        """Open a session for a caller that has just shown the account's password.

        Args:
            checked_at: a time before the password was verified.
            replaced: the token of a session that this one takes the place of.
            ends_others: end all other sessions of the account.

        Raises:
            LoginFailed: the password was changed, or the account disabled, since ``checked_at``.
        """
        token, session_id = secrets.token_urlsafe(32), secrets.token_hex(8)
        shown = "".join(character for character in user_agent if character.isprintable())[:MAX_USER_AGENT]

        async def insert(connection: Connection) -> Session:
            now = await self._opening_time(connection, account, checked_at)
            session = Session(
                session_id, account.account_id, now, now, now + self._lifetime, address[:MAX_ADDRESS], shown
            )
            if replaced is not None and TOKEN_FORM.fullmatch(replaced):
                await session_store.end_token(connection, _hash(replaced))
            await _make_room(connection, account.account_id, ends_others=ends_others)
            await session_store.end_overdue(connection, now)
            await session_store.add(connection, _hash(token), **asdict(session))
            return session

        session = await self._database.transact(insert)
        log.info("session opened", account=account.account_id, session=session_id)
        return OpenSession(session, token)

    async def _opening_time(self, connection: Connection, account: Account, checked_at: datetime) -> datetime:
        """Lock the account and return when a session that opens now was created.

        Raises:
            LoginFailed: see `open`.
        """
        state = await person_store.lock(connection, account.account_id)
        if state is None or state.is_disabled:
            raise LoginFailed
        changed_at = state.password_changed_at
        if changed_at is not None and changed_at > checked_at:
            raise LoginFailed
        # Not before the password was changed, even if it was another node, whose clock is ahead, that changed it:
        # `_is_live` takes sessions that are older than the password for ended.
        return max(self._clock(), changed_at or checked_at)

    async def recognise(self, token: str) -> tuple[Account, Session]:
        """Return the account and the session of a token, and record its use.

        Raises:
            NotSignedIn: there is none, it is over, or its account may not be used.
        """
        if not TOKEN_FORM.fullmatch(token):
            raise NotSignedIn
        async with self._database.connect() as connection:
            found = await session_store.found(connection, _hash(token))
        if found is None:
            raise NotSignedIn
        account, password_changed_at, row = found
        session = Session(*row)
        now = self._clock()
        if account.is_disabled or not self._is_live(session, now, password_changed_at):
            raise NotSignedIn
        if session.seen_at <= now - SEEN_EVERY:
            await self._database.transact(session_store.saw, session.session_id, before=now - SEEN_EVERY, now=now)
        return account, session

    async def of_account(self, account: Account) -> list[Session]:
        """Return the live sessions of an account, the one used last first."""
        now = self._clock()
        async with self._database.connect() as connection:
            rows = await session_store.of_account(connection, account.account_id)
            changed_at = await person_store.password_changed_at(connection, account.account_id)
        return [session for session in (Session(*row) for row in rows) if self._is_live(session, now, changed_at)]

    async def end(self, account: Account, session_id: str) -> None:
        """End one session of an account.

        Raises:
            NotFound: the account has none of this name.
        """
        if not re.fullmatch(r"[0-9a-f]{16}", session_id, re.ASCII):
            raise NotFound
        if not await self._database.transact(session_store.end, account.account_id, session_id):
            raise NotFound
        log.info("session ended", account=account.account_id, session=session_id)

    async def end_all(self, account: Account, *, but: str | None = None) -> int:
        """End the sessions of an account, except the one called ``but``; return how many ended."""
        ended = await self._database.transact(session_store.end_all, account.account_id, but=but)
        log.info("sessions ended", account=account.account_id, sessions=ended)
        return ended

    def _is_live(self, session: Session, now: datetime, password_changed_at: datetime | None) -> bool:
        return (
            now < session.expires_at
            # A lifetime that was shortened in the settings applies to open sessions, too.
            and now < session.created_at + self._lifetime
            and now < session.seen_at + self._idle
            and (password_changed_at is None or session.created_at >= password_changed_at)
        )


async def _make_room(connection: Connection, account_id: int, *, ends_others: bool) -> None:
    if ends_others:
        await session_store.end_all(connection, account_id)
        return
    for row in (await session_store.of_account(connection, account_id))[MAX_SESSIONS - 1 :]:
        await session_store.end(connection, account_id, Session(*row).session_id)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
