"""API keys on each of the four databases: made, listed, changed, revoked, recognised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from aiproject.accounts.api_keys import service as keys_module
from aiproject.accounts.api_keys.model import KeyTerms, SpendCap, draw_key, hash_of, networks_of
from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core import store
from aiproject.accounts.core.model import Account
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import api_key, spend_limit
from aiproject.errors import AccountUnknown, InvalidInput, NotAllowed, NotFound, NotSignedIn
from aiproject.ledger.model import Meter
from aiproject.ledger.service import LeaseTimes, Quotas
from bookkeeping import open_account

TOKENS, PIC_TIMES, VOICE = Meter.TOKENS, Meter.PIC_TIMES, Meter.VOICE_SECONDS
HERE = "192.0.2.7"
NOON = datetime(2026, 5, 5, 12, 0, 0, tzinfo=UTC)


on_one = pytest.mark.parametrize("database_kind", ["sqlite"])
"""For tests of what does not depend on the database."""


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def keys(database: Database, clock: Clock) -> AsyncIterator[ApiKeys]:
    opened = ApiKeys(database, clock=clock)
    yield opened
    await opened.close()


@pytest.fixture
async def ann(database: Database) -> Account:
    return await open_account(database, "ann", tokens=1000)


async def rows(database: Database, table: sa.Table) -> list[dict[str, Any]]:
    async with database.connect() as connection:
        return [dict(row) for row in (await connection.execute(sa.select(table))).mappings()]


class TestMaking:
    async def test_keeps_what_was_asked_for(self, keys: ApiKeys, ann: Account) -> None:
        terms = KeyTerms(
            " 小明的 key ",
            NOON + timedelta(days=1),
            requests_per_minute=10,
            concurrent_calls=2,
            tokens_per_minute=5000,
            capabilities=frozenset({TOKENS, VOICE}),
            models=frozenset({"generalv3.5", "4.0Ultra"}),
            addresses=networks_of(["192.0.2.0/24", "2001:db8::7"]),
        )
        new = await keys.create(ann.account_id, terms, {TOKENS: SpendCap(100, 10)})
        assert new.key.terms == replace(terms, name="小明的 key")
        (stored,) = await keys.list(ann.account_id)
        assert stored.key == new.key
        assert stored.key.created_at == NOON
        assert {capability: limit[:2] for capability, limit in stored.limits.items()} == {
            TOKENS: (100, 10),
            PIC_TIMES: (None, None),
            VOICE: (None, None),
        }
        assert await keys.get(ann.account_id, new.key.prefix) == stored

    @on_one
    async def test_keeps_no_text(self, keys: ApiKeys, ann: Account, database: Database) -> None:
        new = await keys.create(ann.account_id, KeyTerms("a"))
        (row,) = await rows(database, api_key)
        secret = new.text.removeprefix(new.key.prefix)
        assert secret not in str(row)
        assert row["secret_hash"] == hash_of(new.text)
        assert new.text not in repr(new)
        assert secret not in repr(new)
        assert new.text not in str(await keys.list(ann.account_id))

    @on_one
    async def test_needs_an_account(self, keys: ApiKeys) -> None:
        with pytest.raises(AccountUnknown):
            await keys.create(17, KeyTerms("a"))

    @on_one
    async def test_refuses_what_makes_no_sense(self, keys: ApiKeys, ann: Account, database: Database) -> None:
        with pytest.raises(InvalidInput):
            await keys.create(ann.account_id, KeyTerms("a", expires_at=NOON))
        with pytest.raises(InvalidInput):
            await keys.create(ann.account_id, KeyTerms("a"), {TOKENS: SpendCap(total=-1)})
        assert await rows(database, api_key) == []

    async def test_ends_at_the_bound_also_at_once(
        self, keys: ApiKeys, ann: Account, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keys_module, "MAX_KEYS", 5)
        asked = (keys.create(ann.account_id, KeyTerms(f"key {number}")) for number in range(9))
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(result, InvalidInput) for result in results) == 4
        assert len(await rows(database, api_key)) == 5
        (first, *_) = await keys.list(ann.account_id)
        await keys.revoke(ann.account_id, first.key.prefix)
        await keys.create(ann.account_id, KeyTerms("one more"))

    async def test_forgets_the_oldest_of_many_revoked_unless_its_calls_run(
        self, keys: ApiKeys, ann: Account, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keys_module, "KEPT_REVOKED", 2)
        made = []
        for number in range(4):
            made.append((await keys.create(ann.account_id, KeyTerms(f"key {number}"))).key)
            clock.now += timedelta(seconds=1)
        quotas = Quotas(database, LeaseTimes(30))
        await quotas.hold(ann, TOKENS, 5, request_id="running", key_id=made[0].key_id)
        for key in made:
            clock.now += timedelta(seconds=1)
            await keys.revoke(ann.account_id, key.prefix)
        await keys.create(ann.account_id, KeyTerms("new"))
        assert [stored.key.name for stored in await keys.list(ann.account_id)] == ["key 0", "key 3", "new"]
        assert {row["key_id"] for row in await rows(database, spend_limit)} == {
            stored.key.key_id for stored in await keys.list(ann.account_id)
        }


class TestOwners:
    async def test_see_and_change_their_own_only(self, keys: ApiKeys, ann: Account, database: Database) -> None:
        eve = await open_account(database, "eve")
        new = await keys.create(ann.account_id, KeyTerms("a"))
        assert await keys.list(eve.account_id) == []
        for act in (keys.get, keys.change, keys.revoke):
            with pytest.raises(NotFound):
                await act(eve.account_id, new.key.prefix)
        for prefix in ("sk-0000000000", "", "sk-%", "x" * 300, "sk-\0000000000", new.text):
            with pytest.raises(NotFound):
                await keys.get(ann.account_id, prefix)
            with pytest.raises(NotFound):
                await keys.with_prefix(prefix)
        assert (await keys.with_prefix(new.key.prefix)).account_id == ann.account_id
        await keys.recognise(new.text, HERE)

    async def test_change_terms_and_caps(self, keys: ApiKeys, ann: Account) -> None:
        new = await keys.create(ann.account_id, KeyTerms("a", concurrent_calls=3), {TOKENS: SpendCap(100, 10)})
        changed = await keys.change(
            ann.account_id,
            new.key.prefix,
            lambda terms: replace(terms, name="b", capabilities=frozenset({PIC_TIMES})),
            {TOKENS: SpendCap(None, 5), VOICE: SpendCap(1000)},
        )
        assert changed.key.terms == KeyTerms("b", concurrent_calls=3, capabilities=frozenset({PIC_TIMES}))
        assert changed.limits[TOKENS][:2] == (None, 5)
        assert changed.limits[VOICE][:2] == (1000, None)
        assert await keys.get(ann.account_id, new.key.prefix) == changed
        _, key = await keys.recognise(new.text, HERE)
        assert not key.allows(TOKENS)

    async def test_change_at_once_without_losing_either(self, keys: ApiKeys, ann: Account) -> None:
        prefix = (await keys.create(ann.account_id, KeyTerms("a"))).key.prefix
        await asyncio.gather(
            keys.change(ann.account_id, prefix, lambda terms: replace(terms, requests_per_minute=7)),
            keys.change(ann.account_id, prefix, lambda terms: replace(terms, concurrent_calls=8)),
            keys.change(ann.account_id, prefix, caps={PIC_TIMES: SpendCap(9)}),
        )
        stored = await keys.get(ann.account_id, prefix)
        assert (stored.key.requests_per_minute, stored.key.concurrent_calls) == (7, 8)
        assert stored.limits[PIC_TIMES].total == 9

    @on_one
    async def test_rename_what_has_expired_and_prolong_it(self, keys: ApiKeys, ann: Account, clock: Clock) -> None:
        new = await keys.create(ann.account_id, KeyTerms("a", NOON + timedelta(hours=1)))
        clock.now += timedelta(hours=2)
        await keys.change(ann.account_id, new.key.prefix, lambda terms: replace(terms, name="b"))
        with pytest.raises(NotSignedIn):
            await keys.recognise(new.text, HERE)
        with pytest.raises(InvalidInput):
            await keys.change(ann.account_id, new.key.prefix, lambda terms: replace(terms, expires_at=NOON))
        await keys.change(ann.account_id, new.key.prefix, lambda terms: replace(terms, expires_at=None))
        await keys.recognise(new.text, HERE)

    @on_one
    async def test_change_no_revoked_key(self, keys: ApiKeys, ann: Account) -> None:
        new = await keys.create(ann.account_id, KeyTerms("a"))
        await keys.revoke(ann.account_id, new.key.prefix)
        with pytest.raises(NotFound):
            await keys.change(ann.account_id, new.key.prefix, lambda terms: replace(terms, name="b"))


class TestRecognition:
    @on_one
    async def test_of_a_good_key(self, keys: ApiKeys, ann: Account) -> None:
        new = await keys.create(ann.account_id, KeyTerms("a"))
        account, key = await keys.recognise(new.text, HERE)
        assert (account, key) == (ann, new.key)

    async def test_of_what_is_none(self, keys: ApiKeys, ann: Account) -> None:
        text = (await keys.create(ann.account_id, KeyTerms("a"))).text
        other = (await keys.create(ann.account_id, KeyTerms("b"))).text
        for wrong in ("", "sk-", text[:-1], text.upper(), text + "0", draw_key(), "é", "\0" * 52):
            with pytest.raises(NotSignedIn):
                await keys.recognise(wrong, HERE)
        mixed = text[:13] + other[13:]
        with pytest.raises(NotSignedIn):
            await keys.recognise(mixed, HERE)

    async def test_of_the_right_prefix_with_a_wrong_secret(
        self, keys: ApiKeys, ann: Account, database: Database
    ) -> None:
        text = (await keys.create(ann.account_id, KeyTerms("a"))).text
        other = draw_key()
        async with database.begin() as connection:
            await connection.execute(sa.update(api_key).values(prefix=other[:13]))
        for shown in (other, text):
            with pytest.raises(NotSignedIn):
                await keys.recognise(shown, HERE)

    async def test_ends_with_the_key_and_with_the_account(
        self, keys: ApiKeys, ann: Account, database: Database, clock: Clock
    ) -> None:
        expiring = (await keys.create(ann.account_id, KeyTerms("a", NOON + timedelta(hours=1)))).text
        lasting = await keys.create(ann.account_id, KeyTerms("b"))
        revoked = await keys.create(ann.account_id, KeyTerms("c"))
        await keys.recognise(expiring, HERE)
        await keys.recognise(revoked.text, HERE)
        await keys.revoke(ann.account_id, revoked.key.prefix)
        await keys.revoke(ann.account_id, revoked.key.prefix)
        clock.now += timedelta(hours=1)
        for text in (expiring, revoked.text):
            with pytest.raises(NotSignedIn):
                await keys.recognise(text, HERE)
        await keys.recognise(lasting.text, HERE)
        async with database.begin() as connection:
            await store.set_disabled(connection, ann.account_id, NOON)
        with pytest.raises(NotSignedIn):
            await keys.recognise(lasting.text, HERE)

    async def test_elsewhere_ends_at_once(self, keys: ApiKeys, ann: Account, database_url: str) -> None:
        new = await keys.create(ann.account_id, KeyTerms("a"))
        elsewhere = await Database.open(database_url)
        try:
            await ApiKeys(elsewhere).revoke(ann.account_id, new.key.prefix)
        finally:
            await elsewhere.close()
        with pytest.raises(NotSignedIn):
            await keys.recognise(new.text, HERE)

    async def test_all_of_an_account_are_revoked_in_one_go(
        self, keys: ApiKeys, ann: Account, database: Database
    ) -> None:
        eve = await open_account(database, "eve")
        hers = await keys.create(eve.account_id, KeyTerms("hers"))
        made = [await keys.create(ann.account_id, KeyTerms(name)) for name in "ab"]
        await keys.revoke(ann.account_id, made[0].key.prefix)
        async with database.begin() as connection:
            assert await keys.revoke_all(ann.account_id, connection) == 1
        for new in made:
            with pytest.raises(NotSignedIn):
                await keys.recognise(new.text, HERE)
        await keys.recognise(hers.text, HERE)

    @on_one
    async def test_from_its_networks_only(self, keys: ApiKeys, ann: Account) -> None:
        terms = KeyTerms("a", addresses=networks_of(["192.0.2.0/28", "2001:db8::/32"]))
        text = (await keys.create(ann.account_id, terms)).text
        for address in ("192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1", "2001:db8::1%eth0"):
            await keys.recognise(text, address)
        for address in ("192.0.2.16", "2001:db9::1", "unknown", ""):
            with pytest.raises(NotAllowed):
                await keys.recognise(text, address)


class TestLastUse:
    async def last_use(self, keys: ApiKeys, ann: Account) -> tuple[datetime | None, str | None]:
        await keys.close()  # which writes what was gathered
        ((key, _),) = [(stored.key, stored.limits) for stored in await keys.list(ann.account_id)]
        return key.last_used_at, key.last_used_address

    async def test_is_noted_once_a_minute(self, keys: ApiKeys, ann: Account, clock: Clock) -> None:
        text = (await keys.create(ann.account_id, KeyTerms("a"))).text
        assert await self.last_use(keys, ann) == (None, None)
        await keys.recognise(text, HERE)
        assert await self.last_use(keys, ann) == (NOON, HERE)
        clock.now = NOON + timedelta(seconds=59)
        await keys.recognise(text, "192.0.2.8")
        assert await self.last_use(keys, ann) == (NOON, HERE)
        clock.now = NOON + timedelta(seconds=60)
        await keys.recognise(text, "192.0.2.9")
        assert await self.last_use(keys, ann) == (clock.now, "192.0.2.9")

    @on_one
    async def test_is_noted_by_itself_and_off_the_path(
        self, keys: ApiKeys, ann: Account, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keys_module, "GATHER_SECONDS", 0.05)
        text = (await keys.create(ann.account_id, KeyTerms("a"))).text
        await asyncio.gather(*(keys.recognise(text, HERE) for _ in range(20)))
        async with asyncio.timeout(5):
            while (await keys.list(ann.account_id))[0].key.last_used_at is None:  # noqa: ASYNC110 - a row
                await asyncio.sleep(0.02)

    @on_one
    async def test_is_not_noted_for_what_is_refused(self, keys: ApiKeys, ann: Account) -> None:
        terms = KeyTerms("a", addresses=networks_of(["192.0.2.0/28"]))
        text = (await keys.create(ann.account_id, terms)).text
        with pytest.raises(NotAllowed):
            await keys.recognise(text, "198.51.100.1")
        assert await self.last_use(keys, ann) == (None, None)

    async def test_of_other_nodes_counts(self, keys: ApiKeys, ann: Account, database: Database, clock: Clock) -> None:
        text = (await keys.create(ann.account_id, KeyTerms("a"))).text
        there = ApiKeys(database, clock=clock)
        await asyncio.gather(keys.recognise(text, HERE), there.recognise(text, "192.0.2.8"))
        await keys.close()
        await there.close()
        assert await self.last_use(keys, ann) == (NOON, HERE)
