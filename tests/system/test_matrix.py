"""Who may call what: every route by every kind of caller, from a table; what is not listed is refused.

The routes are those of the description and of the running application; a route that stands in neither table fails
here, so that nobody adds one without saying who it is for. The table is written from the rules, not read from the code.
What a role needs beside its credential (a password, a CSRF token) is `system.test_self_service`'s and
`system.test_sessions`'; which acts of an administrator are his own, `system.test_admin_roles`'.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import pytest
from starlette.routing import Mount, Route

from aiproject.administration.model import Role as AdminRole
from aiproject.web.openapi import describe
from system import wire
from system.administrators import Console, sign_in
from system.browser import Browser
from system.harness import PASSWORD, LocalServer, Person, Platform, post_json, question, with_other_secret
from system.samples import jpeg, pcm


class Role(Enum):
    """A kind of caller."""

    NOBODY = "nobody"  # shows no credential
    STRANGER = "stranger"  # a uuid that does not exist
    MIXED = "mixed"  # one account's uuid with another's name
    DISABLED = "disabled"  # was an account, until the operator switched it off
    ACCOUNT = "account"  # its uuid and name
    API_KEY = "api key"  # of an account
    WRONG_KEY = "wrong key"  # the public prefix of a good one, with another secret
    DISABLED_KEY = "disabled key"  # a good one of the account that was switched off
    SESSION = "session"  # of a browser, on our own page, with the CSRF token
    UNPROVEN = "unproven"  # the same cookie without the token
    ENDED = "ended"  # a session that was signed out
    UUID_AS_BEARER = "uuid as bearer"
    OWNER = "owner"  # an administrator with the access token
    ADMIN = "admin"
    AUDITOR = "auditor"
    REFRESH = "refresh"  # an owner's refresh token
    REMOVED = "removed"  # an administrator who was deleted, with an access token


ANYBODY = frozenset(Role)
CHARGED = frozenset({Role.ACCOUNT, Role.API_KEY, Role.SESSION})
READERS = CHARGED | {Role.UNPROVEN}  # what changes nothing needs no proof
ACCOUNT = frozenset({Role.ACCOUNT, Role.SESSION})
ACCOUNT_READERS = ACCOUNT | {Role.UNPROVEN}
ADMINISTRATORS = frozenset({Role.OWNER, Role.ADMIN, Role.AUDITOR})
MANAGERS = frozenset({Role.OWNER, Role.ADMIN})
OWNERS = frozenset({Role.OWNER})
AUDITORS = frozenset({Role.OWNER, Role.AUDITOR})


@dataclass(frozen=True)
class Caller:
    """What one shows: in headers, and as ``uuid`` and ``username`` where a body has them."""

    headers: tuple[wire.Header, ...] = ()
    uuid: str = ""
    username: str = ""


@dataclass(frozen=True)
class Rule:
    """Who may call a route.

    Attributes:
        allowed: everybody else is refused.
        body: what is sent; ``None``: nothing. A dict is sent as JSON.
        media_type: of the body.
        uses_up: whether a call that is let in ends the credential that was shown, or another of the cast.
        query: behind the address.
    """

    allowed: frozenset[Role]
    body: Callable[[Caller], bytes] | dict[str, Any] | None = None
    media_type: str = "application/json"
    uses_up: bool = False
    query: str = ""


def _call(caller: Caller) -> bytes:
    named = {"uuid": caller.uuid, "username": caller.username} if caller.uuid or not caller.headers else {}
    return json.dumps({**named, "dialog": question("hi")}).encode()


def _redeem(caller: Caller) -> bytes:
    return json.dumps({"user_id": caller.uuid, "token_id": "none"}).encode()


def _sound(caller: Caller) -> bytes:
    return pcm(0.2)


def _picture(caller: Caller) -> bytes:
    return jpeg()


OCTETS = "application/octet-stream"
WITH_PASSWORD = {"password": PASSWORD}
DOCUMENTED: dict[tuple[str, str], Rule] = {
    ("POST", "/auth/register"): Rule(ANYBODY, {}),
    ("POST", "/auth/login"): Rule(ANYBODY, {}),
    ("POST", "/textModel/chat"): Rule(CHARGED, _call),
    ("POST", "/textModel/stream"): Rule(CHARGED, _call),
    ("POST", "/voiceModel/chat"): Rule(CHARGED, _sound, OCTETS),  # with AIPROJECT_VOICE_ANONYMOUS=false
    ("POST", "/PictureToTextModel/chat"): Rule(CHARGED, _picture, "image/jpeg"),
    # It takes no name: the uuid alone is the credential.
    ("POST", "/user/get_token"): Rule(frozenset({Role.ACCOUNT, Role.MIXED}), _redeem),
    ("GET", "/v1/usage"): Rule(READERS),
    ("GET", "/v1/usage/{request_id}"): Rule(READERS),
    ("GET", "/health"): Rule(ANYBODY),
    ("GET", "/ready"): Rule(ANYBODY),
}
SELF_SERVICE: dict[tuple[str, str], Rule] = {
    ("POST", "/v1/sessions"): Rule(ANYBODY, {}),
    ("POST", "/v1/email/verification"): Rule(ANYBODY, {}),
    ("POST", "/v1/password-reset"): Rule(ANYBODY, {}),
    ("POST", "/v1/password-reset/confirm"): Rule(ANYBODY, {}),
    ("GET", "/v1/account"): Rule(ACCOUNT_READERS),
    ("PATCH", "/v1/account"): Rule(ACCOUNT, {"academy": "文院", **WITH_PASSWORD}),
    ("DELETE", "/v1/account"): Rule(ACCOUNT, WITH_PASSWORD, uses_up=True),
    ("POST", "/v1/account/password"): Rule(
        ACCOUNT, {"current_password": PASSWORD, "new_password": PASSWORD}, uses_up=True
    ),
    ("POST", "/v1/account/uuid"): Rule(ACCOUNT, WITH_PASSWORD, uses_up=True),
    ("POST", "/v1/account/email/verification"): Rule(ACCOUNT, WITH_PASSWORD),
    ("GET", "/v1/account/session"): Rule(frozenset({Role.SESSION, Role.UNPROVEN})),
    ("DELETE", "/v1/account/session"): Rule(frozenset({Role.SESSION}), uses_up=True),
    ("GET", "/v1/account/sessions"): Rule(ACCOUNT_READERS),
    ("DELETE", "/v1/account/sessions"): Rule(ACCOUNT, WITH_PASSWORD, uses_up=True),
    ("DELETE", "/v1/account/sessions/{session_id}"): Rule(ACCOUNT, WITH_PASSWORD),
    ("GET", "/v1/account/keys"): Rule(ACCOUNT_READERS),
    ("POST", "/v1/account/keys"): Rule(ACCOUNT, {"name": "another", **WITH_PASSWORD}),
    ("GET", "/v1/account/keys/{key_id}"): Rule(ACCOUNT_READERS),
    ("PATCH", "/v1/account/keys/{key_id}"): Rule(ACCOUNT, {"name": "renamed", **WITH_PASSWORD}),
    ("DELETE", "/v1/account/keys/{key_id}"): Rule(ACCOUNT, WITH_PASSWORD),
}
ADMINISTRATION: dict[tuple[str, str], Rule] = {
    ("POST", "/admin/login"): Rule(ANYBODY, {}),
    ("POST", "/admin/setup"): Rule(ANYBODY, {}),
    ("GET", "/admin/refresh"): Rule(frozenset({Role.REFRESH})),
    ("POST", "/admin/logout"): Rule(ADMINISTRATORS, {}, uses_up=True),
    ("POST", "/admin/console_test"): Rule(MANAGERS, {}),
    ("POST", "/admin/add_normal_user"): Rule(MANAGERS, {}),
    ("POST", "/admin/modify_normal_user"): Rule(MANAGERS, {}),
    ("POST", "/admin/delete_normal_user"): Rule(MANAGERS, {}),
    ("POST", "/admin/add_admin"): Rule(OWNERS, {}),
    ("POST", "/admin/modify_admin"): Rule(ADMINISTRATORS, {}),  # for themselves only
    ("POST", "/admin/delete_admin"): Rule(OWNERS, {}),
    ("POST", "/admin/add_token"): Rule(MANAGERS, {}),
    ("POST", "/admin/modify_token"): Rule(MANAGERS, {}),
    ("POST", "/admin/delete_token"): Rule(OWNERS, {}),
    ("GET", "/admin/control_token"): Rule(MANAGERS),
    ("GET", "/admin/query_table"): Rule(ADMINISTRATORS, query="?table=user&query_range=9&start=0"),
    ("GET", "/admin/query_table_count"): Rule(ADMINISTRATORS, query="?table=user"),
    ("GET", "/admin/query_table_data"): Rule(ADMINISTRATORS, query="?table=user&target_name=owner"),
    ("GET", "/admin/audit"): Rule(AUDITORS),
    ("GET", "/admin/audit/export"): Rule(AUDITORS),
}
KEYS = frozenset({Role.API_KEY})
SDKS: dict[tuple[str, str], Rule] = {
    ("POST", "/v1/chat/completions"): Rule(KEYS, {"model": "spark", "messages": [{"role": "user", "content": "hi"}]}),
    ("GET", "/v1/models"): Rule(KEYS),
    ("GET", "/v1/models/{model}"): Rule(KEYS),
}
TABLE = {**DOCUMENTED, **SELF_SERVICE, **ADMINISTRATION, **SDKS}

PAGES = {"/docs", "/openapi.json", "/static-offline-docs", "/mail", "/mail.js"}
"""Open to anybody: the description and what shows it, and the page that a letter's link opens."""

