"""`/v1/usage`: an account's entries in pages, and the receipt of one call, on real databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import quote

import httpx
import jsonschema_rs
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.model import Account
from aiproject.accounts.core.service import Accounts
from aiproject.accounts.identity.authenticator import Authenticator
from aiproject.adapters.db.engine import Database
from aiproject.adapters.passwords import PasswordService
from aiproject.ledger.model import Meter, Outcome, Stage
from aiproject.ledger.receipts import Receipts
from aiproject.ledger.routes import UsageRoutes
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.web.middleware import with_middleware
from aiproject.web.openapi import describe
from bookkeeping import open_account
from described import resolved

SUCCESSES = {
    path: jsonschema_rs.validator_for(
        resolved(
            describe()["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["oneOf"][0]
        )
    )
    for path in ("/v1/usage", "/v1/usage/{request_id}")
}


class App:
    """The endpoints, called by an account's owner."""

    def __init__(self, database: Database) -> None:
        accounts = Accounts(database, cast("PasswordService", None), cast("Any", None))
        routes = UsageRoutes(Authenticator(accounts, ApiKeys(database)), Receipts(database))
        app = Starlette(
            routes=[Route("/v1/usage", routes.entries), Route("/v1/usage/{request_id}", routes.receipt)],
        )
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=cast("Any", with_middleware(app, ["*"]))), base_url="http://app"
        )

    async def get(self, account: Account, path: str = "", *, status: int = 200) -> dict[str, Any]:
        headers = {"uuid": account.uuid, "username": quote(account.username)}
        answer = await self.client.get(f"/v1/usage{path}", headers=headers)
        assert answer.status_code == status, answer.text
        found = answer.json()
        assert isinstance(found, dict)
        if found["code"] == 0:
            kind = "/v1/usage/{request_id}" if path.startswith("/") else "/v1/usage"
            assert list(map(str, SUCCESSES[kind].iter_errors(found))) == []
        return found


@pytest.fixture
async def app(database: Database) -> AsyncIterator[App]:
    app = App(database)
    async with app.client:
        yield app


@pytest.fixture
async def quotas(database: Database) -> AsyncIterator[Quotas]:
    async with Quotas.running(database, LeaseTimes(30)) as quotas:
        yield quotas


class TestEntries:
    async def test_come_newest_first_and_in_pages(self, app: App, database: Database, quotas: Quotas) -> None:
        ming = await open_account(database, "小明", tokens=1000, pic_times=3)
        await open_account(database, "other", tokens=7)
        for number in range(5):
            hold = await quotas.hold(ming, Meter.TOKENS, 50, request_id=f"call{number}", prompt=5)
            await quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=10 + number)
        first = await app.get(ming, "?limit=4")
        assert [(entry["seq"], entry["request_id"], entry["amount"]) for entry in first["entries"]] == [
            (7, "call4", -14),
            (6, "call3", -13),
            (5, "call2", -12),
            (4, "call1", -11),
        ]
        assert first["entries"][0] | {"time": "", "hash": ""} == {
            "seq": 7,
            "time": "",
            "kind": "charge",
            "capability": "tokens",
            "unit": "token",
            "amount": -14,
            "balance": 940,
            "request_id": "call4",
            "attempt": 1,
            "rule": {"rule": 2, "prompt": 5},
            "hash": "",
        }
        second = await app.get(ming, f"?limit=4&before={first['next']}")
        assert [entry["seq"] for entry in second["entries"]] == [3, 2, 1]
        assert second["next"] is None
        assert second["entries"][-1]["reference"] == "signup"
        assert [entry["seq"] for entry in (await app.get(ming))["entries"]] == [7, 6, 5, 4, 3, 2, 1]

    async def test_of_an_account_without_any(self, app: App, database: Database) -> None:
        assert await app.get(await open_account(database, "ann")) == {
            "code": 0,
            "msg": "查询成功",
            "entries": [],
            "next": None,
        }

    async def test_bad_questions_and_strangers(self, app: App, database: Database) -> None:
        ann = await open_account(database, "ann")
        for query in (
            "?limit=0",
            "?limit=101",
            "?limit=x",
            "?limit=",
            "?before=-1",
            "?before=" + "9" * 30,
            "?limit=１",
        ):
            assert (await app.get(ann, query))["code"] == "APP_QUERY_METHOD_ERROR", query
        answer = await app.client.get("/v1/usage", headers={"uuid": ann.uuid, "username": "bob"})
        assert (answer.status_code, answer.json()["code"]) == (200, "USER_NOT_FOUND")
        assert (await app.client.get("/v1/usage")).json()["code"] == "USER_NOT_FOUND"


