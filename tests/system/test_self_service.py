"""``/v1/account`` over HTTP: the profile, keys, the end of an account, and who may do what."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from aiproject.accounts.principal.permissions import NEEDS, Action, Requirement
from aiproject.accounts.principal.principal import Credential
from aiproject.adapters.db.schema import (
    api_key,
    browser_session,
    ledger_entry,
    mail_token,
    metadata,
    stored_answer,
    user,
)
from aiproject.ledger.verify import verify
from system import wire
from system.browser import Browser
from system.harness import PASSWORD, LocalServer, Person, eventually, open_account, question

Send = Callable[[str, str, object], Awaitable[wire.Answer]]


async def request(
    person: Person, method: str, path: str, body: object = None, headers: list[wire.Header] | None = None
) -> wire.Answer:
    """A request with the documented pair, or with other headers."""
    sent = [*(person.headers if headers is None else headers), ("Content-Type", "application/json")]
    return await wire.request(person.port, method, path, sent, None if body is None else json.dumps(body).encode())


async def new_key(person: Person, **fields: object) -> dict[str, Any]:
    answer = await request(person, "POST", "/v1/account/keys", {"name": "a key", "password": PASSWORD, **fields})
    assert answer.status == 201, answer.body
    found = answer.json()
    assert isinstance(found, dict)
    return found


@pytest.fixture
async def person(server: LocalServer) -> Person:
    return await server.person()


@pytest.fixture
async def browser(person: Person) -> Browser:
    browser = Browser(person.port)
    await browser.sign_in(person)
    return browser


# -- who may do what ---------------------------------------------------------------------------------------------------

ROUTES: list[tuple[str, str, Action, dict[str, Any]]] = [
    ("GET", "/v1/account", Action.READ, {}),
    ("GET", "/v1/account/sessions", Action.READ, {}),
    ("GET", "/v1/account/keys", Action.READ, {}),
    ("GET", "/v1/account/keys/{key}", Action.READ, {}),
    ("PATCH", "/v1/account", Action.EDIT, {"academy": "文院"}),
    ("PATCH", "/v1/account", Action.CHANGE_EMAIL, {"email": "new@example.com"}),
    ("POST", "/v1/account/email/verification", Action.VERIFY_EMAIL, {}),
    ("POST", "/v1/account/password", Action.CHANGE_PASSWORD, {"new_password": PASSWORD}),
    ("POST", "/v1/account/uuid", Action.ROTATE_UUID, {}),
    ("DELETE", "/v1/account", Action.DELETE, {}),
    ("GET", "/v1/account/session", Action.USE_SESSION, {}),
    ("DELETE", "/v1/account/session", Action.USE_SESSION, {}),
    ("DELETE", "/v1/account/sessions", Action.END_SESSIONS, {}),
    ("DELETE", "/v1/account/sessions/{session}", Action.END_SESSIONS, {}),
    ("POST", "/v1/account/keys", Action.CREATE_KEY, {"name": "another"}),
    ("PATCH", "/v1/account/keys/{key}", Action.EDIT_KEY, {"name": "renamed"}),
    ("DELETE", "/v1/account/keys/{key}", Action.REVOKE_KEY, {}),
]


EACH_ROUTE = pytest.mark.parametrize(
    ("method", "path", "act", "body"), ROUTES, ids=[f"{each[0]} {each[2].name}" for each in ROUTES]
)


def test_every_act_has_a_route_and_every_credential_a_need() -> None:
    assert {act for _, _, act, _ in ROUTES} == set(Action)
    assert set(NEEDS) == {(act, credential) for act in Action for credential in Credential}


@EACH_ROUTE
async def test_who_may_do_what(server: LocalServer, method: str, path: str, act: Action, body: dict[str, Any]) -> None:
    """Each route with each credential: refused, let through with the password only, or let through."""
    password = "current_password" if act is Action.CHANGE_PASSWORD else "password"
    # Without a mail server a letter that may be sent is one that cannot.
    done = (404,) if act is Action.VERIFY_EMAIL else (200, 201)
    for credential in (Credential.API_KEY, Credential.UUID, Credential.SESSION):
        send, address = await _holder(server, credential, path)
        need = NEEDS[act, credential]
        if need is Requirement.NOTHING:
            assert (await send(method, address, body or None)).status in done, credential
            continue
        wrong = await send(method, address, {**body, password: "not the password"})
        without = await send(method, address, body or None)
        assert (wrong.status, without.status) == (401 if need is Requirement.REAUTHENTICATION else 403, 403), credential
        right = await send(method, address, {**body, password: PASSWORD})
        assert right.status in (done if need is Requirement.REAUTHENTICATION else (403,)), (credential, right.body)


async def _holder(server: LocalServer, credential: Credential, path: str) -> tuple[Send, str]:
    """Somebody new who shows this credential, and the address of one of their things."""
    person = await server.person()
    key = await new_key(person)
    browser = Browser(person.port)
    session = (await browser.sign_in(person))["session"]["id"]
    headers: dict[Credential, list[wire.Header]] = {
        Credential.API_KEY: [("Authorization", f"Bearer {key['secret']}")],
        Credential.UUID: person.headers,
    }

    async def send(method: str, address: str, body: object) -> wire.Answer:
        if credential is Credential.SESSION:
            return await browser.send(method, address, body)
        return await request(person, method, address, body, headers[credential])

    return send, path.format(key=key["key"]["id"], session=session)


@EACH_ROUTE
async def test_nobody_is_nobody(
    server: LocalServer, person: Person, method: str, path: str, act: Action, body: dict[str, Any]
) -> None:
    other = await server.person()
    stale: list[wire.Header] = [("Cookie", "aiproject_session=" + "A" * 43), ("Origin", "http://127.0.0.1")]
    shown: list[list[wire.Header]] = [
        [],
        [("uuid", other.uuid), ("username", person.username)],
        [("Authorization", "Bearer sk-nonsense")],
        [("Authorization", f"Bearer {person.uuid}")],
        stale,
    ]
    address = path.format(key="x", session="x")
    for headers in shown:
        answer = await request(person, method, address, {**body, "password": PASSWORD}, headers)
        assert answer.status == (403 if headers is stale and method != "GET" else 401), (headers, answer.body)


# -- the profile -------------------------------------------------------------------------------------------------------


class TestProfile:
    async def test_what_it_tells(self, person: Person) -> None:
        answer = await request(person, "GET", "/v1/account")
        body = answer.json()
        assert body.pop("opened_at").endswith("Z")
        assert body == {
            "code": 0,
            "msg": "查询成功",
            "username": person.username,
            "email": f"{len(person.username)}@example.com",
            "email_verified": False,
            "academy": None,
            "balances": {"tokens": 1_000_000, "pic_times": 1000, "voice_ms": None},
        }
        assert person.uuid not in answer.body.decode()
        assert answer.header("cache-control") == "no-store"

    async def test_changes(self, server: LocalServer, browser: Browser, person: Person) -> None:
        async with server.database() as database, database.begin() as connection:
            now = sa.select(user.c.CreatedAt).where(user.c.Id == person.uuid).scalar_subquery()
            await connection.execute(sa.update(user).where(user.c.Id == person.uuid).values(EmailVerifiedAt=now))
        assert (await browser.send("GET", "/v1/account")).json()["email_verified"] is True
        found = (await browser.send("PATCH", "/v1/account", {"academy": " 理院 "})).json()
        assert (found["academy"], found["email_verified"]) == ("理院", True)
        body = {"email": "new@例子.cn", "password": PASSWORD, "academy": ""}
        found = (await browser.send("PATCH", "/v1/account", body)).json()
        assert (found["email"], found["email_verified"], found["academy"]) == ("new@例子.cn", False, None)

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"email": "no address"},
            {"email": "a@b.cn\r\nBcc: c@d.cn"},
            {"email": "a b@c.cn"},
            {"email": "a@b.cn, c@d.cn"},
            {"email": "小明@example.com"},
            {"email": "a" * 250 + "@b.cn"},
            {"email": 5},
            {"academy": "x" * 101},
            {"academy": "a\0b"},
            {"academy": ["x"]},
        ],
    )
    async def test_what_is_refused(self, browser: Browser, body: dict[str, Any]) -> None:
        answer = await browser.send("PATCH", "/v1/account", {**body, "password": PASSWORD})
        assert answer.status == 400
        assert answer.json()["code"] == "APP_QUERY_METHOD_ERROR"

    async def test_a_new_uuid(self, browser: Browser, person: Person) -> None:
        answer = await browser.send("POST", "/v1/account/uuid", {"password": PASSWORD})
        uuid = answer.json()["uuid"]
        assert uuid != person.uuid
        assert (await request(person, "GET", "/v1/account")).status == 401
        person.uuid = uuid
        assert (await request(person, "GET", "/v1/account")).status == 200
        assert (await browser.send("GET", "/v1/account")).status == 200, "a browser does not use the uuid"

    async def test_a_weak_password_is_refused(self, browser: Browser) -> None:
        for weak in ("short", "password123", "x" * 129, 5):
            body = {"current_password": PASSWORD, "new_password": weak}
            answer = await browser.send("POST", "/v1/account/password", body)
            assert answer.status == 400, weak
        assert (await browser.send("GET", "/v1/account")).status == 200

    async def test_other_methods_are_told_which_there_are(self, person: Person) -> None:
        answer = await request(person, "PUT", "/v1/account", {})
        assert answer.status == 405
        assert set((answer.header("allow") or "").split(", ")) == {"GET", "HEAD", "PATCH", "DELETE"}


# -- keys --------------------------------------------------------------------------------------------------------------


class TestKeys:
    async def test_a_key_s_life(self, browser: Browser, person: Person) -> None:
        body = {
            "name": "laptop",
            "password": PASSWORD,
            "expires_at": "2099-12-31T23:59:59+08:00",
            "requests_per_minute": 60,
            "capabilities": ["tokens"],
            "addresses": ["127.0.0.0/8"],
            "limits": {"tokens": {"total": 100_000, "daily": 10_000}},
        }
        answer = await browser.send("POST", "/v1/account/keys", body)
        assert answer.status == 201
        secret, key = answer.json()["secret"], answer.json()["key"]
        assert secret.startswith("sk-")
        assert key["expires_at"] == "2099-12-31T15:59:59.000Z"
        assert (key["capabilities"], key["addresses"], key["models"]) == (["tokens"], ["127.0.0.0/8"], None)
        nothing = {"spent": 0, "held": 0, "spent_today": 0}
        assert key["limits"]["tokens"] == {"total": 100_000, "daily": 10_000, **nothing}
        assert key["limits"]["voice_ms"] == {"total": None, "daily": None, **nothing}

        bearer: list[wire.Header] = [("Authorization", f"Bearer {secret}")]
        used = await request(person, "POST", "/textModel/chat", {"dialog": question("你好")}, bearer)
        consumed = used.json()["consume_token"]
        address = f"/v1/account/keys/{key['id']}"
        limit = (await browser.send("GET", address)).json()["key"]["limits"]["tokens"]
        assert (limit["spent"], limit["spent_today"], limit["held"]) == (consumed, consumed, 0)

        change = {"name": "desk", "requests_per_minute": None, "limits": {"tokens": {"total": 1}}, "password": PASSWORD}
        changed = (await browser.send("PATCH", address, change)).json()["key"]
        assert (changed["name"], changed["requests_per_minute"]) == ("desk", None)
        assert (changed["limits"]["tokens"]["total"], changed["limits"]["tokens"]["daily"]) == (1, None)
        assert changed["expires_at"] == key["expires_at"]

        listed = await browser.send("GET", "/v1/account/keys")
        assert [each["name"] for each in listed.json()["keys"]] == ["desk"]
        assert secret not in listed.body.decode()
        assert (await browser.send("DELETE", address)).status == 200
        refused = await request(person, "POST", "/textModel/chat", {"dialog": question("你好")}, bearer)
        assert refused.status == 401
        assert (await browser.send("GET", address)).json()["key"]["revoked_at"] is not None

    async def test_another_s_key_is_not_there(self, server: LocalServer, browser: Browser) -> None:
        other = await server.person()
        theirs = f"/v1/account/keys/{(await new_key(other))['key']['id']}"
        for method, body in (("GET", None), ("PATCH", {"name": "x", "password": PASSWORD}), ("DELETE", None)):
            answer = await browser.send(method, theirs, body)
            assert (answer.status, answer.json()["code"]) == (404, "ITEM_NOT_FOUND")
        assert (await request(other, "GET", theirs)).json()["key"]["revoked_at"] is None

    @pytest.mark.parametrize(
        "fields",
        [
            {"name": 5},
            {"name": ""},
            {"nmae": "x"},
            {"expires_at": "tomorrow"},
            {"expires_at": "2099-01-01T00:00:00"},
            {"expires_at": "2001-01-01T00:00:00Z"},
            {"expires_at": 5},
            {"requests_per_minute": "5"},
            {"requests_per_minute": True},
            {"requests_per_minute": 0},
            {"capabilities": "tokens"},
            {"capabilities": ["flying"]},
            {"capabilities": []},
            {"models": [5]},
            {"addresses": ["not an address"]},
            {"limits": []},
            {"limits": {"money": {}}},
            {"limits": {"tokens": 5}},
            {"limits": {"tokens": {"total": -1}}},
            {"limits": {"tokens": {"weekly": 1}}},
        ],
    )
    async def test_what_is_refused(self, person: Person, fields: dict[str, Any]) -> None:
        body = {"name": "a key", "password": PASSWORD, **fields}
        answer = await request(person, "POST", "/v1/account/keys", body)
        assert answer.status == 400, answer.body
        assert (await request(person, "GET", "/v1/account/keys")).json()["keys"] == []


# -- the end -----------------------------------------------------------------------------------------------------------


class TestDeletion:
    async def test_the_person_is_gone_and_the_books_stay(self, server: LocalServer) -> None:
        person = await open_account(server.port, "leaving one")
        browser = Browser(server.port)
        await browser.sign_in(person)
        await browser.send(
            "PATCH", "/v1/account", {"email": "leaving@example.com", "academy": "别院", "password": PASSWORD}
        )
        key = await new_key(person, name="key of leaving")
        idempotent: list[wire.Header] = [("Idempotency-Key", "k")]
        chat = json.dumps(person.call("机密问题")).encode()
        await wire.request(server.port, "POST", "/textModel/chat", idempotent, chat)
        async with server.database() as database, database.connect() as connection:
            query = sa.select(user.c.AccountId, user.c.PassWord).where(user.c.Id == person.uuid)
            account_id, password_hash = (await connection.execute(query)).one()

        answer = await browser.send("DELETE", "/v1/account", {"password": PASSWORD})
        assert answer.status == 200
        assert (answer.header("set-cookie") or "").startswith("aiproject_session=;")

        assert (await person.chat("你好")).json()["code"] == "USER_NOT_FOUND"
        bearer: list[wire.Header] = [("Authorization", f"Bearer {key['secret']}")]
        assert (await request(person, "GET", "/v1/usage", None, bearer)).status == 401
        login = await Browser(server.port).send(
            "POST", "/v1/sessions", {"username": "leaving one", "password": PASSWORD}
        )
        assert login.status == 401
        async with server.database() as database:
            assert [difference async for difference in verify(database)] == []
            async with database.connect() as connection:
                for table in (browser_session, mail_token, api_key):
                    rows = await connection.execute(sa.select(table).where(table.c.account_id == account_id))
                    assert rows.all() == [], table.name
                answers = sa.select(stored_answer).where(stored_answer.c.scope == f"account {account_id}")
                assert (await connection.execute(answers)).all() == []
                entries = sa.select(ledger_entry).where(ledger_entry.c.account_id == account_id)
                assert len((await connection.execute(entries)).all()) >= 3, "sign-up, and what was charged"
                everything = [
                    str(row) for table in metadata.tables.values() for row in await connection.execute(sa.select(table))
                ]
        words = ("leaving", "别院", person.uuid, password_hash, "机密问题")
        assert not [word for word in words for row in everything if word in row]

        again = await open_account(server.port, "leaving one")
        assert again.uuid != person.uuid
        assert (await request(again, "GET", "/v1/account/keys")).json()["keys"] == []

    async def test_calls_that_run_are_settled(self, start_server: Callable[..., LocalServer], platform: Any) -> None:
        server = start_server()
        person = await server.person()
        key = await new_key(person)
        platform.order("chat", "slow", seconds=0.2)
        bearer: list[wire.Header] = [("Authorization", f"Bearer {key['secret']}")]
        stream = asyncio.create_task(request(person, "POST", "/textModel/stream", {"dialog": question("你好")}, bearer))
        held = 0

        async def look() -> None:
            nonlocal held
            async with server.database() as database, database.connect() as connection:
                held = (await connection.execute(sa.select(sa.func.max(user.c.HeldTokens)))).scalar_one()

        for _ in range(100):
            await look()
            if held:
                break
            await asyncio.sleep(0.02)
        assert held
        assert (await request(person, "DELETE", "/v1/account", {"password": PASSWORD})).status == 200
        answer = await stream
        assert answer.frames()[-1]["payload"]["choices"]["status"] == 2, "the answer is whole"
        await look()
        assert held == 0
        await server.assert_books_add_up()
        async with server.database() as database, database.connect() as connection:
            (left,) = (await connection.execute(sa.select(api_key))).all()
        assert (left.name, left.revoked_at is None) == ("-", False), "a key whose call ran keeps its number only"
        await eventually(lambda: server.connection_count() == 0, "connections are closed")

    async def test_twice_at_once(self, person: Person) -> None:
        answers = await asyncio.gather(
            *(request(person, "DELETE", "/v1/account", {"password": PASSWORD}) for _ in range(2))
        )
        assert sorted(answer.status for answer in answers) == [200, 401]


# -- wrong bodies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "zh", "en"),
    [
        ("", {"academy": 5}, "academy 应为字符串", "academy must be a string"),
        ("", {"password": PASSWORD}, "缺少 email 或 academy", "email or academy is missing"),
        ("/keys", {"password": PASSWORD}, "缺少 name", "name is missing"),
        (
            "/keys",
            {"name": "a", "limits": {"tokens": {"daily": "many"}}},
            "limits.tokens.daily 应为整数",
            "limits.tokens.daily must be an integer",
        ),
        (
            "/keys",
            {"name": "a", "capabilities": ["dreams"]},
            "capabilities 只能是 tokens、pic_times、voice_seconds",
            "capabilities can only be tokens, pic_times, voice_seconds",
        ),
        ("/password", {"current_password": PASSWORD}, "缺少 new_password", "new_password is missing"),
    ],
)
async def test_the_wrong_field_is_named_in_the_reader_s_language(
    person: Person, path: str, body: dict[str, Any], zh: str, en: str
) -> None:
    method = "POST" if path else "PATCH"
    for language, words in (("zh-CN", zh), ("en", en)):
        headers = [*person.headers, ("Accept-Language", language)]
        answer = await request(person, method, f"/v1/account{path}", body, headers)
        assert (answer.status, answer.json()) == (400, {"code": "APP_QUERY_METHOD_ERROR", "msg": words})


async def test_a_stranger_learns_nothing_of_the_body(person: Person) -> None:
    """The credential is looked at before the body is."""
    answer = await request(person, "PATCH", "/v1/account", {"academy": 5}, [])
    assert answer.status == 401