REFUSALS = {"USER_NOT_FOUND", "USER_GET_TOKEN_ERROR", "NOT_SIGNED_IN", "PERMISSION_NOT_ALLOW"}


KEY_ID = "sk-0000000000"


def address_of(path: str) -> str:
    """The address of a route, with things that do not exist."""
    return (
        path.replace("{request_id}", "0" * 24)
        .replace("{session_id}", "0" * 16)
        .replace("{key_id}", KEY_ID)
        .replace("{model}", "spark")
    )


def described() -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, methods in describe()["paths"].items() for method in methods}


def mounted(server: LocalServer) -> tuple[set[tuple[str, str]], set[str]]:
    """Methods and addresses of the application's routes, and the addresses of its pages."""
    app = server.application
    while not hasattr(app, "router"):
        app = getattr(app, "app", None) or app._app
    routes, pages = set(), set()
    for route in app.router.routes:
        assert isinstance(route, Route | Mount), route
        if isinstance(route, Mount) or route.path.startswith(("/docs", "/openapi", "/mail")):
            pages.add(route.path)
        else:
            routes |= {(method, route.path) for method in set(route.methods or ()) - {"HEAD"}}
    return routes, pages


def test_every_route_stands_in_the_table_and_no_other(server: LocalServer) -> None:
    routes, pages = mounted(server)
    assert routes == set(TABLE)
    assert described() == set(TABLE)
    assert pages == PAGES