class TestReceipts:
    async def test_explain_what_was_charged(self, app: App, database: Database, quotas: Quotas) -> None:
        ann = await open_account(database, "ann", tokens=100)
        hold = await quotas.hold(ann, Meter.TOKENS, 80, request_id="call", prompt=5)
        running = await app.get(ann, "/call")
        assert (running["attempts"][0]["state"], running["attempts"][0]["outcome"]) == ("open", None)
        await quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=90, sid="cht1")
        again = await quotas.hold(ann, Meter.TOKENS, 10, request_id="call", attempt=2)
        await quotas.settle(again, Outcome.UPSTREAM_FAILED, Stage.SENT)
        found = await app.get(ann, "/call")
        first, second = found["attempts"]
        assert found["request_id"] == "call"
        assert first | {"opened_at": "", "closed_at": "", "explanation": ""} == {
            "attempt": 1,
            "capability": "tokens",
            "unit": "token",
            "state": "captured",
            "stage": "last frame",
            "outcome": "finished",
            "held": 80,
            "reported": 90,
            "charged": 80,
            "lost": 10,
            "unpaid": 0,
            "refunded": 0,
            "explanation": "",
            "sid": "cht1",
            "rule": {"rule": 2, "prompt": 5},
            "opened_at": "",
            "closed_at": "",
        }
        assert first["opened_at"] <= first["closed_at"]
        assert "10 个 token，由运营方承担" in first["explanation"]["zh"]
        assert (second["charged"], second["outcome"], second["state"]) == (0, "upstream failed", "released")

    async def test_tell_what_was_given_back(self, app: App, database: Database, quotas: Quotas) -> None:
        ann = await open_account(database, "ann", tokens=100)
        for request_id in ("call", "other"):
            hold = await quotas.hold(ann, Meter.TOKENS, 40, request_id=request_id)
            await quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=30)
        await quotas.refund(ann, "call")
        (refunded,), (other,) = [(await app.get(ann, f"/{name}"))["attempts"] for name in ("call", "other")]
        assert (refunded["charged"], refunded["refunded"], other["refunded"]) == (30, 30, 0)
        assert refunded["explanation"]["zh"].endswith("之后已退还 30 个 token。")
        newest = (await app.get(ann, "?limit=1"))["entries"][0]
        assert (newest["kind"], newest["amount"], newest["balance"]) == ("refund", 30, 70)
        assert (newest["request_id"], newest["attempt"]) == ("call", 1)

    async def test_nobody_learns_of_another_s_calls(self, app: App, database: Database, quotas: Quotas) -> None:
        ann, bob = await open_account(database, "ann", tokens=100), await open_account(database, "bob")
        await quotas.hold(ann, Meter.TOKENS, 80, request_id="call")
        anothers = await app.get(bob, "/call", status=404)
        assert anothers == await app.get(bob, "/none", status=404)
        assert anothers == {"code": "RECEIPT_NOT_FOUND", "msg": "找不到该次调用的记录"}
        for path in ("/%00", "/%E4%BD%A0", "/" + "x" * 65, "/%FF"):
            assert await app.get(bob, path, status=404) == anothers
        assert (await app.client.get("/v1/usage/call")).json()["code"] == "USER_NOT_FOUND"


class TestAllEntries:
    async def test_come_oldest_first(self, database: Database, quotas: Quotas, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aiproject.ledger.receipts.PAGE", 3)
        ann = await open_account(database, "ann", tokens=1)
        await open_account(database, "bob", tokens=1)
        for number in range(2, 8):
            await quotas.grant(ann, tokens=number)
        found = [entry async for entry in Receipts(database).all(ann.account_id)]
        assert [(entry.seq, entry.amount) for entry in found] == [(number, number) for number in range(1, 8)]
