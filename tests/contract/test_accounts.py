"""Accounts on each of the four databases: registration, login, identity, the list; and who wins at the same moment."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from argon2.profiles import CHEAPEST
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.accounts.core import directory, service, store
from aiproject.accounts.core.model import Account
from aiproject.accounts.core.service import Accounts, GrantOpening
from aiproject.accounts.login.throttle_rules import GUESS_RULE
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import name_key, new_account_id
from aiproject.adapters.db.schema import user as users
from aiproject.adapters.passwords import (
    PasswordHasher,
    PasswordService,
    Verdict,
    argon2id,
)
from aiproject.errors import AccountUnknown, InvalidInput, LoginFailed, NameTaken, TooManyRequests, Unavailable
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify

PASSWORD = "correct horse"
NOW = datetime(2026, 3, 1, 12, 30, 45, 123456, tzinfo=UTC)


def signup(database: Database) -> GrantOpening:
    """What a new account starts with."""
    return partial(Quotas(database, LeaseTimes(30)).grant_opening, tokens=10_000, pic_times=10, voice_ms=None)


@pytest.fixture
async def accounts(database: Database) -> AsyncIterator[Accounts]:
    passwords = PasswordService(PasswordHasher(CHEAPEST))
    yield Accounts(database, passwords, signup(database), clock=lambda: NOW)
    await passwords.close()


async def stored_password(database: Database, account: Account) -> str:
    async with database.connect() as connection:
        query = sa.select(users.c.PassWord).where(users.c.AccountId == account.account_id)
        return str((await connection.execute(query)).scalar_one())


async def adopt(database: Database, name: str, password: str) -> None:
    """An account as the original left it, after its database was upgraded."""
    async with database.begin() as connection:
        await connection.execute(
            sa.insert(users).values(
                Id=f"id-of-{name}",
                UserName=name,
                PassWord=password,
                Email="",
                Tokens=500,
                AccountId=new_account_id(NOW),
                NameKey=name_key(name),
            )
        )


async def rows(database: Database) -> int:
    async with database.connect() as connection:
        return int((await connection.execute(sa.select(sa.func.count()).select_from(users))).scalar_one())


class TestRegistration:
    async def test_a_new_account(self, accounts: Accounts, database: Database) -> None:
        made = await accounts.register(" 小明😀 ", " pässwört 密码 ", "a@b.cn", " 学院 ")
        assert (made.username, made.email, made.academy) == ("小明😀", "a@b.cn", "学院")
        assert (made.tokens, made.pic_times, made.voice_ms, made.voice_used_ms) == (10_000, 10, None, 0)
        assert (made.created_at, made.disabled_at) == (NOW, None)
        assert len(made.uuid) == 32
        assert int(made.uuid, 16)
        assert 0 < made.account_id < 2**53
        stored = await stored_password(database, made)
        assert stored.startswith("$argon2id$")
        assert "pässwört" not in stored
        other = await accounts.register("other", "pässwört 密码", "")
        assert other.uuid != made.uuid
        assert await stored_password(database, other) != stored
        assert [difference async for difference in verify(database)] == [], "what they start with is in the books"

    async def test_one_name_in_any_spelling(self, accounts: Accounts, database: Database) -> None:
        await accounts.register("Straße Ａ", PASSWORD, "")
        for name in ("Straße Ａ", "strasse a", "STRASSE A", "  Straße A  ", "Ｓtraße Ａ"):
            with pytest.raises(NameTaken):
                await accounts.register(name, PASSWORD, "")
        # These are other names, whatever a collation of the database may think.
        for name in ("Strase A", "Straße Ä", "Straße-A", "Straße A A"):
            await accounts.register(name, PASSWORD, "")
        assert await rows(database) == 5

    async def test_at_the_same_moment_exactly_one_wins(
        self, accounts: Accounts, database: Database, database_url: str
    ) -> None:
        """Eight of them, half on this process's connections, half on another's."""
        elsewhere = await Database.open(database_url)
        passwords = PasswordService(PasswordHasher(CHEAPEST))
        other = Accounts(elsewhere, passwords, signup(elsewhere), clock=lambda: NOW)
        names = ("alice", "ALICE", "Ａlice", " alice ", "alice", "Alice", "aLICE", "alice　")
        try:
            for _ in range(3):
                outcomes = await asyncio.gather(
                    *(
                        (accounts, other)[number % 2].register(name, f"password of {number}", "")
                        for number, name in enumerate(names)
                    ),
                    return_exceptions=True,
                )
                winners = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Account)]
                assert len(winners) == 1
                assert sum(isinstance(outcome, NameTaken) for outcome in outcomes) == len(names) - 1
                assert await rows(database) == 1
                assert (await accounts.login("alice", f"password of {winners[0]}")).username == names[
                    winners[0]
                ].strip()
                async with database.begin() as connection:
                    await connection.execute(sa.delete(users))
        finally:
            await passwords.close()
            await elsewhere.close()

    async def test_a_number_that_is_taken_is_drawn_again(
        self, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        numbers = iter([1, 1, 1, 2])
        monkeypatch.setattr(service, "new_account_id", lambda now: next(numbers))
        await accounts.register("first", PASSWORD, "")
        assert (await accounts.register("second", PASSWORD, "")).account_id == 2

    async def test_what_cannot_be_stored_is_refused_and_not_a_crash(self, accounts: Accounts) -> None:
        for name in ("a\0b", "\ud83d", "ﷺ" * 50, "n" * 51):
            with pytest.raises(InvalidInput):
                await accounts.register(name, PASSWORD, "")
        longest = await accounts.register("名" * 50, "密钥" * 64, "e" * 254, "学" * 100)
        assert longest == await accounts.login("名" * 50, "密钥" * 64)


class TestLogin:
    async def test_name_in_any_spelling_and_the_right_password(self, accounts: Accounts) -> None:
        made = await accounts.register("Alice", "Secret word", "")
        for name in ("Alice", "alice", " ALICE ", "Ａlice"):
            assert await accounts.login(name, " Secret word ") == made

    async def test_everything_else_fails_alike(self, accounts: Accounts) -> None:
        await accounts.register("alice", "secret word", "")
        told = set()
        for name, password in (
            ("alice", "Secret word"),
            ("alice", ""),
            ("", "secret word"),
            ("bob", "secret word"),
            ("alice", "x" * 5000),
            ("alice'--", "secret word"),
            ("\0", "secret word"),
            ("\ud800", "secret word"),
            ("alice", "\ud800"),
            ("n" * 5000, "secret word"),
        ):
            with pytest.raises(LoginFailed) as caught:
                await accounts.login(name, password)
            told.add(str(caught.value))
        assert len(told) == 1

    @pytest.mark.parametrize("kind", ["md5", "MD5", "plain"])
    async def test_passwords_of_the_original_are_hashed_anew(
        self, accounts: Accounts, database: Database, kind: str
    ) -> None:
        digest = hashlib.md5("小明的密码#_#".encode(), usedforsecurity=False).hexdigest()
        stored = {"md5": digest, "MD5": digest.upper(), "plain": "小明的密码"}[kind]
        await adopt(database, "alice", stored)
        for wrong in ("小明", digest, "小明的密码#_#"):
            with pytest.raises(LoginFailed):
                await accounts.login("alice", wrong)
        before = await accounts.named("alice")
        assert await stored_password(database, before) == stored  # a failure changes nothing
        account = await accounts.login("alice", "小明的密码")
        assert account.created_at is None
        renewed = await stored_password(database, account)
        assert renewed.startswith("$argon2id$")
        assert await accounts.login("alice", "小明的密码") == account
        assert await stored_password(database, account) == renewed
        with pytest.raises(LoginFailed):
            await accounts.login("alice", digest)

    async def test_an_old_password_at_the_same_moment(self, accounts: Accounts, database: Database) -> None:
        await adopt(database, "alice", "plain")
        found = await asyncio.gather(*(accounts.login("alice", "plain") for _ in range(4)))
        assert len({account.account_id for account in found}) == 1
        assert (await stored_password(database, found[0])).startswith("$argon2id$")


class TestIdentity:
    async def test_uuid_and_name_belong_together(self, accounts: Accounts) -> None:
        alice = await accounts.register("小明", PASSWORD, "")
        bob = await accounts.register("bob", PASSWORD, "")
        assert await accounts.identify(alice.uuid, ["小明"]) == alice
        assert await accounts.identify(f" {alice.uuid} ", ["å°æ", "小明 "]) == alice
        assert await accounts.identify(bob.uuid, ["小明", "BOB"]) == bob
        for uuid, names in (
            (alice.uuid, ["bob"]),
            (bob.uuid, ["小明"]),
            (alice.uuid.upper(), ["小明"]),
            (alice.uuid[:-1], ["小明"]),
            ("", ["小明"]),
            (alice.uuid, []),
            (alice.uuid, ["", "  "]),
            (alice.uuid, ["n" * 5000]),
            (alice.uuid, ["\0", "\ud800"]),
            ("\ud800\0", ["小明"]),
            ("é" * 32, ["小明"]),
        ):
            with pytest.raises(AccountUnknown):
                await accounts.identify(uuid, names)

    async def test_a_disabled_account_is_refused_everywhere_until_it_is_enabled(self, accounts: Accounts) -> None:
        made = await accounts.register("alice", "secret word", "")
        disabled = await accounts.set_disabled("ALICE", disabled=True)
        assert disabled.is_disabled
        assert disabled.disabled_at == NOW
        with pytest.raises(LoginFailed):
            await accounts.login("alice", "secret word")
        with pytest.raises(AccountUnknown):
            await accounts.identify(made.uuid, ["alice"])
        with pytest.raises(NameTaken):
            await accounts.register("alice", "secret word", "")
        assert await accounts.set_disabled("alice", disabled=False) == made
        assert await accounts.login("alice", "secret word") == made
        assert await accounts.identify(made.uuid, ["alice"]) == made

    async def test_nobody(self, accounts: Accounts) -> None:
        for name in ("nobody", "", "\0", "\ud800"):
            with pytest.raises(AccountUnknown):
                await accounts.named(name)
            with pytest.raises(AccountUnknown):
                await accounts.set_disabled(name, disabled=True)


async def fail_to_log_in(accounts: Accounts, name: str) -> None:
    with pytest.raises(LoginFailed):
        await accounts.login(name, "a wrong guess")


def statements(database: Database, kept: list[str]) -> Callable[[], None]:
    """Note every statement from now on; returns what ends that."""
    engine = database._engine.sync_engine

    def note(connection: object, cursor: object, statement: str, *_more: object) -> None:
        kept.append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    return lambda: sa.event.remove(engine, "before_cursor_execute", note)


class TestPasswordsAndUuids:
    async def test_the_owner_changes_the_password_and_signs_out_everywhere(
        self, accounts: Accounts, database: Database
    ) -> None:
        alice = await accounts.register("alice", PASSWORD, "")
        seen: list[Account] = []

        async def within(connection: AsyncConnection) -> None:
            seen.extend(account for account, _ in await store.by_name_keys(connection, ["alice"]))

        changed = await accounts.change_password(alice, f" {PASSWORD} ", " a new password ", within=within)
        assert changed == replace(alice, uuid=changed.uuid)
        assert changed.uuid != alice.uuid
        assert len(changed.uuid) == 32
        assert seen == [changed], "the same transaction sees it"
        async with database.connect() as connection:
            assert (await connection.execute(sa.select(users.c.PasswordChangedAt))).scalar_one() == NOW
        with pytest.raises(AccountUnknown):
            await accounts.identify(alice.uuid, ["alice"])
        assert await accounts.identify(changed.uuid, ["alice"]) == changed
        with pytest.raises(LoginFailed):
            await accounts.login("alice", PASSWORD)
        assert await accounts.login("alice", "a new password") == changed
        kept = await accounts.change_password(changed, "a new password", PASSWORD, sign_out_everywhere=False)
        assert kept == changed
        assert await accounts.login("alice", PASSWORD) == changed

    async def test_what_does_not_change_a_password(self, accounts: Accounts, database: Database) -> None:
        alice = await accounts.register("alice", PASSWORD, "")
        before = await stored_password(database, alice)
        for current in ("wrong", "", "x" * 5000):
            with pytest.raises(LoginFailed):
                await accounts.change_password(alice, current, "a new password")
        for new in ("short", "password", "ALICE", "密" * 129):
            with pytest.raises(InvalidInput):
                await accounts.change_password(alice, PASSWORD, new)
            with pytest.raises(InvalidInput):
                await accounts.set_password(alice, new)

        async def within(connection: AsyncConnection) -> None:
            raise Unavailable("the audit log is away")

        for change in (
            accounts.change_password(alice, PASSWORD, "a new password", within=within),
            accounts.set_password(alice, "a new password", within=within),
        ):
            with pytest.raises(Unavailable):
                await change
        assert await stored_password(database, alice) == before
        assert await accounts.named("alice") == alice

    async def test_guesses_of_the_current_password_count_as_logins(self, accounts: Accounts) -> None:
        alice = await accounts.register("alice", PASSWORD, "")
        for _ in range(6):
            with pytest.raises(LoginFailed):
                await accounts.change_password(alice, "a wrong guess", "a new password")
        with pytest.raises(TooManyRequests):
            await accounts.login("alice", PASSWORD)

    async def test_a_reset_ends_the_lock_and_keeps_the_uuid_unless_told_otherwise(self, accounts: Accounts) -> None:
        alice = await accounts.register("alice", PASSWORD, "")
        for _ in range(6):
            await fail_to_log_in(accounts, "Alice")
        with pytest.raises(TooManyRequests):
            await accounts.login("alice", PASSWORD)
        assert await accounts.set_password(alice, "a new password") == alice
        assert await accounts.login("alice", "a new password") == alice
        changed = await accounts.set_password(alice, PASSWORD, sign_out_everywhere=True)
        assert changed.uuid != alice.uuid
        with pytest.raises(AccountUnknown):
            await accounts.set_password(replace(alice, account_id=1), PASSWORD)

    async def test_unlocking(self, accounts: Accounts) -> None:
        alice = await accounts.register("alice", PASSWORD, "")
        assert not await accounts.unlock("alice")
        for _ in range(6):
            await fail_to_log_in(accounts, "alice")
        assert await accounts.unlock(" ALICE ")
        assert await accounts.login("alice", PASSWORD) == alice

    async def test_a_reset_beside_a_change_wins(self, accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who knows the old password cannot undo a reset that came while his change was on its way."""
        alice = await accounts.register("alice", PASSWORD, "")
        verify_password = PasswordService.verify

        async def reset_meanwhile(self: PasswordService, stored: str, password: str) -> Verdict:
            verdict = await verify_password(self, stored, password)
            await accounts.set_password(alice, "the administrator's")
            return verdict

        with monkeypatch.context() as patch:
            patch.setattr(PasswordService, "verify", reset_meanwhile)
            with pytest.raises(LoginFailed):
                await accounts.change_password(alice, PASSWORD, "the thief's word")
        assert await accounts.login("alice", "the administrator's") == alice

    async def test_another_uuid(self, accounts: Accounts) -> None:
        alice = await accounts.register("alice", PASSWORD, "")
        uuid = await accounts.rotate_uuid(alice)
        assert uuid != alice.uuid
        assert await accounts.identify(uuid, ["alice"]) == replace(alice, uuid=uuid)
        assert await accounts.identify_by_uuid(uuid) == replace(alice, uuid=uuid)
        for wrong in (accounts.identify(alice.uuid, ["alice"]), accounts.identify_by_uuid(alice.uuid)):
            with pytest.raises(AccountUnknown):
                await wrong
        with pytest.raises(AccountUnknown):
            await accounts.rotate_uuid(replace(alice, account_id=1))

    async def test_a_hash_with_other_parameters_is_replaced_at_login(
        self, accounts: Accounts, database: Database
    ) -> None:
        alice = await accounts.register("alice", PASSWORD, "")
        old = await stored_password(database, alice)
        profile = argon2id(memory=64, passes=2, lanes=1)
        stronger = PasswordService(PasswordHasher(profile))
        try:
            others = Accounts(database, stronger, signup(database))
            await others.login("alice", PASSWORD)
            renewed = await stored_password(database, alice)
            assert renewed != old
            assert "m=64,t=2,p=1" in renewed
            await others.login("alice", PASSWORD)
            assert await stored_password(database, alice) == renewed
        finally:
            await stronger.close()

    async def test_a_short_password_of_old_logs_in(self, accounts: Accounts, database: Database) -> None:
        await adopt(database, "alice", "123")
        alice = await accounts.login("alice", "123")
        assert await accounts.login("alice", "123") == alice
        assert (await accounts.change_password(alice, "123", PASSWORD)).account_id == alice.account_id


