"""Who may call what: every route by every kind of caller, from a table; what is not listed is refused.

The routes are those of the description and of the running application; a route that stands in neither table fails
here, so that nobody adds one without saying who it is for. A branch that brings a role or a credential adds it to
`Role`, a way of calling to `callers`, and its routes to `TABLE`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest
from starlette.routing import Mount, Route

from aiproject.web.app import Endpoints, build_app
from aiproject.web.openapi import describe
from system import wire
from system.harness import LocalServer, Person
from system.samples import jpeg, pcm


class Role(Enum):
    """A kind of caller."""

    NOBODY = "nobody"  # shows no credential
    STRANGER = "stranger"  # shows a uuid that does not exist
    MIXED = "mixed"  # one account's uuid with another's name
    DISABLED = "disabled"  # was an account, until the operator switched it off
    ACCOUNT = "account"  # shows its uuid and name


ANYBODY = frozenset(Role)
OWNERS = frozenset({Role.ACCOUNT})


@dataclass(frozen=True)
class Rule:
    """Who may call a route.

    Attributes:
        allowed: everybody else is refused.
        body: what is sent by the caller ``(uuid, username)``; ``None``: nothing.
        media_type: of the body.
    """

    allowed: frozenset[Role]
    body: Callable[[str, str], bytes] | None = None
    media_type: str = "application/json"


def _call(uuid: str, username: str) -> bytes:
    return json.dumps({"uuid": uuid, "username": username, "dialog": [{"role": "user", "content": "hi"}]}).encode()


def _redeem(uuid: str, username: str) -> bytes:
    return json.dumps({"user_id": uuid, "token_id": "none"}).encode()


def _sound(uuid: str, username: str) -> bytes:
    return pcm(0.2)


def _picture(uuid: str, username: str) -> bytes:
    return jpeg()


def _empty(uuid: str, username: str) -> bytes:
    return b"{}"


OCTETS = "application/octet-stream"
TABLE: dict[tuple[str, str], Rule] = {
    ("POST", "/auth/register"): Rule(ANYBODY, _empty),
    ("POST", "/auth/login"): Rule(ANYBODY, _empty),
    ("POST", "/textModel/chat"): Rule(OWNERS, _call),
    ("POST", "/textModel/stream"): Rule(OWNERS, _call),
    ("POST", "/voiceModel/chat"): Rule(OWNERS, _sound, OCTETS),  # with AIPROJECT_VOICE_ANONYMOUS=false
    ("POST", "/PictureToTextModel/chat"): Rule(OWNERS, _picture, "image/jpeg"),
    ("POST", "/user/get_token"): Rule(OWNERS, _redeem),
    ("GET", "/v1/usage"): Rule(OWNERS),
    ("GET", "/v1/usage/{request_id}"): Rule(OWNERS),
    ("GET", "/health"): Rule(ANYBODY),
    ("GET", "/ready"): Rule(ANYBODY),
}
PAGES = {"/docs", "/docs/oauth2-redirect", "/openapi.json", "/static-offline-docs"}
"""Open to anybody: the description and what shows it."""

REFUSALS = {"USER_NOT_FOUND", "USER_GET_TOKEN_ERROR", "NOT_SIGNED_IN", "PERMISSION_NOT_ALLOW"}
TOKEN_NOT_FOUND = "TOKEN_NOT_FOUNDUSER_NOT_FOUND"


def described() -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, methods in describe()["paths"].items() for method in methods}


def mounted() -> tuple[set[tuple[str, str]], set[str]]:
    """Methods and addresses of the application's routes, and the addresses of its pages."""

    async def endpoint(*_: Any) -> None: ...

    class Routes:
        register = login = redeem = entries = receipt = endpoint

    parts: Any = (Routes(), endpoint, endpoint, endpoint, endpoint, Routes(), Routes())
    app: Any = build_app(Endpoints(*parts), readiness=parts[1], is_sandbox=False, cors_origins=("*",))
    while not hasattr(app, "router"):
        app = getattr(app, "app", None) or app._app
    routes, pages = set(), set()
    for route in app.router.routes:
        assert isinstance(route, Route | Mount), route
        methods = {"GET"} if isinstance(route, Mount) else set(route.methods or ()) - {"HEAD"}
        if isinstance(route, Mount) or route.path.startswith(("/docs", "/openapi")):
            pages.add(route.path)
        else:
            routes |= {(method, route.path) for method in methods}
    return routes, pages