@dataclass
class Cast:
    """One caller of each role; ``others`` is an account with a key and a session of its own."""

    server: LocalServer
    callers: dict[Role, Caller] = field(default_factory=dict)
    accounts: int = 0

    async def raise_curtain(self) -> None:
        """Make everybody who does not change."""
        server = self.server
        disabled, other = await server.person("disabled"), await server.person("other")
        key = await new_key(disabled)
        async with server.accounts() as (accounts, _):
            await accounts.set_disabled("disabled", True)
        removed = await sign_in(server, "removed", AdminRole.ADMIN)
        self.callers = {
            Role.NOBODY: Caller(),
            Role.STRANGER: pair(Person(server.port, "nobody", "0" * 32)),
            Role.MIXED: pair(Person(server.port, "owner", other.uuid)),
            Role.DISABLED: pair(disabled),
            Role.DISABLED_KEY: bearer(key),
            Role.REMOVED: bearer(removed.access),
        }
        await self.renew_administrators()
        owner = Console(server.port, access=bearer_text(self.callers[Role.OWNER]))
        assert (await owner.post("delete_admin", {"target_admin": "removed"}))["code"] == 0
        await self.renew_account()

    async def renew_account(self) -> None:
        """A new account for all of the roles that one can have."""
        server = self.server
        self.accounts += 1
        person = await server.person(f"owner{self.accounts}")
        key = await new_key(person)
        browser, ended = Browser(server.port), Browser(server.port)
        await browser.sign_in(person)
        await ended.sign_in(person)
        host: wire.Header = ("Host", f"127.0.0.1:{server.port}")
        over = (("Cookie", ended.cookie), host, *ended.own, ("X-CSRF-Token", ended.csrf))
        assert (await ended.send("DELETE", "/v1/account/session")).status == 200
        cookie = (("Cookie", browser.cookie), host, *browser.own)
        self.callers |= {
            Role.ACCOUNT: pair(person),
            Role.API_KEY: bearer(key),
            Role.WRONG_KEY: bearer(with_other_secret(key)),
            Role.SESSION: Caller((*cookie, ("X-CSRF-Token", browser.csrf))),
            Role.UNPROVEN: Caller(cookie),
            Role.ENDED: Caller(over),
            Role.UUID_AS_BEARER: bearer(person.uuid),
        }

    async def renew_administrators(self) -> None:
        """A new session for each of the administrators."""
        self.accounts += 1
        for role in AdminRole:
            console = await sign_in(self.server, f"{role}{self.accounts}", role)
            self.callers[Role(str(role))] = bearer(console.access)
            if role is AdminRole.OWNER:
                self.callers[Role.REFRESH] = bearer(console.refresh)


