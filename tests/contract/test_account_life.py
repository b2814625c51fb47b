"""Sessions, mail tokens and the end of an account, on each of the four databases and under the races that matter."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import sqlalchemy as sa
from argon2.profiles import CHEAPEST

from aiproject.accounts.api_keys.model import KeyTerms
from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.model import Account
from aiproject.accounts.core.profiles import Profiles
from aiproject.accounts.core.service import Accounts
from aiproject.accounts.login.throttle import LoginThrottle
from aiproject.accounts.selfservice.deletion import AccountDeletion
from aiproject.accounts.selfservice.recovery import MAX_LIVE, Recovery
from aiproject.accounts.selfservice.token_store import Purpose
from aiproject.accounts.sessions.service import MAX_SESSIONS, Sessions
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import api_key, browser_session, mail_token
from aiproject.adapters.db.schema import user as users
from aiproject.adapters.mailer import Email, Mailer, MailQueue, MailServer, Security
from aiproject.adapters.passwords import PasswordHasher, PasswordService
from aiproject.errors import (
    AccountUnknown,
    InvalidInput,
    LoginFailed,
    NameTaken,
    NotFound,
    NotSignedIn,
    TooManyRequests,
)
from aiproject.ledger.model import Meter, Outcome, Stage
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify

START = datetime(2026, 3, 1, 12, 30, 45, 123456, tzinfo=UTC)
PASSWORD = "correct horse battery"
NEW_PASSWORD = "another long passphrase"


@dataclass
class Clock:
    """A clock that goes when it is told to."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def later(self, **delta: float) -> None:
        self.now += timedelta(**delta)


class KeptOutbox(MailQueue):
    """Keeps jobs for the test to do."""

    def __init__(self) -> None:
        super().__init__(Mailer(MailServer("127.0.0.1", 1, Security.NONE), "a@example.com"))
        self.kept: list[Callable[[], Awaitable[Sequence[Email]]]] = []

    def put(self, job: Callable[[], Awaitable[Sequence[Email]]]) -> bool:
        self.kept.append(job)
        return True

    async def letters(self) -> list[Email]:
        """Do what was put; return what would be sent."""
        jobs, self.kept = self.kept, []
        return [letter for job in jobs for letter in await job()]


