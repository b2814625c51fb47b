"""Administrators, and what they do to accounts and vouchers, on real databases."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from argon2.profiles import CHEAPEST

from aiproject.accounts.core.model import Account
from aiproject.accounts.core.service import Accounts
from aiproject.accounts.login.throttle import LoginThrottle, ThrottleScope
from aiproject.accounts.selfservice.deletion import AccountDeletion
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import administrator, administrator_session, api_key, browser_session, user
from aiproject.adapters.passwords import PasswordHasher, PasswordService, Verdict
from aiproject.administration.jwts import Signer
from aiproject.administration.legacy_import import import_legacy
from aiproject.administration.model import MASK, AdministratorUnknown, JwtRefused, NotPermitted, Role
from aiproject.administration.service import Administrators, Change, Session
from aiproject.administration.table_store import Tables
from aiproject.administration.users import NewProfile, UserAdministration
from aiproject.audit.model import Actor, ActorKind, AuditContext, AuditFilter
from aiproject.audit.service import AuditLog
from aiproject.errors import (
    AccountUnknown,
    InvalidInput,
    LoginFailed,
    NameTaken,
    NotFound,
    TooManyRequests,
    VoucherRedeemed,
    VoucherUnusable,
)
from aiproject.ledger.model import Meter
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify
from aiproject.messages.formatting import Language, Message
from aiproject.vouchers.model import CodeTaken, VoucherNameTaken
from aiproject.vouchers.service import Vouchers
from bookkeeping import open_account, reread

ORIGIN = AuditContext(Actor(ActorKind.ADMINISTRATOR, "boss"), "192.0.2.1", "request-1")
PASSWORD = "four different horses"
NEW_PASSWORD = "five different horses"


def lines(left: list[Message]) -> list[str]:
    return [message.text(Language.EN) for message in left]


class CountingHasher(PasswordHasher):
    """A cheap hasher that counts its work."""

    def __init__(self) -> None:
        super().__init__(CHEAPEST)
        self.works = 0

    def verify(self, stored: str, password: str) -> Verdict:
        self.works += 1
        return super().verify(stored, password)

    def dummy_verify(self) -> None:
        self.works += 1
        super().dummy_verify()


@pytest.fixture
def hasher() -> CountingHasher:
    return CountingHasher()


@pytest.fixture
async def passwords(hasher: CountingHasher) -> AsyncIterator[PasswordService]:
    service = PasswordService(hasher)
    yield service
    await service.close()


@pytest.fixture
def found(database: Database, passwords: PasswordService) -> Administrators:
    return Administrators(database, passwords, Signer(b"k" * 32))


@pytest.fixture
def users(database: Database, passwords: PasswordService) -> UserAdministration:
    quotas = Quotas(database, LeaseTimes(30))
    accounts = Accounts(
        database, passwords, partial(quotas.grant_opening, tokens=1, pic_times=1, voice_ms=None)
    )  # fmt: skip
    return UserAdministration(database, passwords, accounts, AccountDeletion(database), voice_ms=None)


async def signed_in(found: Administrators, name: str, password: str = PASSWORD) -> Session:
    tokens = await found.login(name, password, "192.0.2.1", "request")
    return await found.authenticate(tokens.access_token, "access")


async def acts(database: Database, **wanted: Any) -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """The audit log, newest first: action, target, before, after."""
    entries = await AuditLog(database).newest(AuditFilter(**wanted), limit=100)
    return [(each.action, each.target, json.loads(each.before), json.loads(each.after)) for each in entries]


class TestAdministrators:
    async def test_logins_at_once_that_renew_the_hash_all_succeed(
        self, database: Database, found: Administrators
    ) -> None:
        await found.add("ann", PASSWORD, None, ORIGIN)
        stronger = PasswordService(PasswordHasher(replace(CHEAPEST, time_cost=2)), threads=4)
        try:
            renewing = Administrators(database, stronger, Signer(b"k" * 32))
            tokens = await asyncio.gather(*(renewing.login("ann", PASSWORD, "192.0.2.1", "r") for _ in range(4)))
            assert len({each.access_token for each in tokens}) == 4
        finally:
            await stronger.close()

    async def test_the_first_is_an_owner_and_the_next_is_not(self, database: Database, found: Administrators) -> None:
        assert not await found.exist()
        assert (await found.add("Ann", PASSWORD, None, ORIGIN)).role is Role.OWNER
        assert (await found.add("bob", PASSWORD, None, ORIGIN)).role is Role.ADMIN
        assert [each.name for each in await found.all()] == ["Ann", "bob"]
        with pytest.raises(NameTaken):
            await found.add("ＡＮＮ ", PASSWORD, None, ORIGIN)
        assert [act[:2] for act in await acts(database)] == [("admin.add", "bob"), ("admin.add", "Ann")]

    @pytest.mark.parametrize("password", ["", "short", "password123", "Ann"])
    async def test_bad_passwords(self, found: Administrators, password: str) -> None:
        with pytest.raises(InvalidInput):
            await found.add("Ann", password, None, ORIGIN)

    async def test_ten_at_once_with_one_name(self, found: Administrators) -> None:
        results = await asyncio.gather(
            *(found.add("ann", PASSWORD, None, ORIGIN) for _ in range(10)), return_exceptions=True
        )
        assert sum(isinstance(each, NameTaken) for each in results) == 9
        assert len(await found.all()) == 1

    async def test_the_setup_makes_one(self, database: Database, found: Administrators) -> None:
        results = await asyncio.gather(
            *(found.set_up(f"first{n}", PASSWORD, "192.0.2.1", "request") for n in range(5)), return_exceptions=True
        )
        made = [each for each in results if not isinstance(each, BaseException)]
        assert [each.role for each in made] == [Role.OWNER]
        assert sum(isinstance(each, LoginFailed) for each in results) == 4
        assert [act[0] for act in await acts(database)] == ["admin.setup"]

    async def test_the_setup_after_the_command_line(self, found: Administrators) -> None:
        await found.add("ann", PASSWORD, None, ORIGIN)
        with pytest.raises(LoginFailed):
            await found.set_up("bob", PASSWORD, "192.0.2.1", "request")


class TestSessions:
    async def test_unknown_and_wrong_are_the_same_work(self, found: Administrators, hasher: CountingHasher) -> None:
        await found.add("ann", PASSWORD, None, ORIGIN)
        for name in ("ann", "nobody", "nul\0", "\ud800"):
            hasher.works = 0
            with pytest.raises(LoginFailed):
                await found.login(name, "wrong", "192.0.2.1", "request")
            assert hasher.works == 1, name

    async def test_an_old_hash_is_upgraded(self, database: Database, found: Administrators) -> None:
        ann = await found.add("ann", PASSWORD, None, ORIGIN)
        async with database.begin() as connection:
            old = hashlib.md5(f"{PASSWORD}#_#".encode(), usedforsecurity=False).hexdigest()
            await connection.execute(sa.update(administrator).values(password=old))
        assert (await signed_in(found, "ann")).administrator.admin_id == ann.admin_id
        async with database.connect() as connection:
            assert str(await connection.scalar(sa.select(administrator.c.password))).startswith("$argon2id$")
        await signed_in(found, "ann")

    async def test_failures_lock_the_name_and_a_new_password_unlocks(
        self, database: Database, passwords: PasswordService
    ) -> None:
        found = Administrators(database, passwords, Signer(b"k" * 32), login_throttle=LoginThrottle(database))
        await found.add("ann", PASSWORD, None, ORIGIN)
        refusals = []
        for _ in range(20):
            try:
                await found.login("ann", "wrong", "192.0.2.1", "request")
            except (LoginFailed, TooManyRequests) as error:
                refusals.append(type(error))
        assert refusals[0] is LoginFailed
        assert refusals[-1] is TooManyRequests
        with pytest.raises(TooManyRequests):
            await found.login("ann", PASSWORD, "192.0.2.9", "request")
        await found.modify("ann", Change(password=NEW_PASSWORD), None, ORIGIN)
        await found.login("ann", NEW_PASSWORD, "192.0.2.9", "request")

    async def test_the_realm_is_the_administrators_own(self, database: Database, found: Administrators) -> None:
        await found.add("ann", PASSWORD, None, ORIGIN)
        guard = LoginThrottle(database)
        for _ in range(20):
            try:
                async with guard.attempt(ThrottleScope.LOGIN, name="ann", address=None):
                    raise LoginFailed
            except (LoginFailed, TooManyRequests):
                continue
        await found.login("ann", PASSWORD, "192.0.2.1", "request")

    async def test_sessions_end_with_a_new_password_a_new_role_and_removal(self, found: Administrators) -> None:
        await found.add("boss", PASSWORD, Role.OWNER, ORIGIN)
        for change in (Change(password=NEW_PASSWORD), Change(role=Role.AUDITOR), None):
            await found.add("ann", PASSWORD, Role.ADMIN, ORIGIN)
            tokens = await found.login("ann", PASSWORD, "192.0.2.1", "request")
            if change is None:
                await found.remove("ann", ORIGIN, owners_too=False)
            else:
                await found.modify("ann", change, None, ORIGIN)
            for token in (tokens.access_token, tokens.refresh_token):
                with pytest.raises(JwtRefused, match="JWT_REVOKED"):
                    await found.authenticate(token, "access" if token == tokens.access_token else "refresh")
            if change is not None:
                await found.remove("ann", ORIGIN, owners_too=False)

    async def test_a_new_name_and_the_same_role_end_nothing(self, found: Administrators) -> None:
        await found.add("ann", PASSWORD, Role.OWNER, ORIGIN)
        tokens = await found.login("ann", PASSWORD, "192.0.2.1", "request")
        await found.modify("ann", Change(name="anna"), None, ORIGIN)
        assert (await found.authenticate(tokens.access_token, "access")).administrator.name == "anna"

    async def test_expired_sessions_are_forgotten(self, database: Database, passwords: PasswordService) -> None:
        now = datetime.now(UTC)
        moment = now - timedelta(days=31)
        found = Administrators(database, passwords, Signer(b"k" * 32), clock=lambda: moment)
        await found.add("ann", PASSWORD, Role.OWNER, ORIGIN)
        old = await found.login("ann", PASSWORD, "192.0.2.1", "request")
        moment = now
        with pytest.raises(JwtRefused):
            await found.authenticate(old.access_token, "access")
        await found.login("ann", PASSWORD, "192.0.2.1", "request")
        async with database.connect() as connection:
            assert await connection.scalar(sa.select(sa.func.count()).select_from(administrator_session)) == 1


class TestRights:
    @pytest.fixture
    async def three(self, found: Administrators) -> dict[Role, Session]:
        for role in Role:
            await found.add(f"the {role}", PASSWORD, role, ORIGIN)
        return {role: await signed_in(found, f"the {role}") for role in Role}

    @pytest.mark.parametrize("role", [Role.ADMIN, Role.AUDITOR])
    async def test_only_their_own(self, found: Administrators, three: dict[Role, Session], role: Role) -> None:
        by = three[role].administrator
        for target in ("the owner", "nobody"):
            for change in (Change(name="x"), Change(password=NEW_PASSWORD), Change(role=Role.OWNER)):
                with pytest.raises(NotPermitted):
                    await found.modify(target, change, by, ORIGIN)
        with pytest.raises(NotPermitted):
            await found.modify(by.name, Change(role=Role.OWNER), by, ORIGIN)
        await found.modify(by.name, Change(name="somebody new", password=NEW_PASSWORD), by, ORIGIN)

    async def test_an_owner_cannot_change_his_own_role(self, found: Administrators, three: dict[Role, Session]) -> None:
        with pytest.raises(NotPermitted):
            await found.modify("the owner", Change(role=Role.ADMIN), three[Role.OWNER].administrator, ORIGIN)

    async def test_somebody_who_took_my_old_name_is_not_me(
        self, found: Administrators, three: dict[Role, Session]
    ) -> None:
        me = three[Role.ADMIN].administrator  # as a call saw it that began before the two renamings
        await found.modify(me.name, Change(name="renamed"), None, ORIGIN)
        await found.modify("the auditor", Change(name=me.name), None, ORIGIN)
        with pytest.raises(NotPermitted):
            await found.modify(me.name, Change(password=NEW_PASSWORD), me, ORIGIN)

    async def test_the_last_owner_stays(self, found: Administrators, three: dict[Role, Session]) -> None:
        for act in (
            partial(found.remove, "the owner", ORIGIN, owners_too=True),
            partial(found.modify, "the owner", Change(role=Role.ADMIN), None, ORIGIN),
        ):
            with pytest.raises(InvalidInput, match="LAST_OWNER"):
                await act()
        with pytest.raises(AdministratorUnknown):
            await found.remove("the owner", ORIGIN, owners_too=False)

    async def test_what_is_in_the_log(
        self, database: Database, found: Administrators, three: dict[Role, Session]
    ) -> None:
        await found.modify("the admin", Change(name="n", password=NEW_PASSWORD, role=Role.AUDITOR), None, ORIGIN)
        assert (await acts(database))[0] == (
            "admin.modify",
            "the admin",
            {"name": "the admin", "role": "admin"},
            {"name": "n", "role": "auditor", "password": "changed"},
        )


def profile(**fields: Any) -> NewProfile:
    values: dict[str, Any] = {
        "username": "ann",
        "password": "",
        "email": "a@example.org",
        "academy": None,
        "tokens": 10,
        "pic_times": 3,
    }
    return NewProfile(**values | fields)


async def assert_books_add_up(database: Database) -> None:
    assert [str(difference) async for difference in verify(database)] == []


class TestPeople:
    async def test_adding(self, database: Database, users: UserAdministration) -> None:
        account = await users.add(profile(password=PASSWORD, tokens=0, pic_times=4), ORIGIN)
        assert (account.tokens, account.pic_times) == (0, 4)
        with pytest.raises(NameTaken):
            await users.add(profile(username="ANN", password=PASSWORD), ORIGIN)
        assert [act[0] for act in await acts(database)] == ["user.add", "user.grant"]
        await assert_books_add_up(database)

    async def test_balances_are_brought_to_their_new_values(
        self, database: Database, users: UserAdministration
    ) -> None:
        ann = await open_account(database, "ann", tokens=100, pic_times=1)
        await users.modify("ANN", profile(tokens=40, pic_times=5), ORIGIN)
        after = await reread(database, "ann")
        assert (after.tokens, after.pic_times, after.uuid) == (40, 5, ann.uuid)
        assert (await acts(database))[0] == (
            "user.modify",
            "ann",
            {"email": "someone@example.org", "tokens": 100, "pic_times": 1},
            {"email": "a@example.org", "tokens": 40, "pic_times": 5, "account": ann.account_id},
        )
        await assert_books_add_up(database)

    async def test_not_below_what_is_held(self, database: Database, users: UserAdministration) -> None:
        ann = await open_account(database, "ann", tokens=100)
        async with Quotas.running(database, LeaseTimes(30)) as quotas:
            await quotas.hold(ann, Meter.TOKENS, 60, request_id="running")
            await users.modify("ann", profile(tokens=10), ORIGIN)
        assert (await reread(database, "ann")).tokens == 60
        assert (await acts(database))[0][3]["tokens"] == 60
        await assert_books_add_up(database)

    async def test_edits_beside_grants_lose_nothing(self, database: Database, users: UserAdministration) -> None:
        ann = await open_account(database, "ann", tokens=100, pic_times=3)
        quotas = Quotas(database, LeaseTimes(30))
        await asyncio.gather(
            *(users.modify("ann", profile(tokens=50 + n), ORIGIN) for n in range(5)),
            *(quotas.grant(ann, pic_times=1, origin=ORIGIN) for _ in range(5)),
        )
        assert (await reread(database, "ann")).tokens in range(50, 55)
        await assert_books_add_up(database)
        assert [each async for each in AuditLog(database).verify()] == []
        changes = [act for act in await acts(database) if "tokens" in act[3]]
        for newer, older in itertools.pairwise(changes):
            assert newer[2]["tokens"] == older[3]["tokens"]

    async def test_a_taken_name_changes_nothing(self, database: Database, users: UserAdministration) -> None:
        await open_account(database, "ann", tokens=100)
        await open_account(database, "bob")
        with pytest.raises(NameTaken):
            await users.modify("ann", profile(username="Bob", tokens=5), ORIGIN)
        assert (await reread(database, "ann")).tokens == 100
        assert await acts(database) == []

    async def test_a_new_password_ends_browser_sessions(self, database: Database, users: UserAdministration) -> None:
        ann = await open_account(database, "ann")
        await give_access(database, ann)
        await users.modify("ann", profile(), ORIGIN)
        assert await access(database, ann) == (1, 1)
        await users.modify("ann", profile(password=PASSWORD), ORIGIN)
        assert await access(database, ann) == (0, 1)

    async def test_deleting_removes_the_person_and_keeps_the_books(
        self, database: Database, users: UserAdministration
    ) -> None:
        ann = await open_account(database, "ann", tokens=100, academy="文院")
        await give_access(database, ann)
        await users.delete(" Ann ", ORIGIN)
        assert await access(database, ann) == (0, 0)
        async with database.connect() as connection:
            row = (await connection.execute(sa.select(user).where(user.c.AccountId == ann.account_id))).one()
        assert row.DeletedAt is not None
        assert row.DisabledAt is not None
        kept = " ".join(str(value) for value in row)
        for trace in ("ann", "someone@example.org", "文院", ann.uuid):
            assert trace not in kept
        assert row.Tokens == 100
        for target in ("ann", row.UserName):
            with pytest.raises(AccountUnknown):
                await users.delete(target, ORIGIN)
            with pytest.raises(AccountUnknown):
                await users.modify(target, profile(), ORIGIN)
        await assert_books_add_up(database)
        assert (await users.add(profile(password=PASSWORD), ORIGIN)).account_id != ann.account_id
        with pytest.raises(AccountUnknown):
            await users.delete("nul\0", ORIGIN)


async def give_access(database: Database, account: Account) -> None:
    now = datetime.now(UTC)
    async with database.begin() as connection:
        await connection.execute(
            sa.insert(browser_session).values(
                token_hash="t", session_id="s", account_id=account.account_id, created_at=now, seen_at=now,
                expires_at=now, address="", user_agent="",
            )
        )  # fmt: skip
        await connection.execute(
            sa.insert(api_key).values(
                key_id=1, account_id=account.account_id, prefix="sk-1", secret_hash="h", name="n", created_at=now
            )
        )  # fmt: skip


async def access(database: Database, account: Account) -> tuple[int, int]:
    """Browser sessions, and API keys that are not revoked."""
    async with database.connect() as connection:
        sessions = await connection.scalar(
            sa.select(sa.func.count())
            .select_from(browser_session)
            .where(browser_session.c.account_id == account.account_id)
        )
        keys = await connection.scalar(
            sa.select(sa.func.count())
            .select_from(api_key)
            .where(api_key.c.account_id == account.account_id, api_key.c.revoked_at.is_(None))
        )
    return int(sessions or 0), int(keys or 0)


class TestTables:
    async def test_search_and_pages(self, database: Database) -> None:
        for name in ("a%b", "a_b", "aXb", "A%B c", "a/b", "a\\b", "小明"):
            await open_account(database, name)
        tables = Tables(database)

        async def names(search: str, start: int = 0, limit: int = 50) -> set[str]:
            rows = await tables.page("user", start=start, limit=limit, search=search, shows_codes=True)
            return {row["UserName"] for row in rows}

        assert await names("a%b") == {"a%b", "A%B c"}
        assert await names("a_b") == {"a_b"}
        assert await names("/") == {"a/b"}
        assert await names("\\") == {"a\\b"}
        assert await names("小") == {"小明"}
        assert await names("' OR 1=1 --") == await names("\0") == await names("\ud800") == set()
        assert await tables.count("user", search="", shows_codes=True) == 7
        assert len(await names("", 0, 3) | await names("", 3, 3) | await names("", 6, 3)) == 7
        assert await names("", 7) == set()
        with pytest.raises(NotFound):
            await tables.row("user", "a%", shows_codes=True)
        with pytest.raises(NotFound):
            await tables.page("audit_entry", start=0, limit=1, search="", shows_codes=True)

    async def test_vouchers(self, database: Database) -> None:
        vouchers, tables = Vouchers(database), Tables(database)
        await vouchers.add(code="SPRING-TERM", tokens=5, audience="文院")
        await vouchers.add(name="Spring", tokens=5)
        row = await tables.row("token", "spring-term", shows_codes=True)
        assert (row["Id"], row["Tokens"], row["TokenRange"], row["Available"]) == ("SPRING-TERM", 5, "文院", 1)
        hidden = await tables.row("token", row["Name"], shows_codes=False)
        assert hidden == row | {"Id": MASK}
        # A name before a code.
        named = await tables.row("token", "SPRING", shows_codes=True)
        assert (named["Name"], len(named["Id"])) == ("Spring", 19)
        assert await tables.count("token", search="spring", shows_codes=True) == 2
        assert await tables.count("token", search="spring", shows_codes=False) == 1


class TestWhatListsTell:
    """What is masked must not show in what is found, how much of it, or in which order.

    All names here are Chinese and all masked values are not, so that whatever is found was found by a masked value.
    """

    @pytest.fixture
    async def masked(self, database: Database, found: Administrators) -> dict[str, list[str]]:
        """The values that are masked in each list, for an auditor."""
        await open_account(database, "小明")
        await found.add("管理员", PASSWORD, Role.OWNER, ORIGIN)
        vouchers = Vouchers(database)
        made = [*await vouchers.add(name="礼包", tokens=5), *await vouchers.add(name="迎新", tokens=5)]
        made += await vouchers.add(name="新生", code="SPRING-2026", tokens=5)
        password = "$argon2id$planted"
        async with database.begin() as connection:
            await connection.execute(sa.update(user).values(PassWord=password))
            uuid = (await connection.execute(sa.select(user.c.Id))).scalar_one()
            hashed = await connection.scalar(sa.select(administrator.c.password))
        assert hashed is not None
        return {"user": [uuid, password], "admin": [hashed], "token": [voucher.code for voucher in made]}

    @pytest.mark.parametrize("shows_codes", [True, False], ids=["managers", "auditors"])
    async def test_masked_values_are_not_found(
        self, database: Database, masked: dict[str, list[str]], shows_codes: bool
    ) -> None:
        tables = Tables(database)
        for name, values in masked.items():
            is_shown = name == "token" and shows_codes
            for text in {part for value in values for part in parts(value)}:
                rows = await tables.page(name, start=0, limit=9, search=text, shows_codes=shows_codes)
                count = await tables.count(name, search=text, shows_codes=shows_codes)
                assert (bool(rows), bool(count)) == (is_shown, is_shown), (name, text)
            for value in values:
                if not is_shown:
                    with pytest.raises(NotFound):
                        await tables.row(name, value, shows_codes=shows_codes)

    async def test_order_says_nothing_of_codes(self, database: Database) -> None:
        made = await Vouchers(database).add(count=20, tokens=5)
        rows = await Tables(database).page("token", start=0, limit=99, search="", shows_codes=False)
        in_order = sorted(made, key=lambda voucher: voucher.voucher_id or 0)
        assert [row["Name"] for row in rows] == [voucher.name for voucher in in_order]
        assert {row["Id"] for row in rows} == {MASK}


def parts(value: str) -> set[str]:
    """Some pieces of a value, as an attacker would try them: beginnings, ends and single characters."""
    return {value, value.lower(), value[:3], value[:6], value[-3:], value[1:], *value[:4]}


class TestVouchers:
    async def test_changing_and_deleting(self, database: Database) -> None:
        vouchers = Vouchers(database)
        ann, bob = await open_account(database, "ann"), await open_account(database, "bob")
        await vouchers.add(code="ONE-TWO-THREE", tokens=5, max_uses=9, origin=ORIGIN)
        with pytest.raises(CodeTaken):
            await vouchers.add(code="one-two-three", tokens=5, origin=ORIGIN)
        await vouchers.add(name="Ｔｅｒｍ", tokens=5)
        with pytest.raises(VoucherNameTaken):
            await vouchers.add(name=" term ", tokens=5, origin=ORIGIN)
        await vouchers.redeem(ann, "ONE-TWO-THREE")
        changed = await vouchers.modify(
            "one-two-three", tokens=7, pic_times=1, audience=" ", is_available=False, origin=ORIGIN
        )
        assert (changed.tokens, changed.audience, changed.max_uses, changed.uses) == (7, None, 9, 1)
        with pytest.raises(VoucherUnusable):
            await vouchers.redeem(bob, "ONE-TWO-THREE")
        await vouchers.set_available("ONE-TWO-THREE", True, origin=ORIGIN)
        await vouchers.redeem(bob, "ONE-TWO-THREE")
        assert ((await reread(database, "ann")).tokens, (await reread(database, "bob")).tokens) == (5, 7)
        with pytest.raises(InvalidInput):
            await vouchers.modify("ONE-TWO-THREE", tokens=0, pic_times=0, audience=None, is_available=True)
        await vouchers.delete("ONE-TWO-THREE", origin=ORIGIN)
        for act in (
            partial(vouchers.delete, "ONE-TWO-THREE"),
            partial(vouchers.set_available, "ONE-TWO-THREE", True),
            partial(vouchers.modify, "X", tokens=1, pic_times=1, audience=None, is_available=True),
            partial(vouchers.redeem, bob, "ONE-TWO-THREE"),
        ):
            with pytest.raises(VoucherUnusable):
                await act()
        await vouchers.add(code="ONE-TWO-THREE", tokens=5, origin=ORIGIN)
        with pytest.raises(VoucherRedeemed):
            await vouchers.redeem(ann, "ONE-TWO-THREE")
        await assert_books_add_up(database)
        told = await acts(database)
        assert [act[0] for act in told] == [
            "voucher.add", "voucher.delete", "voucher.enable", "voucher.modify", "voucher.add", "voucher.add",
        ]  # fmt: skip
        assert "ONE-TWO-THREE" not in str(told)
        assert told[3][2:] == (
            {"tokens": 5, "pic_times": 0, "is_available": True},
            {"tokens": 7, "pic_times": 1, "is_available": False, "made_at": told[5][3]["made_at"]},
        )


class TestLegacyImport:
    @pytest.fixture
    async def original(self, database: Database) -> str:
        """The original's tables beside ours, and the old form of the password."""
        quote, charset = ("`", "CHARACTER SET utf8mb4") if database.dialect == "mysql" else ('"', "")
        old = hashlib.md5(f"{PASSWORD}#_#".encode(), usedforsecurity=False).hexdigest()
        statements = [
            "CREATE TABLE admin (~Id~ INT, ~Auth~ INT, ~Admin~ VARCHAR(50), ~PassWord~ VARCHAR(50)) CHARSET",
            """CREATE TABLE token (~Id~ VARCHAR(50) PRIMARY KEY, ~Tokens~ BIGINT, ~PicTimes~ INT,
                ~TokenRange~ VARCHAR(50), ~Name~ VARCHAR(50), ~Available~ INT) CHARSET""",
            "CREATE TABLE user_token (~Id~ INT, ~user_id~ VARCHAR(50), ~token_id~ VARCHAR(50)) CHARSET",
            "INSERT INTO admin VALUES (1, 1, 'root', 'HASH'), (2, 0, 'helper', 'HASH')",
            "INSERT INTO admin VALUES (3, 0, '', 'x'), (4, 0, 'bare', NULL)",
            "INSERT INTO token VALUES ('9f8e7d6c', 100, 2, '文院', 'Spring 2025', 1)",
            "INSERT INTO token VALUES ('a1b2c3d4', 5, NULL, NULL, 'Old', 0), ('e5f6a7b8', 0, 0, '', 'X', 1)",
        ]
        async with database.begin() as connection:
            for statement in statements:
                await connection.exec_driver_sql(
                    statement.replace("~", quote).replace("HASH", old).replace("CHARSET", charset)
                )
        return old

    async def test_an_original_s_tables(self, database: Database, found: Administrators, original: str) -> None:
        done = await import_legacy(database, ORIGIN)
        assert (done.administrators, done.vouchers, done.redemptions, len(done.left)) == (2, 2, 0, 3)
        roles = {each.name: each.role for each in await found.all()}
        assert roles == {"root": Role.OWNER, "helper": Role.ADMIN}
        assert (await signed_in(found, "root")).administrator.role is Role.OWNER
        row = await Tables(database).row("token", "old", shows_codes=True)
        assert row == {"Id": "A1B2C3D4", "Tokens": 5, "PicTimes": 0, "TokenRange": "", "Name": "Old", "Available": 0}
        again = await import_legacy(database, ORIGIN)
        assert (again.administrators, again.vouchers, len(again.left)) == (0, 0, 7)
        told = str(await acts(database))
        assert not any(secret in told for secret in (original, "9f8e7d6c", "9F8E7D6C"))

    async def test_nobody_redeems_twice(self, database: Database, original: str) -> None:
        ann, bob = [await open_account(database, name, academy="文院") for name in ("ann", "bob")]
        async with database.begin() as connection:
            for number, (uuid, token) in enumerate(
                [(ann.uuid, "9f8e7d6c"), (ann.uuid, "9f8e7d6c"), ("gone", "9f8e7d6c"), (bob.uuid, "unknown")]
            ):
                await connection.execute(
                    sa.text("INSERT INTO user_token VALUES (:number, :uuid, :token)"),
                    {"number": number, "uuid": uuid, "token": token},
                )
        done = await import_legacy(database, ORIGIN)
        assert done.redemptions == 1
        assert "2 redemptions: their account or their voucher is not here" in lines(done.left)
        vouchers = Vouchers(database)
        with pytest.raises(VoucherRedeemed):
            await vouchers.redeem(ann, "9f8e7d6c")
        await vouchers.redeem(bob, "9f8e7d6c")
        assert ((await reread(database, "ann")).tokens, (await reread(database, "bob")).tokens) == (0, 100)
        assert (await import_legacy(database, ORIGIN)).redemptions == 0
        await assert_books_add_up(database)

    async def test_a_voucher_that_an_earlier_release_took_over(self, database: Database, original: str) -> None:
        """It took the name for the code. There is no second one for the real code, and who redeemed it has done so."""
        ann = await open_account(database, "ann")
        vouchers = Vouchers(database)
        await vouchers.add(code="Old", tokens=5)
        async with database.begin() as connection:
            await connection.execute(
                sa.text("INSERT INTO user_token VALUES (1, :uuid, 'a1b2c3d4')"), {"uuid": ann.uuid}
            )
        done = await import_legacy(database, ORIGIN)
        assert (done.vouchers, done.redemptions) == (1, 1)
        assert "voucher Old: there is one with its code or its name" in lines(done.left)
        with pytest.raises(VoucherUnusable):
            await vouchers.redeem(ann, "a1b2c3d4")
        with pytest.raises(VoucherRedeemed):
            await vouchers.redeem(ann, "old")

    async def test_redemptions_that_name_nothing(self, database: Database) -> None:
        async with database.begin() as connection:
            await connection.exec_driver_sql("CREATE TABLE user_token (number INT)")
        assert lines((await import_legacy(database, ORIGIN)).left) == [
            "the table user_token: no columns that name a user and a token"
        ]

    async def test_where_there_is_nothing(self, database: Database) -> None:
        done = await import_legacy(database, ORIGIN)
        assert (done.administrators, done.vouchers, done.left) == (0, 0, [])