def pair(person: Person) -> Caller:
    return Caller(tuple(person.headers), person.uuid, person.username)


def bearer(text: str) -> Caller:
    return Caller((("Authorization", f"Bearer {text}"),))


def bearer_text(caller: Caller) -> str:
    return str(caller.headers[0][1]).removeprefix("Bearer ")


async def new_key(person: Person, **fields: object) -> str:
    body = {"name": "a key", "password": PASSWORD, **fields}
    return str((await post_json(person.port, "/v1/account/keys", body, *person.headers)).json()["secret"])


@pytest.fixture(scope="module")
def cast(_platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    _platform.forget()
    server = LocalServer(_platform.address, tmp_path_factory.mktemp("matrix"), voice_anonymous=False).start()
    cast = Cast(server)
    try:
        server.run(cast.raise_curtain)
        yield cast
    finally:
        server.stop()


async def ask(server: LocalServer, method: str, path: str, rule: Rule, caller: Caller) -> wire.Answer:
    headers, body = [*caller.headers], None
    if rule.body is not None:
        body = json.dumps(rule.body).encode() if isinstance(rule.body, dict) else rule.body(caller)
        headers.append(("Content-Type", rule.media_type))
    return await wire.request(server.port, method, address_of(path) + rule.query, headers, body)


def is_refused(answer: wire.Answer) -> bool:
    """Whether the caller was not let in; what it asked for may be missing all the same."""
    if answer.chunks:
        return False
    body = json.loads(answer.body)
    if answer.status in (401, 403) or (answer.status == 422 and set(body) == {"msg"}):
        return True
    # A voucher that does not exist and an account that does not are told alike.
    return body.get("code") in REFUSALS


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)
async def test_each_caller_is_let_in_where_the_table_says_so_and_nowhere_else(cast: Cast, role: Role) -> None:
    wrong = []
    for (method, path), rule in TABLE.items():
        answer = await ask(cast.server, method, path, rule, cast.callers[role])
        assert answer.status < 500
        if is_refused(answer) == (role in rule.allowed):
            wrong.append(f"{method} {path}: {answer.status} {answer.body[:80]!r}")
        if rule.uses_up and role in rule.allowed:
            await (cast.renew_administrators() if role in ADMINISTRATORS else cast.renew_account())
    assert wrong == []


