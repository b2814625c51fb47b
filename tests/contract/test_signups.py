"""How many accounts of one address start with the sign-up quota, on every database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import sqlalchemy as sa
from argon2.profiles import CHEAPEST

from aiproject.accounts.core.model import Account
from aiproject.accounts.core.service import Accounts
from aiproject.accounts.core.signups import NETWORKS_OF_A_SITE, SignupQuota
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import signup_count
from aiproject.adapters.passwords import PasswordHasher, PasswordService
from aiproject.errors import InvalidInput, NameTaken
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify
from aiproject.protocols.addresses import address_group

PASSWORD = "correct horse"
LIMIT = 5


class Node:
    """Registrations of one process."""

    def __init__(self, database: Database, passwords: PasswordService, *, limit: int | None = LIMIT) -> None:
        quotas = Quotas(database, LeaseTimes(30))
        full = partial(quotas.grant_opening, tokens=10_000, pic_times=10, voice_ms=None)
        empty = partial(quotas.grant_opening, tokens=0, pic_times=0, voice_ms=None)
        self.now = datetime(2026, 2, 28, 23, 30, tzinfo=UTC)
        self.accounts = Accounts(database, passwords, full)
        self.signups = SignupQuota(full, empty, limit=limit, now=lambda: self.now)

    async def register(self, name: str, address: str = "192.0.2.1") -> Account:
        return await self.accounts.register(name, PASSWORD, "", grant_opening=self.signups.opening(address))


@pytest.fixture
async def passwords() -> AsyncIterator[PasswordService]:
    service = PasswordService(PasswordHasher(CHEAPEST))
    yield service
    await service.close()


@pytest.fixture
def node(database: Database, passwords: PasswordService) -> Node:
    return Node(database, passwords)


async def test_a_burst_over_two_nodes_gets_what_the_limit_says(
    database: Database, database_url: str, passwords: PasswordService, node: Node
) -> None:
    elsewhere = await Database.open(database_url)
    try:
        nodes = [node, Node(elsewhere, passwords)]
        made = await asyncio.gather(*(nodes[number % 2].register(f"student {number}") for number in range(12)))
    finally:
        await elsewhere.close()
    assert sorted(account.tokens for account in made) == [0] * (12 - LIMIT) + [10_000] * LIMIT
    assert sorted(account.pic_times for account in made) == [0] * (12 - LIMIT) + [10] * LIMIT
    assert [difference async for difference in verify(database)] == []


async def test_other_addresses_and_other_days_have_their_own(node: Node) -> None:
    for number in range(LIMIT):
        assert (await node.register(f"early {number}")).tokens == 10_000
    assert (await node.register("late")).tokens == 0
    assert (await node.register("elsewhere", "192.0.2.2")).tokens == 10_000
    node.now += timedelta(hours=1)  # the first of March
    assert (await node.register("tomorrow")).tokens == 10_000


async def test_an_ipv6_site_does_not_multiply_it_by_its_networks(node: Node) -> None:
    """Who has a /48 has 65,536 networks."""
    networks = [address_group(f"2001:db8:1:{number:x}::1") for number in range(NETWORKS_OF_A_SITE + 1)]
    made = [
        await node.register(f"student {index} of {network}", network) for network in networks for index in range(LIMIT)
    ]
    assert [account.tokens for account in made] == [10_000] * (LIMIT * NETWORKS_OF_A_SITE) + [0] * LIMIT
    assert (await node.register("another site", address_group("2001:db8:2::1"))).tokens == 10_000


async def test_a_registration_that_fails_counts_nothing(node: Node) -> None:
    await node.register("taken", "192.0.2.2")
    for _ in range(LIMIT + 1):
        with pytest.raises(NameTaken):
            await node.register("Taken")
    assert (await node.register("first of its address")).tokens == 10_000


async def test_old_counts_are_forgotten_and_yesterday_s_are_kept(database: Database, node: Node) -> None:
    for number in range(4):
        await node.register(f"student {number}")
        node.now += timedelta(days=1)
    async with database.connect() as connection:
        days = list(await connection.scalars(sa.select(signup_count.c.day).order_by(signup_count.c.day)))
    assert days == [20260301, 20260302, 20260303]


async def test_without_a_limit_everybody_starts_with_it(database: Database, passwords: PasswordService) -> None:
    node = Node(database, passwords, limit=None)
    assert {(await node.register(f"student {number}")).tokens for number in range(LIMIT + 1)} == {10_000}


async def test_more_than_a_balance_holds_opens_no_account(database: Database, passwords: PasswordService) -> None:
    quotas = Quotas(database, LeaseTimes(30))
    opening = partial(quotas.grant_opening, tokens=2**63 - 1, pic_times=0, voice_ms=None)
    accounts = Accounts(database, passwords, opening)
    with pytest.raises(InvalidInput, match="BALANCE_TOO_LARGE"):
        await accounts.register("greedy", PASSWORD, "")
    assert [account async for account in accounts.all()] == []
