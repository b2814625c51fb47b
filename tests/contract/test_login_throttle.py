"""The guard of logins on each of the four databases: delays, locks, parallel guesses on two nodes, and the sweep."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa

from aiproject.accounts.login import throttle as guard_module
from aiproject.accounts.login.throttle import FORGIVEN_KEPT_MS, NAMES_KEPT_MS, LoginThrottle, ThrottleScope
from aiproject.accounts.login.throttle_rules import LOCKED_MS, NAME_RULE, Rule
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import login_guard as guards
from aiproject.errors import AccountUnknown, LoginFailed, TooManyRequests, Unavailable
from aiproject.messages.formatting import Language, format_error

GUESSES = 200
FEW = Rule(free=3, forgiven_every=10_000)
START = 1_800_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guard(database: Database, clock: Clock) -> LoginThrottle:
    return LoginThrottle(database, clock=clock)


@pytest.fixture
async def other_node(database_url: str, database: Database, clock: Clock) -> AsyncIterator[LoginThrottle]:
    elsewhere = await Database.open(database_url)
    yield LoginThrottle(elsewhere, clock=clock)
    await elsewhere.close()


async def fail(
    guard: LoginThrottle, name: str = "alice", address: str | None = None, realm: ThrottleScope = ThrottleScope.LOGIN
) -> None:
    with pytest.raises(LoginFailed):
        async with guard.attempt(realm, name=name, address=address):
            raise LoginFailed


async def succeed(guard: LoginThrottle, name: str = "alice", address: str | None = None) -> None:
    async with guard.attempt(ThrottleScope.LOGIN, name=name, address=address):
        pass


async def refusal(guard: LoginThrottle, name: str = "alice", address: str | None = None) -> TooManyRequests:
    with pytest.raises(TooManyRequests) as caught:
        async with guard.attempt(ThrottleScope.LOGIN, name=name, address=address):
            pytest.fail("the work was begun")
    return caught.value


async def rows(database: Database) -> dict[tuple[str, str], int]:
    async with database.connect() as connection:
        found = await connection.execute(sa.select(guards.c.realm, guards.c.subject, guards.c.failures))
        return {(row[0], row[1]): row[2] for row in found}


class TestNames:
    async def test_delays_grow_and_a_success_forgets_them(
        self, guard: LoginThrottle, other_node: LoginThrottle, clock: Clock, database: Database
    ) -> None:
        for number in range(6):
            await fail((guard, other_node)[number % 2], ("alice", " ALICE ", "Ａlice")[number % 3])
        assert (await refusal(guard)).retry_after == 1
        assert (await refusal(other_node, "Alice")).retry_after == 1
        await succeed(guard, "bob")
        clock.now += 1000
        await fail(other_node)
        assert (await refusal(guard)).retry_after == 2
        clock.now += 1999
        assert (await refusal(guard)).retry_after == 1
        clock.now += 1
        await succeed(guard)
        assert await rows(database) == {}
        await fail(other_node)

    async def test_a_hundred_in_a_row_lock_until_somebody_unlocks(
        self, guard: LoginThrottle, other_node: LoginThrottle, clock: Clock, database: Database
    ) -> None:
        await fail(guard)
        async with database.begin() as connection:
            await connection.execute(sa.update(guards).values(failures=NAME_RULE.most - 2))  # type: ignore[operator]
        for node in (guard, other_node):
            await fail(node)
            clock.now += 900_000
        clock.now += 90 * 86_400_000
        for node in (guard, other_node):
            refused = await refusal(node)
            assert refused.retry_after == LOCKED_MS // 1000
            assert "锁定" in format_error(refused, Language.ZH)
        assert await other_node.unlock(ThrottleScope.LOGIN, " Alice ")
        assert not await other_node.unlock(ThrottleScope.LOGIN, "alice")
        await succeed(guard)

    async def test_only_so_many_of_a_thousand_parallel_guesses_pass(
        self, guard: LoginThrottle, other_node: LoginThrottle, database: Database
    ) -> None:
        """As many as one after the other, though all of them begin before the first has failed."""
        begun, refused, decided = 0, 0, asyncio.Event()

        async def guess(node: LoginThrottle) -> None:
            nonlocal begun, refused
            try:
                async with node.attempt(ThrottleScope.LOGIN, name="alice", address="192.0.2.1"):
                    begun += 1
                    await decided.wait()
                    raise LoginFailed
            except TooManyRequests:
                refused += 1
                if begun + refused == GUESSES:
                    decided.set()
            except LoginFailed:
                pass

        async with asyncio.timeout(60):
            await asyncio.gather(*(guess((guard, other_node)[number % 2]) for number in range(GUESSES)))
        assert begun == NAME_RULE.free + 1
        assert refused == GUESSES - begun
        assert set((await rows(database)).values()) == {begun}

    async def test_what_decided_nothing_is_given_back(self, guard: LoginThrottle, database: Database) -> None:
        await fail(guard, address="192.0.2.1")
        before = await rows(database)

        async def attempt(error: Exception) -> None:
            async with guard.attempt(ThrottleScope.LOGIN, name="alice", address="192.0.2.1"):
                assert set((await rows(database)).values()) == {2}
                raise error

        for error in (Unavailable("away"), TooManyRequests(2), RuntimeError("a bug")):
            with pytest.raises(type(error)):
                await attempt(error)
        assert await rows(database) == before

    async def test_realms_do_not_mix(self, guard: LoginThrottle) -> None:
        for _ in range(6):
            await fail(guard, realm=ThrottleScope.ADMIN)
        await succeed(guard)
        with pytest.raises(TooManyRequests):
            await guard.check(ThrottleScope.ADMIN, name="alice")
        await guard.check(ThrottleScope.LOGIN, name="alice")
        assert not await guard.unlock(ThrottleScope.LOGIN, "alice")

    async def test_any_text_is_a_name(self, guard: LoginThrottle, database: Database) -> None:
        for name in ("", "\0", "\ud800", "n" * 100_000, "ﷺ" * 50, "'; drop table login_guard"):
            await fail(guard, name)
        kept = await rows(database)
        assert len(kept) == 6
        assert all(len(subject) == 64 and int(subject, 16) >= 0 for _, subject in kept)


class TestAddresses:
    async def test_successes_do_not_clear_an_address(
        self, guard: LoginThrottle, clock: Clock, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(guard_module, "ADDRESS_RULE", Rule(free=3, forgiven_every=10_000))
        for number in range(4):
            await succeed(guard, "me", "192.0.2.1")
            await fail(guard, f"victim{number}", "192.0.2.1")
        assert (await refusal(guard, "me", "192.0.2.1")).retry_after == 1
        await succeed(guard, "me", "192.0.2.2")
        clock.now += 10_000
        await succeed(guard, "me", "192.0.2.1")
        assert max((await rows(database)).values()) == 3

    async def test_one_customer_of_ipv6_is_one_address(self, guard: LoginThrottle, database: Database) -> None:
        for address in ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:DB8:1:2:0::7%eth0"):
            await guard_count(guard, address)
        for address in ("192.0.2.7", "::ffff:192.0.2.7"):
            await guard_count(guard, address)
        for address in ("2001:db8:1:3::1", "unknown"):
            await guard_count(guard, address)
        assert sorted((await rows(database)).values()) == [1, 1, 2, 3]
        assert hashlib.sha256(b"192.0.2.7").hexdigest() in {subject for _, subject in await rows(database)}

    async def test_switched_off_names_are_guarded_still(
        self, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(guard_module, "GUESS_RULE", FEW)
        guard = LoginThrottle(database, guards_addresses=False, clock=clock)
        for _ in range(6):
            await fail(guard, address="192.0.2.1")
        assert (await refusal(guard, address="192.0.2.2")).retry_after == 1
        for _ in range(FEW.free + 9):
            await guard.wrong_guess(ThrottleScope.UUID, name="alice", address="192.0.2.1")
        assert [realm for realm, _ in await rows(database)] == ["login:name"]


async def guard_count(guard: LoginThrottle, address: str) -> None:
    await guard.wrong_guess(ThrottleScope.KEY, name=None, address=address)


async def test_wrong_guesses_of_long_secrets_are_slowed(
    guard: LoginThrottle, clock: Clock, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "GUESS_RULE", FEW)
    for number in range(FEW.free + 1):
        await guard.wrong_guess(ThrottleScope.UUID, name=f"name{number}", address="192.0.2.1")
    for name in ("name1", "somebody else", None):
        with pytest.raises(TooManyRequests):
            await guard.wrong_guess(ThrottleScope.UUID, name=name, address="192.0.2.1")
    await guard.wrong_guess(ThrottleScope.UUID, name="name1", address="192.0.2.2")
    assert len(await rows(database)) == FEW.free + 3
    clock.now += 20_000
    await guard.wrong_guess(ThrottleScope.UUID, name="name1", address="192.0.2.1")
    with pytest.raises(AccountUnknown):  # other errors of the house count as failures in a block, too
        async with guard.attempt(ThrottleScope.LOGIN, name="alice"):
            raise AccountUnknown


class TestSweep:
    async def test_names_are_kept_for_a_year_and_addresses_for_a_day(
        self, guard: LoginThrottle, clock: Clock, database: Database
    ) -> None:
        for number in range(8):  # as long a row as there is, and short ones: one rule for all
            clock.now += 900_000
            await fail(guard, "guessed often", "192.0.2.1" if number == 7 else None)
        await fail(guard, "guessed once")
        await guard.wrong_guess(ThrottleScope.UUID, name="guessed once", address="192.0.2.1")
        assert await guard.sweep() == 0
        clock.now += FORGIVEN_KEPT_MS + 1
        assert await guard.sweep() == 3
        assert {realm for realm, _ in await rows(database)} == {"login:name"}
        clock.now += NAMES_KEPT_MS - FORGIVEN_KEPT_MS - 1000
        await fail(guard, "guessed lately")
        assert await guard.sweep() == 0
        clock.now += 2000
        assert await guard.sweep() == 2
        assert len(await rows(database)) == 1

    async def test_a_flood_pushes_out_the_short_rows_first(
        self, guard: LoginThrottle, clock: Clock, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(guard_module, "MAX_ROWS", 10)
        for _ in range(3):
            await fail(guard, "guessed often")
        for number in range(15):
            clock.now += 1
            await fail(guard, f"flood{number}")
        assert await guard.sweep() == 6
        kept = await rows(database)
        assert sorted(kept.values()) == [1] * 9 + [3]

    async def test_it_comes_by_itself(self, guard: LoginThrottle, clock: Clock, database: Database) -> None:
        await fail(guard, "long ago")
        clock.now += NAMES_KEPT_MS + 1
        await fail(guard, "today")
        assert len(await rows(database)) == 1