@dataclass
class House:
    """The services of a node."""

    database: Database
    passwords: PasswordService
    clock: Clock
    outbox: KeptOutbox = field(default_factory=KeptOutbox)

    def __post_init__(self) -> None:
        self.quotas = Quotas(self.database, LeaseTimes(30))
        self.guard = LoginThrottle(self.database)
        opening = partial(self.quotas.grant_opening, tokens=10_000, pic_times=10, voice_ms=None)
        self.accounts = Accounts(self.database, self.passwords, opening, login_throttle=self.guard, clock=self.clock)
        self.sessions = Sessions(self.database, idle=3600, lifetime=86_400, clock=self.clock)
        self.keys = ApiKeys(self.database, clock=self.clock)
        self.deletion = AccountDeletion(self.database, clock=self.clock)
        self.recovery = Recovery(
            self.database, self.accounts, self.guard, self.outbox, "https://ai.example.com", clock=self.clock
        )

    async def person(self, name: str = "小明", email: str = "ming@example.com") -> Account:
        return await self.accounts.register(name, PASSWORD, email)

    async def sign_in(self, account: Account, *, replaced: str | None = None) -> str:
        opened = await self.sessions.open(
            account, checked_at=self.sessions.now(), address="192.0.2.7", user_agent="Browser\n1😀", replaced=replaced
        )
        return opened.token

    async def token(self) -> str:
        """The token in the one letter that waits."""
        (letter,) = await self.outbox.letters()
        found = re.search(r"#\w+=([0-9A-Za-z_-]{43})", letter.text)
        assert found
        return found[1]

    async def verified(self, name: str = "小明", email: str = "ming@example.com") -> Account:
        account = await self.person(name, email)
        await self.recovery.send_verification(account)
        await self.recovery.verify(await self.token(), address=None)
        return await self.accounts.named(name)

    async def count(self, table: sa.Table) -> int:
        async with self.database.connect() as connection:
            return int((await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one())


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    passwords = PasswordService(PasswordHasher(CHEAPEST))
    yield House(database, passwords, Clock())
    await passwords.close()


@pytest.fixture
async def other_node(house: House, database_url: str) -> AsyncIterator[House]:
    """A second process on the same database."""
    database = await Database.open(database_url)
    yield House(database, house.passwords, house.clock)
    await database.close()


class TestSessions:
    async def test_a_session_is_recognised_until_it_ends(self, house: House, other_node: House) -> None:
        account = await house.person()
        token = await house.sign_in(account)
        found, session = await other_node.sessions.recognise(token)
        assert found == account
        assert (session.address, session.user_agent) == ("192.0.2.7", "Browser1😀")
        assert session.expires_at == START + timedelta(days=1)
        for wrong in ("", token[:-1], token.swapcase(), token + "=", "é" * 43, "A" * 43, session.session_id):
            with pytest.raises(NotSignedIn):
                await house.sessions.recognise(wrong)
        await other_node.sessions.end(account, session.session_id)
        with pytest.raises(NotSignedIn):
            await house.sessions.recognise(token)
        with pytest.raises(NotFound):
            await house.sessions.end(account, session.session_id)
        for nonsense in ("", "x" * 5000, "\0", "'--"):
            with pytest.raises(NotFound):
                await house.sessions.end(account, nonsense)

    async def test_use_keeps_it_alive_and_is_noted_once_a_minute(self, house: House) -> None:
        account = await house.person()
        token = await house.sign_in(account)
        seen = []
        for _ in range(4):
            house.clock.later(seconds=25)
            await house.sessions.recognise(token)
            seen.append((await house.sessions.of_account(account))[0].seen_at - START)
        assert seen == [timedelta(0), timedelta(0), timedelta(seconds=75), timedelta(seconds=75)]
        for _ in range(23):
            house.clock.later(minutes=59)
            await house.sessions.recognise(token)
        house.clock.later(minutes=60)
        with pytest.raises(NotSignedIn):
            await house.sessions.recognise(token)
        assert await house.sessions.of_account(account) == []

    async def test_it_ends_whatever_is_done_with_it(self, house: House) -> None:
        account = await house.person()
        token = await house.sign_in(account)
        for _ in range(24):
            await house.sessions.recognise(token)
            house.clock.later(minutes=59.9)
        house.clock.later(minutes=3)
        with pytest.raises(NotSignedIn):
            await house.sessions.recognise(token)
        await house.sign_in(account)
        assert await house.count(browser_session) == 1, "a login clears away what is over"

    async def test_the_password_ends_them_all(self, house: House, other_node: House) -> None:
        """However it is changed: nobody who changes it has to know of sessions."""
        account = await house.person()
        token = await house.sign_in(account)
        house.clock.later(seconds=1)
        await other_node.accounts.set_password(account, NEW_PASSWORD)
        with pytest.raises(NotSignedIn):
            await house.sessions.recognise(token)
        assert await house.sessions.of_account(account) == []
        assert await house.sessions.recognise(await house.sign_in(account))

    async def test_a_login_that_is_overtaken_by_a_new_password(self, house: House) -> None:
        account = await house.person()
        checked_at = house.sessions.now()
        house.clock.later(seconds=1)
        await house.accounts.set_password(account, NEW_PASSWORD)
        with pytest.raises(LoginFailed):
            await house.sessions.open(account, checked_at=checked_at, address="", user_agent="")
        assert await house.count(browser_session) == 0

    async def test_a_disabled_account(self, house: House) -> None:
        account = await house.person()
        token = await house.sign_in(account)
        await house.accounts.set_disabled(account.username, True)
        with pytest.raises(NotSignedIn):
            await house.sessions.recognise(token)
        with pytest.raises(LoginFailed):
            await house.sign_in(account)
        await house.accounts.set_disabled(account.username, False)
        assert await house.sessions.recognise(token)

    async def test_the_one_used_least_recently_makes_room(self, house: House) -> None:
        account = await house.person()
        other = await house.person("other", "")
        theirs = await house.sign_in(other)
        tokens = []
        for _ in range(MAX_SESSIONS):
            house.clock.later(seconds=1)
            tokens.append(await house.sign_in(account))
        house.clock.later(minutes=2)
        await house.sessions.recognise(tokens[0])
        await house.sign_in(account)
        assert len(await house.sessions.of_account(account)) == MAX_SESSIONS
        await house.sessions.recognise(tokens[0])
        with pytest.raises(NotSignedIn):
            await house.sessions.recognise(tokens[1])
        await house.sessions.recognise(theirs)

    async def test_the_replaced_one_is_over(self, house: House) -> None:
        account = await house.person()
        old = await house.sign_in(account)
        await house.sign_in(account, replaced=old)
        with pytest.raises(NotSignedIn):
            await house.sessions.recognise(old)
        await house.sign_in(account, replaced="nonsense")
        assert await house.sessions.end_all(account) == 2


class TestTokens:
    async def test_verification_wins_once_on_two_nodes(self, house: House, other_node: House) -> None:
        account = await house.person()
        await house.recovery.send_verification(account)
        token = await house.token()
        outcomes = await asyncio.gather(
            *((house, other_node)[number % 2].recovery.verify(token, address=None) for number in range(6)),
            return_exceptions=True,
        )
        assert outcomes.count(None) == 1
        assert sum(isinstance(outcome, InvalidInput) for outcome in outcomes) == 5
        assert (await house.accounts.named("小明")).email_verified_at == START

    async def test_a_reset_wins_once_on_two_nodes(self, house: House, other_node: House) -> None:
        account = await house.verified()
        session = await house.sign_in(account)
        house.recovery.ask_reset(username="小明", email=None)
        token = await house.token()
        house.clock.later(seconds=1)
        passwords = [f"{NEW_PASSWORD} {number}" for number in range(6)]
        outcomes = await asyncio.gather(
            *(
                (house, other_node)[number % 2].recovery.reset(token, password, address=None)
                for number, password in enumerate(passwords)
            ),
            return_exceptions=True,
        )
        assert outcomes.count(None) == 1
        assert sum(isinstance(outcome, InvalidInput) for outcome in outcomes) == 5
        changed = await house.accounts.login("小明", passwords[outcomes.index(None)])
        assert changed.uuid != account.uuid
        with pytest.raises(NotSignedIn):
            await house.sessions.recognise(session)
        assert await house.count(browser_session) == 0

    async def test_they_expire(self, house: House) -> None:
        account = await house.person()
        await house.recovery.send_verification(account)
        token = await house.token()
        house.clock.later(hours=24)
        with pytest.raises(InvalidInput):
            await house.recovery.verify(token, address=None)
        await house.recovery.send_verification(account)
        assert await house.count(mail_token) == 1, "a new one clears away what is over"
        await house.recovery.verify(await house.token(), address=None)
        house.recovery.ask_reset(username="小明", email=None)
        token = await house.token()
        house.clock.later(minutes=30)
        with pytest.raises(InvalidInput):
            await house.recovery.reset(token, NEW_PASSWORD, address=None)
        assert (await house.accounts.login("小明", PASSWORD)).uuid == account.uuid

    async def test_a_reset_is_for_the_address_that_it_was_sent_to(self, house: House) -> None:
        account = await house.verified()
        house.recovery.ask_reset(username="小明", email=None)
        token = await house.token()
        await Profiles(house.database).edit(account, email="other@example.com")
        with pytest.raises(InvalidInput):
            await house.recovery.reset(token, NEW_PASSWORD, address=None)
        # Nothing of it happened: the password is the old one, and so is the uuid.
        assert (await house.accounts.login("小明", PASSWORD)).uuid == account.uuid
        house.recovery.ask_reset(username="小明", email=None)
        house.recovery.ask_reset(username=None, email="other@example.com")
        assert await house.outbox.letters() == [], "not to an address that nobody verified"

    async def test_a_disabled_account_is_not_reset(self, house: House) -> None:
        await house.verified()
        house.recovery.ask_reset(username="小明", email=None)
        token = await house.token()
        await house.accounts.set_disabled("小明", True)
        with pytest.raises(InvalidInput):
            await house.recovery.reset(token, NEW_PASSWORD, address=None)
        house.recovery.ask_reset(username="小明", email=None)
        assert await house.outbox.letters() == []

    async def test_by_address_all_its_accounts_as_they_wrote_it(self, house: House) -> None:
        await house.verified("one", "Ming@Example.com")
        await house.verified("two", "ming@example.com")
        await house.person("three", "ming@example.com")
        await house.verified("four", "mıng@example.com".replace("ı", "x"))
        house.recovery.ask_reset(username=None, email="MING@example.com")
        letters = await house.outbox.letters()
        assert sorted(letter.to for letter in letters) == ["Ming@Example.com", "ming@example.com"]
        for lookalike in ("mıng@example.com", "ming@exampleｅ.com", "ming@example.com ", "%", "ming@example.co_"):
            house.recovery.ask_reset(username=None, email=lookalike)
        assert {letter.to for letter in await house.outbox.letters()} <= {"Ming@Example.com", "ming@example.com"}

    async def test_their_number_is_bounded_on_all_nodes_together(self, house: House, other_node: House) -> None:
        account = await house.person()
        outcomes = await asyncio.gather(
            *((house, other_node)[number % 2].recovery.send_verification(account) for number in range(12)),
            return_exceptions=True,
        )
        assert outcomes.count(None) == MAX_LIVE[Purpose.VERIFY]
        assert sum(isinstance(outcome, TooManyRequests) for outcome in outcomes) == 12 - MAX_LIVE[Purpose.VERIFY]

    async def test_nonsense(self, house: House) -> None:
        for nonsense in ("", "x", "A" * 43, "é" * 43, "\0" * 43, "A" * 5000):
            with pytest.raises(InvalidInput):
                await house.recovery.verify(nonsense, address=None)
            with pytest.raises(InvalidInput):
                await house.recovery.reset(nonsense, NEW_PASSWORD, address=None)


class TestTheEnd:
    async def test_the_books_stay_and_the_name_is_free(self, house: House) -> None:
        account = await house.verified()
        await house.sign_in(account)
        await house.keys.create(account.account_id, KeyTerms("laptop"))
        house.recovery.ask_reset(username="小明", email=None)
        token = await house.token()
        async with Quotas.running(house.database, LeaseTimes(30)) as quotas:
            hold = await quotas.hold(account, Meter.TOKENS, 500, request_id="a call that runs")
            await house.deletion.delete(account)
            assert await quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=120) == 120
        assert [difference async for difference in verify(house.database)] == []
        async with house.database.connect() as connection:
            query = sa.select(users).where(users.c.AccountId == account.account_id)
            row = (await connection.execute(query)).mappings().one()
        assert (row["Tokens"], row["HeldTokens"]) == (9880, 0)
        assert row["DeletedAt"] == row["DisabledAt"] == START
        assert (row["Email"], row["Academy"], row["EmailVerifiedAt"]) == ("", None, None)
        assert row["Id"] != account.uuid
        assert "小明" not in str(dict(row))
        assert await house.keys.list(account.account_id) == []
        assert await house.count(browser_session) == await house.count(mail_token) == 0
        with pytest.raises(InvalidInput):
            await house.recovery.reset(token, NEW_PASSWORD, address=None)
        for uuid in (account.uuid, row["Id"]):
            with pytest.raises(AccountUnknown):
                await house.accounts.identify(uuid, ["小明"])
        with pytest.raises(AccountUnknown):
            await house.accounts.identify(row["Id"], [row["UserName"]])
        with pytest.raises(LoginFailed):
            await house.accounts.login(row["UserName"], "$none$")
        with pytest.raises(AccountUnknown):
            await house.deletion.delete(account)
        again = await house.person()
        assert again.account_id != account.account_id
        with pytest.raises(NameTaken):
            await house.person()

    async def test_once_on_two_nodes_beside_logins_and_letters(self, house: House, other_node: House) -> None:
        account = await house.person()
        outcomes = await asyncio.gather(
            house.deletion.delete(account),
            other_node.deletion.delete(account),
            *(node.sign_in(account) for node in (house, other_node)),
            *(node.recovery.send_verification(account) for node in (house, other_node)),
            *(node.keys.create(account.account_id, KeyTerms("late")) for node in (house, other_node)),
            return_exceptions=True,
        )
        assert outcomes[:2].count(None) == 1
        assert sum(isinstance(outcome, AccountUnknown) for outcome in outcomes[:2]) == 1
        for outcome in outcomes:
            assert not isinstance(outcome, Exception) or isinstance(
                outcome, AccountUnknown | LoginFailed | TooManyRequests
            ), outcome
        for table in (browser_session, mail_token, api_key):
            assert await house.count(table) == 0, table.name
        with pytest.raises(AccountUnknown):
            await Profiles(house.database).edit(account, academy="x")
