"""Secrets that the server hands out or is configured with, in one life of an account: each is told where it must be.

A real server process at its most talkative level, with Redis and a mail server that ask for passwords. What is told is
compared with a list: a secret in any other answer, in the log or in a file fails. `test_secrets` plants what clients
type where it does not belong.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest

import mail_server
import services
from aiproject.administration.model import Role as AdminRole
from aiproject.config.loading import load_settings
from mail_server import MailBox, make_certificate, running_mail_server
from services import Redis
from system import wire
from system.administrators import ADMIN_PASSWORD, Console, administrator
from system.browser import Browser
from system.harness import Person, Platform, ServerProcess, post_json, question

PASSWORD = "held-password-Vf7wq2"
NEW_PASSWORD = "held-password-after-a-reset-9Lm"
EMAIL = "holder@example.com"

TOLD: dict[str, set[str]] = {
    "password": set(),
    "password after a reset": set(),
    "administrator's password": set(),
    "uuid": {"login"},
    "uuid after the reset": {"login again"},
    "uuid of now": {"rotate uuid"},
    "api key": {"make key"},
    "session": {"sign in"},
    "verification token": set(),
    "reset token": set(),
    "access token": {"admin login"},
    "refresh token": {"admin login"},
    "next access token": {"admin refresh"},
    "signing key": set(),
    "smtp password": set(),
    "redis password": set(),
    "vendor's secret": set(),
}
"""Every secret, and the answers that may hold it: nowhere else."""

IN_CLEAR = {"uuid", "uuid after the reset", "uuid of now", "signing key"}
"""What a file of the data directory holds: the seed's column, and the key's own file."""


@dataclass
class Life:
    """What happened.

    Attributes:
        answers: by what was done, in order; some happened twice.
    """

    process: ServerProcess
    secrets: dict[str, str] = field(default_factory=dict)
    answers: list[tuple[str, wire.Answer]] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.process.log_path.parent / "data"

    def keep(self, what: str, answer: wire.Answer) -> wire.Answer:
        self.answers.append((what, answer))
        return answer


@pytest.fixture(scope="module")
def life(_platform: Platform, _redis_server: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    _platform.forget()
    directory = tmp_path_factory.mktemp("issued")
    certificate = make_certificate(directory)
    with running_mail_server(certificate, needs_login=True) as box:
        login = f"{mail_server.LOGIN}:{quote(mail_server.PASSWORD, safe='')}"
        process = ServerProcess(
            directory,
            {
                **_platform.address.environment(),
                "AIPROJECT_LOG_LEVEL": "debug",
                "AIPROJECT_REDIS_URL": _redis_server.url(),
                "AIPROJECT_SMTP_URL": f"smtp://{login}@127.0.0.1:{box.port}?ca_file={certificate.ca_file}",
                "AIPROJECT_MAIL_FROM": "ai@example.com",
                "AIPROJECT_PUBLIC_URL": "http://127.0.0.1:1",
                "AIPROJECT_ARGON2_MEMORY": "19456",
                "AIPROJECT_ARGON2_PASSES": "1",
            },
        )
        life = Life(process)
        life.secrets |= {
            "password": PASSWORD,
            "password after a reset": NEW_PASSWORD,
            "administrator's password": ADMIN_PASSWORD,
            "smtp password": mail_server.PASSWORD,
            "redis password": services.PASSWORD,
            "vendor's secret": _platform.address.api_secret,
        }
        try:
            asyncio.run(live(life, box))
            assert box.logins, "the mail server's password was used"
            yield life
        finally:
            process.clean_up()


async def live(life: Life, box: MailBox) -> None:
    port = (await life.process.until_ready()).port
    person = await begin(life, port)
    await by_mail(life, person, box)
    await by_key(life, person)
    await by_session(life, person)
    await as_administrator(life, port)
    refused = await post_json(port, "/textModel/chat", person.call("hi"))
    assert life.keep("chat", refused).json()["code"] == "USER_NOT_FOUND", "the uuid was replaced"


async def begin(life: Life, port: int) -> Person:
    entry = {"username": "holder", "password": PASSWORD, "email": EMAIL}
    assert life.keep("register", await post_json(port, "/auth/register", entry)).json()["code"] == 0
    person = Person(port, "holder", "", PASSWORD)
    answer = life.keep("login", await post_json(port, "/auth/login", {"username": "holder", "password": PASSWORD}))
    person.uuid = life.secrets["uuid"] = answer.json()["uuid"]
    life.keep("chat", await person.chat("hi"))
    life.keep("usage", await wire.request(port, "GET", "/v1/usage", person.headers))
    life.keep("profile", await wire.request(port, "GET", "/v1/account", person.headers))
    for guess in (PASSWORD.upper(), PASSWORD[:-1]):
        life.keep("guess", await post_json(port, "/auth/login", {"username": "holder", "password": guess}))
    return person


async def by_mail(life: Life, person: Person, box: MailBox) -> None:
    port = person.port

    async def token(count: int) -> str:
        _, letter = (await asyncio.to_thread(box.wait, count))[-1]
        found = re.search(r"#(?:verify|reset)=([0-9A-Za-z_-]{43})", letter.get_content())
        assert found
        return found[1]

    life.keep("ask", await post_json(port, "/v1/account/email/verification", {"password": PASSWORD}, *person.headers))
    life.secrets["verification token"] = shown = await token(1)
    verified = [life.keep("verify", await post_json(port, "/v1/email/verification", {"token": shown})) for _ in "12"]
    assert verified[0].json()["code"] == 0
    assert verified[1].json()["code"] != 0
    life.keep("ask", await post_json(port, "/v1/password-reset", {"username": "holder"}))
    life.secrets["reset token"] = shown = await token(2)
    body = {"token": shown, "new_password": NEW_PASSWORD}
    reset = [life.keep("reset", await post_json(port, "/v1/password-reset/confirm", body)) for _ in "12"]
    assert reset[0].json()["code"] == 0
    assert reset[1].json()["code"] != 0
    person.password = NEW_PASSWORD
    answer = life.keep(
        "login again", await post_json(port, "/auth/login", {"username": "holder", "password": NEW_PASSWORD})
    )
    assert answer.json()["code"] == 0
    assert answer.json()["uuid"] != person.uuid, "a reset signs everybody out"
    person.uuid = life.secrets["uuid after the reset"] = answer.json()["uuid"]


async def by_key(life: Life, person: Person) -> None:
    port, confirmed = person.port, {"password": NEW_PASSWORD}
    body = {"name": "laptop", "limits": {"tokens": {"total": 100_000}}, **confirmed}
    made = life.keep("make key", await post_json(port, "/v1/account/keys", body, *person.headers))
    key = life.secrets["api key"] = made.json()["secret"]
    bearer: wire.Header = ("Authorization", f"Bearer {key}")
    call = {"dialog": question("hi")}
    assert life.keep("chat", await post_json(port, "/textModel/chat", call, bearer)).json()["code"] == 0
    life.keep("usage", await wire.request(port, "GET", "/v1/usage", [bearer]))
    life.keep("list keys", await wire.request(port, "GET", "/v1/account/keys", person.headers))
    life.keep("manage by key", await wire.request(port, "GET", "/v1/account", [bearer]))
    path = f"/v1/account/keys/{made.json()['key']['id']}"
    headers = [*person.headers, ("Content-Type", "application/json")]
    for method, change in (("PATCH", {"name": "desk", **confirmed}), ("DELETE", confirmed)):
        changed = await wire.request(port, method, path, headers, json.dumps(change).encode())
        assert life.keep("change key", changed).status == 200
    assert life.keep("chat", await post_json(port, "/textModel/chat", call, bearer)).status == 401


async def by_session(life: Life, person: Person) -> None:
    browser = Browser(person.port)
    body = {"username": person.username, "password": NEW_PASSWORD}
    life.keep("sign in", await browser.send("POST", "/v1/sessions", body))
    cookie = browser.cookie.partition("=")
    life.secrets["session"] = cookie[2]
    for path in ("/v1/account", "/v1/account/session", "/v1/account/sessions", "/v1/usage"):
        assert life.keep("look", await browser.send("GET", path)).status == 200
    rotated = life.keep("rotate uuid", await browser.send("POST", "/v1/account/uuid", {"password": NEW_PASSWORD}))
    life.secrets["uuid of now"] = rotated.json()["uuid"]
    stranger: list[tuple[str, str]] = [("Authorization", f"Bearer {cookie[2]}")]
    life.keep("misuse", await browser.send("GET", "/v1/usage", None, stranger))
    life.keep("sign out", await browser.send("DELETE", "/v1/account/session"))


async def as_administrator(life: Life, port: int) -> None:
    await administrator(load_settings(data_dir=life.data), "boss", AdminRole.OWNER)
    console = Console(port)
    answer = life.keep(
        "admin login", await console.call("POST", "/admin/login", {"admin": "boss", "password": ADMIN_PASSWORD})
    )
    console.access, console.refresh = answer.json()["access_token"], answer.json()["refresh_token"]
    life.secrets |= {"access token": console.access, "refresh token": console.refresh}
    life.secrets["signing key"] = (life.data / "admin-jwt.key").read_text("ascii").strip()
    refreshed = life.keep("admin refresh", await console.call("GET", "/admin/refresh", token=console.refresh))
    life.secrets["next access token"] = refreshed.json()["access_token"]
    row = {
        "target_user": "holder",
        "new_user_info": {
            "new_username": "holder",
            "new_password": "",
            "new_tokens": 5000,
            "new_email": EMAIL,
            "new_pictimes": 5,
            "new_academy": "",
        },
    }
    assert life.keep("edit", await console.call("POST", "/admin/modify_normal_user", row)).json()["code"] == 0
    for path in (
        "query_table?table=user&query_range=9&start=0",
        "query_table?table=admin&query_range=9&start=0",
        "query_table_data?table=user&target_name=holder",
        "audit?limit=100",
    ):
        assert life.keep("query", await console.call("GET", f"/admin/{path}")).json()["code"] == 0
    exported = life.keep("export", await console.call("GET", "/admin/audit/export?format=jsonl"))
    assert exported.body.count(b"\n") >= 2
    life.keep("misuse", await console.call("GET", "/admin/audit", token=console.refresh))
    life.keep("misuse", await wire.request(port, "GET", "/v1/usage", [("Authorization", f"Bearer {console.access}")]))
    life.keep("admin logout", await console.call("POST", "/admin/logout", {}))
    life.keep("too late", await console.call("GET", "/admin/audit"))


def spellings(secret: str) -> set[bytes]:
    return {secret.encode(), quote(secret, safe="").encode()}


def test_the_life_had_everything(life: Life) -> None:
    assert set(life.secrets) == set(TOLD)
    assert all(len(secret) > 8 for secret in life.secrets.values())


@pytest.mark.parametrize("name", TOLD)
class TestSecrets:
    def test_is_told_where_it_is_handed_out_and_nowhere_else(self, life: Life, name: str) -> None:
        told = {
            what
            for what, answer in life.answers
            for spelling in spellings(life.secrets[name])
            if spelling in answer.body or spelling.decode() in str(answer.headers)
        }
        assert told == TOLD[name]

    def test_no_line_of_the_log_holds_it(self, life: Life, name: str) -> None:
        log = life.process.log_path.read_bytes()
        assert b"api key made" in log, "the log is at work"
        assert not [spelling for spelling in spellings(life.secrets[name]) if spelling in log]

    def test_no_file_holds_it_in_the_clear(self, life: Life, name: str) -> None:
        holding = {
            path.name
            for path in life.data.rglob("*")
            if path.is_file() and life.secrets[name].encode() in path.read_bytes()
        }
        assert any(b"holder" in path.read_bytes() for path in life.data.rglob("*.db*")), "what is stored can be seen"
        if name == "signing key":
            assert holding == {"admin-jwt.key"}
        else:
            assert not holding or name in IN_CLEAR, holding
