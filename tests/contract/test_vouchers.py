"""Redeeming over HTTP and under races, on real databases."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx
import pytest
import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.routing import Route

from aiproject.accounts.core.model import Account
from aiproject.accounts.core.service import Accounts
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import CommitInDoubt
from aiproject.adapters.db.schema import ledger_entry, user, voucher, voucher_redemption
from aiproject.adapters.http.rate_limiter import MemoryRateLimiter
from aiproject.adapters.passwords import PasswordService
from aiproject.errors import AiProjectError, InvalidInput, VoucherRedeemed, VoucherUnusable
from aiproject.ledger.verify import verify
from aiproject.vouchers.routes import VoucherRoutes
from aiproject.vouchers.service import Vouchers
from aiproject.web.middleware import with_middleware
from bookkeeping import open_account, reread

DONE = {"code": 0, "msg": "兑换令牌成功"}
NOT_FOUND = {"code": "TOKEN_NOT_FOUNDUSER_NOT_FOUND", "msg": "找不到对应的令牌或找不到对应的用户"}
ALREADY = {"code": "TOKEN_ALREADY_GET", "msg": "用户已兑换过该令牌"}
ELSE = {"code": "USER_GET_TOKEN_ERROR", "msg": "用户兑换令牌错误"}


@pytest.fixture
def vouchers(database: Database) -> Vouchers:
    return Vouchers(database)


class CountingVouchers(Vouchers):
    """Counts the codes that were looked up."""

    looks = 0

    async def check(self, account: Account, code: str, *, claimed_academy: str = "") -> None:
        self.looks += 1
        await super().check(account, code, claimed_academy=claimed_academy)


class App:
    """The endpoint, called as the desktop app calls it."""

    def __init__(self, database: Database, vouchers: Vouchers, *, limits: bool) -> None:
        accounts = Accounts(database, cast("PasswordService", None), cast("Any", None))
        routes = VoucherRoutes(accounts, vouchers, MemoryRateLimiter(lambda: 600.0) if limits else None)
        app = Starlette(routes=[Route("/user/get_token", routes.redeem, methods=["POST"])])
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=cast("Any", with_middleware(app, ["*"]))), base_url="http://app"
        )

    async def post(self, body: object) -> httpx.Response:
        return await self.client.post("/user/get_token", content=json.dumps(body))

    async def redeem(self, account: Account, code: str, academy: str = "") -> dict[str, Any]:
        answer = await self.post({"token_id": code, "user_id": account.uuid, "user_academy": academy})
        assert answer.status_code == 200
        found = answer.json()
        assert isinstance(found, dict)
        return found


@pytest.fixture
async def app(database: Database, vouchers: Vouchers) -> AsyncIterator[App]:
    app = App(database, vouchers, limits=False)
    async with app.client:
        yield app


async def uses(database: Database, code: str) -> tuple[int, int]:
    """What the voucher counts, and redemptions."""
    async with database.connect() as connection:
        counted = await connection.scalar(sa.select(voucher.c.uses).where(voucher.c.code == code))
        noted = await connection.scalar(
            sa.select(sa.func.count()).select_from(voucher_redemption).where(voucher_redemption.c.code == code)
        )
    return int(counted or 0), int(noted or 0)


async def assert_books_add_up(database: Database) -> None:
    assert [str(difference) async for difference in verify(database)] == []


class TestTheCall:
    async def test_adds_tokens_and_pictures_once(self, app: App, database: Database, vouchers: Vouchers) -> None:
        ann = await open_account(database, "ann", tokens=5)
        (made,) = await vouchers.add(code="spring", tokens=100, pic_times=3)
        assert await app.redeem(ann, " Spring ") == DONE
        assert await app.redeem(ann, "SPRING") == ALREADY
        after = await reread(database, "ann")
        assert (after.tokens, after.pic_times) == (105, 3)
        assert await uses(database, "SPRING") == (1, 1)
        async with database.connect() as connection:
            rows = await connection.execute(
                sa.select(ledger_entry.c.kind, ledger_entry.c.request_id, ledger_entry.c.amount)
                .where(ledger_entry.c.seq > 1)
                .order_by(ledger_entry.c.seq)
            )
            assert [tuple(row) for row in rows] == [
                ("voucher", f"voucher:{made.voucher_id}", 100),
                ("voucher", f"voucher:{made.voucher_id}", 3),
            ]
        await assert_books_add_up(database)

    async def test_the_code_is_redeemed_and_the_name_is_not(
        self, app: App, database: Database, vouchers: Vouchers
    ) -> None:
        ann = await open_account(database, "ann", tokens=5)
        (made,) = await vouchers.add(name="Spring term", tokens=100)
        assert len(made.code) == 19
        for text in ("Spring term", "SPRING-TERM", str(made.voucher_id), f"#{made.voucher_id}"):
            assert await app.redeem(ann, text) == NOT_FOUND, text
        assert await app.redeem(ann, made.code.lower()) == DONE

    async def test_a_voucher_of_an_earlier_release_beside_this_one(
        self, app: App, database: Database, vouchers: Vouchers
    ) -> None:
        """It has neither name nor number, and its redemptions stand in the books under its code."""
        ann, bob = await open_account(database, "ann"), await open_account(database, "bob")
        await vouchers.add(code="spring", tokens=100)
        async with database.begin() as connection:
            await connection.execute(sa.update(voucher).values(voucher_id=None, name=None, name_key=None))
        assert await app.redeem(ann, "spring") == DONE
        await vouchers.set_available("spring", False)
        assert await app.redeem(bob, "spring") == NOT_FOUND
        async with database.connect() as connection:
            statement = sa.select(ledger_entry.c.request_id).where(ledger_entry.c.kind == "voucher")
            assert list(await connection.scalars(statement)) == ["voucher:SPRING"]
        await assert_books_add_up(database)

    async def test_a_wrong_academy_does_not_burn_the_code(
        self, app: App, database: Database, vouchers: Vouchers
    ) -> None:
        poet = await open_account(database, "poet", academy="文学院")
        unknown = await open_account(database, "unknown")
        await vouchers.add(code="cs", tokens=100, audience="计算机学院", max_uses=1)
        assert await app.redeem(poet, "cs", "计算机学院") == NOT_FOUND
        assert await app.redeem(unknown, "cs", "文学院") == NOT_FOUND
        assert await uses(database, "CS") == (0, 0)
        assert await app.redeem(unknown, "cs", "计算机学院") == DONE

    async def test_codes_that_nobody_can_use(self, app: App, database: Database, vouchers: Vouchers) -> None:
        ann = await open_account(database, "ann")
        await vouchers.add(code="off", tokens=1)
        await vouchers.set_available("off", False)
        soon = Vouchers(database, clock=lambda: datetime.now(UTC) - timedelta(hours=1))
        await soon.add(code="late", tokens=1, expires_at=datetime.now(UTC) - timedelta(minutes=1))
        for code in ("off", "late", "none such", "", "a\0b", "x" * 2000, "\ud800"):
            assert await app.redeem(ann, code) == NOT_FOUND, code
        await vouchers.set_available("OFF", True)
        assert await app.redeem(ann, "off") == DONE

    async def test_callers_that_are_nobody(self, app: App, database: Database, vouchers: Vouchers) -> None:
        ann = await open_account(database, "ann")
        await vouchers.add(code="spring", tokens=100)
        async with database.begin() as connection:
            await connection.execute(sa.update(user).values(DisabledAt=datetime.now(UTC)))
        for uuid in (ann.uuid, ann.uuid.upper(), "", "0" * 32, "\0", "\ud800", "x" * 500):
            answer = await app.post({"token_id": "spring", "user_id": uuid, "user_academy": ""})
            assert (answer.status_code, answer.json()) == (200, ELSE), uuid
        assert await uses(database, "SPRING") == (0, 0)

    async def test_bodies_that_are_none(self, app: App, database: Database) -> None:
        ann = await open_account(database, "ann")
        bodies: list[Any] = [
            [],
            {},
            {"token_id": "x"},
            {"user_id": ann.uuid},
            {"token_id": 7, "user_id": ann.uuid},
            {"token_id": "x", "user_id": ann.uuid, "user_academy": 7},
        ]
        for body in bodies:
            answer = await app.post(body)
            assert (answer.status_code, answer.json()) == (200, ELSE), body
        answer = await app.client.post("/user/get_token", content=b"{")
        assert answer.json() == ELSE

    async def test_the_uuid_is_compared_to_the_letter(self, app: App, database: Database, vouchers: Vouchers) -> None:
        ann = await open_account(database, "ann")
        async with database.begin() as connection:
            await connection.execute(sa.update(user).values(Id="abcdef"))
        await vouchers.add(code="spring", tokens=100)
        assert (await app.post({"token_id": "spring", "user_id": "ABCDEF"})).json() == ELSE
        assert (await app.post({"token_id": "spring", "user_id": "abcdef"})).json() == DONE
        assert (await reread(database, ann.username)).tokens == 100


class TestLimits:
    async def test_guessing_is_stopped(self, database: Database, vouchers: Vouchers) -> None:
        ann, bob = await open_account(database, "ann"), await open_account(database, "bob")
        await vouchers.add(code="spring", tokens=1)
        app = App(database, vouchers, limits=True)
        async with app.client:
            codes = [
                (await app.post({"token_id": f"guess{number}", "user_id": ann.uuid})).json()["code"]
                for number in range(22)
            ]
            assert codes == ["TOKEN_NOT_FOUNDUSER_NOT_FOUND"] * 20 + ["TOO_MANY_REQUESTS"] * 2
            # Others at the same address still redeem, until they, too, have guessed too often.
            assert await app.redeem(bob, "spring") == DONE
            for _ in range(40):
                await app.post({"token_id": "x", "user_id": secrets.token_hex(16)})
            refused = await app.post({"token_id": "spring", "user_id": bob.uuid})
        assert (refused.status_code, refused.json()["code"]) == (200, "TOO_MANY_REQUESTS")
        assert int(refused.headers["Retry-After"]) > 0

    async def test_guesses_at_the_same_moment_find_each_other(self, database: Database) -> None:
        ann = await open_account(database, "ann")
        vouchers = CountingVouchers(database)
        app = App(database, vouchers, limits=True)
        async with app.client:
            guesses = ({"token_id": f"GUESS-{number}", "user_id": ann.uuid} for number in range(400))
            answers = await asyncio.gather(*map(app.post, guesses))
        assert vouchers.looks == 20
        codes = Counter(answer.json()["code"] for answer in answers)
        assert codes == {"TOKEN_NOT_FOUNDUSER_NOT_FOUND": 20, "TOO_MANY_REQUESTS": 380}

    async def test_a_class_redeems_at_the_same_moment(self, database: Database, vouchers: Vouchers) -> None:
        """More than may fail in a minute, from one address: what is right is given back, and waited for."""
        await vouchers.add(code="spring", tokens=100)
        people = [await open_account(database, f"student {number}") for number in range(75)]
        app = App(database, vouchers, limits=True)
        async with app.client:
            assert await asyncio.gather(*(app.redeem(each, "spring") for each in people)) == [DONE] * 75

    async def test_what_was_redeemed_is_no_guess(self, database: Database, vouchers: Vouchers) -> None:
        ann = await open_account(database, "ann")
        await vouchers.add(code="spring", tokens=100, max_uses=1)
        app = App(database, vouchers, limits=True)
        async with app.client:
            assert await app.redeem(ann, "spring") == DONE
            for _ in range(25):
                assert await app.redeem(ann, "spring") == ALREADY


class TestRaces:
    async def test_one_account_calls_many_times_at_once(self, database: Database, vouchers: Vouchers) -> None:
        ann = await open_account(database, "ann")
        await vouchers.add(code="spring", tokens=100, max_uses=5)
        outcomes = await gather(vouchers.redeem(ann, "spring") for _ in range(12))
        assert sorted(outcomes) == ["done"] + ["redeemed"] * 11
        assert (await reread(database, "ann")).tokens == 100
        assert await uses(database, "SPRING") == (1, 1)
        await assert_books_add_up(database)

    async def test_the_last_use_of_one_account_calling_twice(self, database: Database, vouchers: Vouchers) -> None:
        ann = await open_account(database, "ann")
        await vouchers.add(code="spring", tokens=100, max_uses=1)
        assert sorted(await gather(vouchers.redeem(ann, "spring") for _ in range(4))) == ["done"] + ["redeemed"] * 3

    async def test_more_accounts_than_uses(self, database: Database, database_url: str) -> None:
        """Two nodes, and money moving on the same accounts meanwhile."""
        accounts = [await open_account(database, f"person {number}") for number in range(12)]
        other = await Database.open(database_url)
        try:
            nodes = [Vouchers(database), Vouchers(other)]
            await nodes[0].add(code="few", tokens=100, pic_times=1, max_uses=5)
            await nodes[0].add(code="all", tokens=1)
            outcomes = await gather(
                nodes[number % 2].redeem(account, code)
                for number, account in enumerate(accounts)
                for code in ("few", "all")
            )
        finally:
            await other.close()
        assert sorted(outcomes) == ["done"] * 17 + ["unusable"] * 7
        assert await uses(database, "FEW") == (5, 5)
        assert await uses(database, "ALL") == (12, 12)
        after = [await reread(database, account.username) for account in accounts]
        assert sorted(account.tokens for account in after) == [1] * 7 + [101] * 5
        await assert_books_add_up(database)

    async def test_a_commit_in_doubt_is_looked_for(
        self, database: Database, vouchers: Vouchers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The connection is lost behind the commit: the account has its tokens, and hears so."""
        ann = await open_account(database, "ann")
        await vouchers.add(code="spring", tokens=100)
        monkeypatch.setattr("aiproject.vouchers.service.LOOK_PAUSE", 0)
        real = vouchers._redeem_once
        calls = 0

        async def lose_the_connection(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            result = await real(*arguments)
            if calls == 1:
                raise CommitInDoubt("connection lost while committing")
            return result

        monkeypatch.setattr(vouchers, "_redeem_once", lose_the_connection)
        await vouchers.redeem(ann, "spring")
        assert calls == 2
        assert (await reread(database, "ann")).tokens == 100
        assert await uses(database, "SPRING") == (1, 1)
        with pytest.raises(VoucherRedeemed):
            await vouchers.redeem(ann, "spring")


async def gather(calls: Any) -> list[str]:
    async def outcome(call: Any) -> str:
        try:
            await call
        except VoucherRedeemed:
            return "redeemed"
        except VoucherUnusable:
            return "unusable"
        except AiProjectError as error:
            return type(error).__name__
        return "done"

    return list(await asyncio.gather(*(outcome(call) for call in calls)))


class TestMaking:
    async def test_many_are_made_at_once_and_listed(self, vouchers: Vouchers) -> None:
        made = await vouchers.add(count=600, tokens=5, audience="文学院", max_uses=1)
        await vouchers.add(code="a-first", pic_times=1)
        listed = [voucher async for voucher in vouchers.all()]
        assert len(listed) == 601
        assert [voucher.code for voucher in listed] == sorted(voucher.code for voucher in listed)
        assert {voucher.code for voucher in made} < {voucher.code for voucher in listed}
        assert next(voucher for voucher in listed if voucher.code == made[0].code) == made[0]

    async def test_a_code_is_there_once(self, vouchers: Vouchers) -> None:
        await vouchers.add(code="spring", tokens=5)
        with pytest.raises(InvalidInput, match="VOUCHER_CODE_TAKEN"):
            await vouchers.add(code=" SPRING", tokens=6)
        with pytest.raises(InvalidInput):
            await vouchers.add(code="summer", count=2, tokens=6)
        with pytest.raises(VoucherUnusable):
            await vouchers.set_available("autumn", False)