async def test_two_credentials_are_not_the_better_of_them(cast: Cast) -> None:
    """A Bearer says everything: a good pair or cookie beside a bad one helps nobody."""
    for shown in (Role.ACCOUNT, Role.SESSION):
        for bad in (Role.WRONG_KEY, Role.UUID_AS_BEARER, Role.OWNER):
            good = cast.callers[shown]
            caller = replace(good, headers=(*good.headers, *cast.callers[bad].headers))
            for address in (("POST", "/textModel/chat"), ("GET", "/v1/usage"), ("GET", "/v1/account")):
                assert is_refused(await ask(cast.server, *address, TABLE[address], caller)), (shown, bad, address)


async def test_other_methods_are_refused(server: LocalServer) -> None:
    addresses = {path for _, path in TABLE}
    for path in addresses:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"):
            if (method, path) not in TABLE:
                answer = await wire.request(server.port, method, address_of(path))
                assert answer.status == 405, (method, path)
                told = json.loads(answer.body)
                assert told.get("code") == "METHOD_NOT_ALLOWED" or told["error"]["code"] == "invalid_request"


async def test_one_account_neither_reads_nor_spends_anothers(server: LocalServer) -> None:
    owner, other = await server.person(), await server.person()
    call = str((await owner.chat("hi")).header("x-request-id"))
    key = await new_key(owner, capabilities=["pic_times"])
    key_id = key[:13]
    browser, thief = Browser(server.port), Browser(server.port)
    session = (await browser.sign_in(owner))["session"]["id"]
    await thief.sign_in(other)
    before = await owner.tokens(), await owner.pictures()
    things = (f"/v1/usage/{call}", f"/v1/account/keys/{key_id}")

    async def as_thief(caller: Caller, method: str, path: str, body: object = None) -> wire.Answer:
        data = None if body is None else json.dumps(body).encode()
        return await wire.request(server.port, method, path, [*caller.headers], data)

    thief_cookie = (("Host", f"127.0.0.1:{server.port}"), *thief.own, ("X-CSRF-Token", thief.csrf))
    thieves = (pair(other), Caller((*thief_cookie, ("Cookie", thief.cookie))))
    for path in things:
        assert (await as_thief(pair(owner), "GET", path)).status == 200, path
        for caller in thieves:
            assert (await as_thief(caller, "GET", path)).status == 404, path
    for caller in (*thieves, bearer(await new_key(other))):
        entries = await as_thief(caller, "GET", "/v1/usage")
        assert entries.status == 200
        assert call not in entries.body.decode()
    for caller in thieves:
        for method, path, body in (
            ("PATCH", f"/v1/account/keys/{key_id}", {"name": "mine", **WITH_PASSWORD}),
            ("DELETE", f"/v1/account/keys/{key_id}", WITH_PASSWORD),
            ("DELETE", f"/v1/account/sessions/{session}", WITH_PASSWORD),
        ):
            assert (await as_thief(caller, method, path, body)).status == 404, path
        for path in ("/v1/account/keys", "/v1/account/sessions"):
            listed = (await as_thief(caller, "GET", path)).body.decode()
            assert key_id not in listed
            assert session not in listed
    for foreign in (Person(server.port, other.username, owner.uuid), Person(server.port, owner.username, other.uuid)):
        assert (await foreign.chat("hi")).json()["code"] == "USER_NOT_FOUND"
        assert (await foreign.picture(jpeg())).json()["code"] == "USER_NOT_FOUND"
    # Whose pays is said by the key alone, whatever the body names.
    spent = await post_json(server.port, "/textModel/chat", owner.call("hi"), *bearer(await new_key(other)).headers)
    assert spent.json()["code"] == 0
    assert (await owner.tokens(), await owner.pictures()) == before
    assert (await browser.send("GET", "/v1/account/session")).status == 200, "nobody ended it"
    assert (await wire.request(server.port, "GET", "/v1/usage", bearer(key).headers)).status == 200
