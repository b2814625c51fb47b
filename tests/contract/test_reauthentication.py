"""Actions that need their owner again: by the password, and by ways that are added without touching the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, cast

import httpx
import pytest
from argon2.profiles import CHEAPEST
from starlette.applications import Starlette

from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.model import Account
from aiproject.accounts.core.profiles import Profiles
from aiproject.accounts.core.service import Accounts
from aiproject.accounts.identity.authenticator import Authenticator
from aiproject.accounts.identity.authorizer import Authorizer
from aiproject.accounts.identity.reauthentication import Evidence, PasswordReauthentication, Reauthentication
from aiproject.accounts.routes.account import AccountRoutes
from aiproject.accounts.routes.sessions import SessionRoutes
from aiproject.accounts.selfservice.deletion import AccountDeletion
from aiproject.accounts.sessions.cookies import BrowserRules
from aiproject.accounts.sessions.service import Sessions
from aiproject.adapters.db.engine import Database
from aiproject.adapters.passwords import PasswordHasher, PasswordService
from aiproject.errors import LoginFailed, NotAllowed
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.web.middleware import with_middleware

PASSWORD = "correct horse battery"
ANOTHER = "another long passphrase"


class CodeInHeader:
    """A second way, as an authenticator's code would be: in a header of its own."""

    async def confirm(self, evidence: Evidence) -> bool:
        code = evidence.request.headers.get("x-test-code")
        if code is None:
            return False
        if code != str(evidence.principal.account.account_id)[-6:]:
            raise LoginFailed
        return True

    def missing(self, field: str) -> NotAllowed:
        raise AssertionError("only the first way says what is missing")


class App:
    """The endpoints of an account, with some ways of reauthentication."""

    def __init__(self, accounts: Accounts, database: Database, account: Account, *more: Reauthentication) -> None:
        self.account = account
        self.accounts = accounts
        sessions = Sessions(database, idle=3600, lifetime=86_400)
        access = Authorizer(
            Authenticator(accounts, ApiKeys(database)), [PasswordReauthentication(accounts), *more]
        )  # fmt: skip
        browsers = SessionRoutes(accounts, sessions, BrowserRules(None, 86_400), access)
        routes = AccountRoutes(accounts, Profiles(database), AccountDeletion(database), sessions, browsers, access)
        app = with_middleware(Starlette(routes=routes.routes()), ["*"])
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app=cast("Any", app)), base_url="http://app")

    async def ask(self, method: str, path: str, body: object, **headers: str) -> httpx.Response:
        credentials = {"uuid": self.account.uuid, "username": self.account.username}
        return await self._client.request(method, path, json=body, headers=credentials | headers)

    @property
    def code(self) -> str:
        return str(self.account.account_id)[-6:]


@pytest.fixture
async def accounts(database: Database) -> AsyncIterator[Accounts]:
    passwords = PasswordService(PasswordHasher(CHEAPEST))
    opening = partial(Quotas(database, LeaseTimes(30)).grant_opening, tokens=10, pic_times=1, voice_ms=None)
    yield Accounts(database, passwords, opening)
    await passwords.close()


@pytest.fixture
async def account(accounts: Accounts) -> Account:
    return await accounts.register("ming", PASSWORD, "ming@example.com")


@pytest.fixture
def app(accounts: Accounts, database: Database, account: Account) -> App:
    """With the password alone, as in production."""
    return App(accounts, database, account)


@pytest.fixture
def wider_app(accounts: Accounts, database: Database, account: Account) -> App:
    return App(accounts, database, account, CodeInHeader())


async def test_the_password_is_asked_for_checked_and_accepted(app: App) -> None:
    missing = await app.ask("PATCH", "/v1/account", {"email": "new@example.com"})
    assert (missing.status_code, missing.json()["msg"]) == (403, "此操作需要在 password 字段中提供账号密码")
    wrong = await app.ask("PATCH", "/v1/account", {"email": "new@example.com", "password": "wrong horse"})
    assert (wrong.status_code, wrong.json()["msg"]) == (401, "密码不正确")
    right = await app.ask("PATCH", "/v1/account", {"email": "new@example.com", "password": PASSWORD})
    assert (right.status_code, right.json()["email"]) == (200, "new@example.com")


async def test_a_header_is_no_evidence_where_nothing_reads_it(app: App) -> None:
    refused = await app.ask("POST", "/v1/account/uuid", {}, **{"x-test-code": app.code})
    assert refused.status_code == 403


async def test_the_current_password_is_asked_for_by_its_own_field(app: App) -> None:
    missing = await app.ask("POST", "/v1/account/password", {"new_password": ANOTHER})
    assert (missing.status_code, missing.json()["msg"]) == (403, "此操作需要在 current_password 字段中提供账号密码")
    wrong = await app.ask(
        "POST", "/v1/account/password", {"new_password": ANOTHER, "current_password": "wrong horse"}
    )  # fmt: skip
    assert (wrong.status_code, wrong.json()["msg"]) == (401, "当前密码不正确")
    assert await app.accounts.login("ming", PASSWORD)


async def test_a_second_way_is_as_good_as_the_password(wider_app: App) -> None:
    """And the password stays one."""
    body = {"email": "new@example.com"}
    assert (await wider_app.ask("PATCH", "/v1/account", body)).status_code == 403
    assert (await wider_app.ask("PATCH", "/v1/account", body, **{"x-test-code": "wrong"})).status_code == 401
    assert (await wider_app.ask("PATCH", "/v1/account", body, **{"x-test-code": wider_app.code})).status_code == 200
    by_password = await wider_app.ask("PATCH", "/v1/account", {"email": "", "password": PASSWORD})
    assert (by_password.status_code, by_password.json()["email"]) == (200, "")


async def test_an_owner_without_the_password_can_set_one(wider_app: App) -> None:
    body = {"new_password": ANOTHER, "sign_out_everywhere": False}
    changed = await wider_app.ask("POST", "/v1/account/password", body, **{"x-test-code": wider_app.code})
    assert changed.status_code == 200
    assert (await wider_app.accounts.login("ming", ANOTHER)).account_id == wider_app.account.account_id
    with pytest.raises(LoginFailed):
        await wider_app.accounts.login("ming", PASSWORD)