def test_every_route_stands_in_the_table_and_no_other() -> None:
    routes, pages = mounted()
    assert routes == set(TABLE)
    assert described() == set(TABLE)
    assert pages == PAGES


@pytest.fixture
async def callers(start_server: Callable[..., LocalServer]) -> tuple[LocalServer, dict[Role, Person]]:
    server = start_server(voice_anonymous=False)
    account, other, disabled = [await server.person(name) for name in ("owner", "other", "gone")]
    async with server.accounts() as (accounts, _):
        await accounts.set_disabled("gone", True)
    return server, {
        Role.ACCOUNT: account,
        Role.MIXED: Person(server.port, other.username, account.uuid),
        Role.STRANGER: Person(server.port, "nobody", "0" * 32),
        Role.DISABLED: disabled,
        Role.NOBODY: Person(server.port, "", ""),
    }


async def ask(server: LocalServer, method: str, path: str, rule: Rule, person: Person) -> wire.Answer:
    headers: list[wire.Header] = [] if not person.uuid else [*person.headers]
    body = None
    if rule.body is not None:
        body = rule.body(person.uuid, person.username)
        headers.append(("Content-Type", rule.media_type))
    return await wire.request(server.port, method, path.replace("{request_id}", "0" * 24), headers, body)


def is_refused(answer: wire.Answer) -> bool:
    """Whether the caller was not let in; what it asked for may be missing all the same."""
    if answer.chunks:
        return False
    body = json.loads(answer.body)
    # A voucher that does not exist and an account that does not are told alike.
    return body.get("code") in REFUSALS


async def test_each_caller_is_let_in_where_the_table_says_so_and_nowhere_else(
    callers: tuple[LocalServer, dict[Role, Person]],
) -> None:
    server, people = callers
    wrong = []
    for (method, path), rule in TABLE.items():
        for role, person in people.items():
            if path == "/user/get_token" and role is Role.MIXED:
                continue  # it takes no name: the uuid alone is the credential
            answer = await ask(server, method, path, rule, person)
            if is_refused(answer) == (role in rule.allowed):
                wrong.append(f"{method} {path} by {role.value}: {answer.status} {answer.body[:80]!r}")
    assert wrong == []


async def test_other_methods_are_refused(server: LocalServer) -> None:
    addresses = {path for _, path in TABLE}
    for path in addresses:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"):
            if (method, path) not in TABLE:
                answer = await wire.request(server.port, method, path.replace("{request_id}", "x"))
                assert answer.status == 405, (method, path)
                assert answer.json()["code"] == "METHOD_NOT_ALLOWED"


async def test_one_account_neither_reads_nor_spends_anothers(callers: tuple[LocalServer, dict[Role, Person]]) -> None:
    server, people = callers
    owner = people[Role.ACCOUNT]
    other = Person(server.port, "other", "")
    other.uuid = (await other.login())["uuid"]
    answer = await owner.chat("hi")
    assert answer.json()["code"] == 0
    before = await owner.tokens()
    call = str(answer.header("x-request-id"))
    for person, status in ((owner, 200), (other, 404)):
        receipt = await wire.request(server.port, "GET", f"/v1/usage/{call}", person.headers)
        assert receipt.status == status
    entries = await wire.request(server.port, "GET", "/v1/usage", other.headers)
    assert call not in entries.body.decode()
    for foreign in (Person(server.port, other.username, owner.uuid), Person(server.port, owner.username, other.uuid)):
        assert (await foreign.chat("hi")).json()["code"] == "USER_NOT_FOUND"
        assert (await foreign.picture(jpeg())).json()["code"] == "USER_NOT_FOUND"
    assert await owner.tokens() == before