async def test_known_and_unknown_names_are_the_same_work(accounts: Accounts, database: Database) -> None:
    """The same statements in the same order and the same hash, from the first failure to the refusal."""
    await accounts.register("alice", PASSWORD, "")
    await accounts.set_disabled("alice", disabled=False)
    work: dict[str, list[str]] = {"alice": [], "nobody": []}
    for name, kept in work.items():
        end = statements(database, kept)
        with pytest.MonkeyPatch.context() as patch:
            for method in ("verify", "dummy_verify"):
                patch.setattr(PasswordHasher, method, _noting(kept, getattr(PasswordHasher, method)))
            for _ in range(6):
                with pytest.raises(LoginFailed):
                    await accounts.login(name, "a wrong guess", address="192.0.2.1")
            with pytest.raises(TooManyRequests):
                await accounts.login(name, "a wrong guess", address="192.0.2.1")
        end()
    assert work["alice"] == work["nobody"]
    assert work["alice"].count("a hash") == 6


def _noting(kept: list[str], method: Callable[..., Any]) -> Callable[..., Any]:
    def note(*arguments: Any) -> Any:
        kept.append("a hash")
        return method(*arguments)

    return note


class TestGuessedUuids:
    async def test_a_right_pair_costs_one_query_and_no_write_and_always_passes(
        self, accounts: Accounts, database: Database
    ) -> None:
        alice = await accounts.register("alice", PASSWORD, "")
        blocked = False
        for _ in range(GUESS_RULE.free + 3):
            try:
                await accounts.identify("0" * 32, ["alice"], address="192.0.2.1")
            except TooManyRequests:
                blocked = True
            except AccountUnknown:
                assert not blocked
        assert blocked
        with pytest.raises(TooManyRequests):
            await accounts.identify_by_uuid("0" * 32, address="192.0.2.1")
        kept: list[str] = []
        end = statements(database, kept)
        assert await accounts.identify(alice.uuid, ["alice"], address="192.0.2.1") == alice
        assert await accounts.identify_by_uuid(alice.uuid, address="192.0.2.1") == alice
        end()
        assert [statement.split()[0] for statement in kept if not statement.startswith("BEGIN")] == ["SELECT"] * 2
        assert await accounts.login("alice", PASSWORD, address="192.0.2.1") == alice, "passwords are another realm"


async def test_the_list_is_read_in_pages(
    accounts: Accounts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of name keys, by code point on every database, nobody twice and nobody lost."""
    monkeypatch.setattr(directory, "LIST_PAGE", 3)
    assert [account async for account in accounts.all()] == []
    names = ["b", "B2", "a", "Ä", "é", "Z", "小明", "_", "10", "9", "z😀", "ß"]
    for number, name in enumerate(names):
        await adopt(database, name, str(number))
    listed = [account.username async for account in accounts.all()]
    assert listed == sorted(names, key=name_key)
    monkeypatch.setattr(directory, "LIST_PAGE", len(names))  # a last page that is exactly full
    assert [account.username async for account in accounts.all()] == listed


async def test_moments_survive(database: Database) -> None:
    passwords = PasswordService(PasswordHasher(CHEAPEST))
    moment = NOW + timedelta(microseconds=1)
    made = await Accounts(database, passwords, signup(database), clock=lambda: moment).register("alice", PASSWORD, "")
    assert made.created_at == moment
    await passwords.close()
