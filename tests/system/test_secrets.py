"""Secrets planted wherever a client or an operator can put one: they come out nowhere.

One real server process, logging at its most talkative level, is called with every secret in every place that a request
has. Afterwards neither its log nor any answer holds one, nor does a file of the database hold one in the clear.

A branch that adds a credential adds it to `SECRETS`; one that adds a place adds a caller to `PLACES`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest

import program
from aiproject.administration.model import Role as AdminRole
from aiproject.config.loading import load_settings
from aiproject.web.openapi import describe
from system import wire
from system.administrators import Console, administrator
from system.harness import Person, Platform, ServerProcess, post_json, question
from system.samples import jpeg, pcm

PASSWORD = "planted-password-Vf7wq2"
SECRETS = {
    "password": PASSWORD,
    "uuid": "9d1fplanted4uuid8e0b7c6a5f4e3d2c",
    "api key": "sk-planted0123456789abcdefghijklmnopqrstuvwxyz",
    "idempotency key": "planted-idempotency-8fK3",
    "voucher code": "planted-voucher-Q5tR",
    "session cookie": "planted-session-m4Zc7yH1",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJwbGFudGVkIjoxfQ.c2lnbmF0dXJl",
}
"""What clients hold. The server knows only the password; the rest are typed where they do not belong."""

OPERATORS = {
    "database password": "planted-db-password-1aZ",
    "smtp password": "planted-smtp-password-2bY",
    "redis password": "planted-redis-password-3cX",
    "vendor key": "planted-vendor-key-4dW",
    "vendor secret": "planted-vendor-secret-5eV",
}
"""What operators configure."""

JSON = ("Content-Type", "application/json")
OCTETS = ("Content-Type", "application/octet-stream")
POSTED = [
    "/auth/register",
    "/auth/login",
    "/textModel/chat",
    "/textModel/stream",
    "/voiceModel/chat",
    "/PictureToTextModel/chat",
    "/user/get_token",
]
READ = ["/v1/usage", "/v1/usage/0123456789abcdef01234567", "/health", "/ready", "/docs", "/openapi.json", "/nowhere"]
SELF_SERVICE = [
    (method.upper(), path.replace("{", "").replace("}", ""))
    for path, methods in describe()["paths"].items()
    for method in methods
    if path.startswith("/v1/") and path not in READ
]
ADMINISTRATION = [
    (method.upper(), path)
    for path, methods in describe()["paths"].items()
    for method in methods
    if path.startswith("/admin/")
]
FIELDS = ["username", "password", "email", "academy", "uuid", "user_id", "token_id", "dialog", "else"]

Answers = list[wire.Answer]
Place = Callable[[int, Person, str], Awaitable[Answers]]


async def in_each_field(port: int, person: Person, secret: str) -> Answers:
    """In each member of each JSON body, alone and beside what belongs there."""
    whole = {"username": "nobody", "password": "x" * 12, "email": "a@b.cn", **person.call("hi")}
    found = []
    for path in POSTED:
        for name in FIELDS:
            if path == "/auth/register" and name in ("username", "email", "academy"):
                continue  # these are kept and told by design; nobody types a secret there without seeing it
            found += [
                await post_json(port, path, {**whole, name: secret}),
                await post_json(port, path, {name: [{"role": secret, "content": {secret: secret}}]}),
            ]
    return found


async def in_broken_bodies(port: int, person: Person, secret: str) -> Answers:
    """Where parsers complain: cut JSON, another type, a form without end, bytes that are no UTF-8."""
    bodies = [
        json.dumps({"uuid": secret, "password": secret}).encode()[:-1],
        b'["' + secret.encode() + b'"]',
        b'"' + secret.encode() + b'"',
        secret.encode() + b"\xff\xfe",
        f"username={secret}&password={secret}".encode(),
        f'--b\r\nContent-Disposition: form-data; name="{secret}"; filename="{secret}"\r\n\r\n{secret}'.encode(),
    ]
    kinds = [JSON, ("Content-Type", "multipart/form-data; boundary=b"), ("Content-Type", f"text/{secret}")]
    return [
        await wire.request(port, "POST", path, [kind, *person.headers], body)
        for path in POSTED
        for body in bodies
        for kind in kinds
    ]


async def in_each_header(port: int, person: Person, secret: str) -> Answers:
    """In each header that anybody reads, alone and beside a good name."""
    names = ("uuid", "username", "Authorization", "Idempotency-Key", "Cookie", "X-Forwarded-For", "Forwarded", "Origin")
    headers = [(name, secret) for name in names]
    headers += [("Authorization", f"Bearer {secret}"), ("Cookie", f"__Host-session={secret}; session={secret}")]
    return [
        *[await wire.request(port, "POST", path, [JSON, header], b"{}") for header in headers for path in POSTED],
        *[await wire.request(port, "GET", path, [header]) for header in headers for path in READ],
    ]


async def in_queries(port: int, person: Person, secret: str) -> Answers:
    """In the query, as hasty clients do."""
    query = "&".join(f"{name}={quote(secret)}" for name in (*FIELDS, "token", "key", "rate", "before", "limit"))
    return [
        *[await wire.request(port, "POST", f"{path}?{query}", [JSON, *person.headers], b"{}") for path in POSTED],
        *[await wire.request(port, "GET", f"{path}?{query}", person.headers) for path in READ],
    ]


async def in_uploads(port: int, person: Person, secret: str) -> Answers:
    """In the bytes, names and fields of uploads, which succeed."""
    kind, form = wire.multipart(pcm(0.2), filename=f"{secret}.pcm", others=[(secret, secret)])
    return [
        await wire.request(port, "POST", "/voiceModel/chat", [kind, *person.headers], form),
        await person.picture(jpeg() + secret.encode()),
        await person.voice(secret.encode() * 2),
        await wire.request(port, "POST", "/voiceModel/chat", [OCTETS, ("uuid", secret), ("username", "n")], pcm(0.2)),
    ]


async def in_what_is_no_http(port: int, person: Person, secret: str) -> Answers:
    """In bytes that the server cannot read, or not yet."""
    found = []
    for junk in (f"{secret}\r\n\r\n", f"GET {secret} HTTP/1.1\r\n\r\n", f"GET / HTTP/1.1\r\n{secret}\r\n\r\n"):
        async with wire.Connection(port) as connection:
            connection.send(junk.encode())
            found.append(await connection.answer())
    async with wire.Connection(port) as connection:
        connection.ask("POST", "/auth/login", [JSON, ("Content-Length", "1000")], secret.encode())
        await connection.flush()
        connection.reset()
    return found


async def in_self_service(port: int, person: Person, secret: str) -> Answers:
    """Where an owner's client types: of nobody, in the wrong header, and in the right call's wrong member."""
    found = [answer for path in SELF_SERVICE for answer in await _by_strangers(port, path, secret)]
    account, wrong = "/v1/account", {"password": f"not {PASSWORD}"}
    for path, body in (
        ("/v1/sessions", {"username": secret, "password": secret}),
        ("/v1/email/verification", {"token": secret}),
        ("/v1/password-reset", {"username": secret}),
        ("/v1/password-reset/confirm", {"token": secret, "new_password": secret}),
        (f"{account}/password", {"current_password": wrong["password"], "new_password": secret}),
        (f"{account}/uuid", {"password": f"{secret}."}),
        (f"{account}/keys", {"name": "k", "password": PASSWORD, secret: secret}),
        (f"{account}/keys", {"name": "k", "password": PASSWORD, "capabilities": [secret]}),
        (f"{account}/keys", {"name": "k", "password": PASSWORD, "addresses": [secret]}),
        (f"{account}/keys", {"name": "k", "password": PASSWORD, "expires_at": secret}),
        (f"{account}/keys", {"name": "k", "password": PASSWORD, "limits": {secret: {secret: secret}}}),
    ):
        found.append(await post_json(port, path, body, *person.headers))
    # Nobody can tell a password from a name: where it stands in an address, it is logged.
    for method in ("GET", "PATCH", "DELETE") if secret != PASSWORD else ():
        sent = json.dumps(wrong).encode()
        # A whole credential where its public name belongs.
        for path in (f"{account}/keys/{secret}", f"{account}/sessions/{secret}", f"/v1/usage/{secret}", f"/{secret}"):
            found += [await wire.request(port, method, path, [JSON, *person.headers], sent)]
    return found


async def in_administration(port: int, person: Person, secret: str) -> Answers:
    """Where an administrator's console types, with and without a good JWT."""
    found = [answer for path in ADMINISTRATION for answer in await _by_strangers(port, path, secret)]
    console = Console(port)
    assert (await console.login("boss"))["code"] == 0
    user = {"username": f"u{len(secret)}", "tokens": 1, "pictimes": 1, "email": "", "academy": ""}
    info = {"new_username": "x", "new_tokens": 1, "new_email": "", "new_pictimes": 1, "new_academy": ""}
    for path, body in (
        ("login", {"admin": secret, "password": secret}),
        ("setup", {"code": secret, "admin": secret, "password": secret}),
        ("add_normal_user", {**user, "password": secret}),
        ("modify_normal_user", {"target_user": secret, "new_user_info": {**info, "new_password": secret}}),
        ("modify_normal_user", {"target_user": user["username"], "new_user_info": {secret: secret}}),
        ("delete_normal_user", {"target_username": secret}),
        ("modify_admin", {"target_admin": secret, "new_password": secret}),
        ("delete_admin", {"target_admin": secret}),
        ("modify_token", {"target_token": secret, "new_token_limit": {secret: secret}}),
        ("delete_token", {"target_token": secret}),
        ("console_test", {"dialog": [], "limit": secret, "top_k": secret, "temperature": secret}),
        ("console_test", {"dialog": [{"role": secret, "content": secret}]}),
    ):
        found.append(await console.call("POST", f"/admin/{path}", body))
    for query in (
        f"query_table?table={quote(secret)}&query_range=1&start=0",
        f"query_table?table=user&query_range={quote(secret)}&start={quote(secret)}",
        f"query_table_count?table={quote(secret)}",
        f"query_table_data?table=user&target_name={quote(secret)}",
        f"control_token?is_available=1&token_name={quote(secret)}",
        f"audit?actor={quote(secret)}&action={quote(secret)}&before={quote(secret)}",
        "query_table?table=user&query_range=100&start=0",
        "audit?limit=100",
    ):
        found += [await console.call("GET", f"/admin/{query}")]
    return found


async def _by_strangers(port: int, operation: tuple[str, str], secret: str) -> Answers:
    method, path = operation
    body = json.dumps(dict.fromkeys([*FIELDS, "admin", "target_user", "token", "name"], secret)).encode()
    return [
        await wire.request(port, method, path, headers, data)
        for headers, data in (
            ([JSON], body),
            ([JSON, ("Authorization", f"Bearer {secret}")], body[:-1]),
            ([JSON, ("Cookie", f"aiproject_session={secret}"), ("X-CSRF-Token", secret)], b"{}"),
        )
    ]


async def with_keys_of_repetition(port: int, person: Person, secret: str) -> Answers:
    """As the key of calls that succeed, and again for another question."""
    key = ("Idempotency-Key", secret)
    return [
        await person.stream("hi", key),
        await person.stream("hi", key),
        await person.stream("something else", key),
    ]


async def with_a_vendor_that_fails(port: int, person: Person, secret: str) -> Answers:
    """In questions whose call upstream fails in its several ways."""
    faults = ("error code=10013", "error code=11200", "truncate after=0", "not_json after=0")
    answers = [await person.chat(question(f"[[fault:{fault}]] {secret}")) for fault in faults]
    assert all(answer.json()["code"] == "MODEL_ERROR" for answer in answers)
    return answers


PLACES: list[Place] = [
    in_each_header,
    in_queries,
    with_keys_of_repetition,
    in_each_field,
    in_broken_bodies,
    in_uploads,
    in_what_is_no_http,
    with_a_vendor_that_fails,
    in_self_service,
    in_administration,
]
EVERYWHERE = ("password", "uuid", "api key")
"""Planted in all places; the others are of the same forms, and only where a hasty client would put them."""


@dataclass
class Evidence:
    """Everything that came out of the server."""

    process: ServerProcess
    platform: Platform
    answers: dict[str, Answers] = field(default_factory=dict)

    def files(self) -> Iterator[tuple[Path, bytes]]:
        """The files that the server wrote."""
        for path in (self.process.log_path.parent / "data").rglob("*"):
            if path.is_file():
                yield path, path.read_bytes()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secrets")


@pytest.fixture(scope="module")
def evidence(_platform: Platform, directory: Path) -> Iterator[Evidence]:
    _platform.forget()
    process = ServerProcess(
        directory,
        {
            **_platform.address.environment(),
            "AIPROJECT_LOG_LEVEL": "debug",
            "AIPROJECT_LIMITS": "off",
            "AIPROJECT_SIGNUP_TOKENS": "100000000",
            "AIPROJECT_SMTP_URL": f"smtp://me:{OPERATORS['smtp password']}@127.0.0.1:1",
            "AIPROJECT_MAIL_FROM": "ai@example.com",
            "AIPROJECT_ARGON2_MEMORY": "19456",
            "AIPROJECT_ARGON2_PASSES": "1",
            "AIPROJECT_UPSTREAM_ATTEMPTS": "2",
        },
    )
    found = Evidence(process, _platform)
    try:
        asyncio.run(gather(found))
        yield found
    finally:
        process.clean_up()


async def gather(found: Evidence) -> None:
    port = (await found.process.until_ready()).port
    person = await with_password(port, "holder", PASSWORD)
    await administrator(load_settings(data_dir=found.process.log_path.parent / "data"), "boss", AdminRole.OWNER)

    async def plant(name: str, secret: str) -> None:
        places = PLACES if name in EVERYWHERE else PLACES[:3]
        found.answers[secret] = [answer for place in places for answer in await place(port, person, secret)]

    await asyncio.gather(*(plant(name, secret) for name, secret in SECRETS.items()))
    found.answers[person.uuid] = [
        *await in_queries(port, person, person.uuid),
        await person.chat("hi"),
        await person.stream("hi"),
        await person.picture(jpeg()),
        await post_json(port, "/user/get_token", {"user_id": person.uuid, "token_id": "none"}),
        await wire.request(port, "GET", "/v1/usage", person.headers),
    ]
    for fault in ("refuse", "html", "drop"):
        for service in ("chat", "ocr", "dictation"):
            found.platform.order(service, fault, times=2)
        found.answers[person.uuid] += [
            await person.chat("hi"),
            await person.picture(jpeg()),
            await person.voice(pcm(0.2)),
        ]
        found.platform.forget()
    assert (await person.chat("hi")).json()["code"] == 0, "it still serves"


async def with_password(port: int, name: str, password: str) -> Person:
    registered = await post_json(port, "/auth/register", {"username": name, "password": password, "email": "a@b.cn"})
    assert registered.json()["code"] == 0, registered.json()
    person = Person(port, name, "", password)
    person.uuid = (await person.login())["uuid"]
    return person


def spellings(secret: str) -> list[bytes]:
    """A secret as it is, and as encodings leave it recognisable."""
    return [secret.encode(), quote(secret, safe="").encode(), base64.b64encode(secret.encode()).rstrip(b"=")]


@pytest.mark.parametrize("name", SECRETS)
class TestClientsSecrets:
    async def test_no_line_of_the_log_holds_it(self, evidence: Evidence, name: str) -> None:
        log = evidence.process.log_path.read_bytes()
        assert log.count(b'"event": "request"') + log.count(b'"event":"request"') > 1000, "the log is at work"
        for spelling in spellings(SECRETS[name]):
            assert spelling not in log, context(log, spelling)

    async def test_no_answer_gives_it_back(self, evidence: Evidence, name: str) -> None:
        answers = evidence.answers[SECRETS[name]]
        assert len(answers) > (300 if name in EVERYWHERE else 100)
        for answer in answers:
            for spelling in spellings(SECRETS[name]):
                assert spelling not in answer.body, answer
                assert spelling.decode() not in str(answer.headers), answer

    async def test_no_file_holds_it_in_the_clear(self, evidence: Evidence, name: str) -> None:
        files = list(evidence.files())
        assert any(b"holder" in content for _, content in files), "what is stored can be seen"
        for path, content in files:
            assert SECRETS[name].encode() not in content, path


async def test_nothing_but_its_login_tells_an_accounts_uuid(evidence: Evidence) -> None:
    person = next(uuid for uuid in evidence.answers if uuid not in SECRETS.values())
    assert len(evidence.answers[person]) > 10
    for answer in evidence.answers[person]:
        assert person.encode() not in answer.body
        assert person not in str(answer.headers)
    assert person not in evidence.process.log


async def test_the_vendors_credentials_and_signatures_stay_inside(evidence: Evidence) -> None:
    log, address = evidence.process.log, evidence.platform.address
    bodies = b"".join(answer.body for answers in evidence.answers.values() for answer in answers)
    for secret in (address.api_key, address.api_secret, "authorization=", "signature=", "hmac"):
        assert secret not in log
        assert secret.encode() not in bodies
    for path, content in evidence.files():
        assert address.api_secret.encode() not in content, path


@pytest.mark.parametrize("name", ["smtp password"])
async def test_operators_secrets_of_a_server_that_runs(evidence: Evidence, name: str) -> None:
    assert OPERATORS[name] not in evidence.process.log
    for path, content in evidence.files():
        assert OPERATORS[name].encode() not in content, path


BROKEN = {
    "database password": {"DATABASE_URL": "postgresql://me:{}@127.0.0.1:1/x"},
    "database password, mysql": {"DATABASE_URL": "mysql://me:{}@127.0.0.1:1/x"},
    "database password, no URL": {"DATABASE_URL": "nonsense:{}@"},
    "smtp password": {"SMTP_URL": "gopher://me:{}@127.0.0.1:1"},
    "redis password": {"REDIS_URL": "redis://:{}@127.0.0.1:1/99999999999999999999"},
    "vendor key": {"IFLYTEK_APP_ID": "a", "IFLYTEK_API_KEY": "{}"},
    "vendor secret": {"IFLYTEK_API_SECRET": "{}"},
    "vendor secret in an address": {"SPARK_URL": "wss://me:{}@spark.example/v3.5/chat"},
}


DOCTOR = ["doctor", "--no-upstream"]
SERVE = ["serve", "--port", "0"]  # only with a database that is away, so that no server stays


@pytest.mark.parametrize(
    ("case", "command"),
    [*((case, DOCTOR) for case in BROKEN), *((case, SERVE) for case in BROKEN if case.startswith("database"))],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_set_ups_that_fail_do_not_tell_why_in_secrets(tmp_path: Path, case: str, command: list[str]) -> None:
    secret = OPERATORS[case.partition(",")[0].removesuffix(" in an address")]
    settings = {name: value.format(secret) for name, value in BROKEN[case].items()}
    done = subprocess.run(
        [*program.COMMAND, *command],
        check=False,
        capture_output=True,
        timeout=60,
        cwd=tmp_path,
        env=program.environment(
            AIPROJECT_LOG_LEVEL="debug", **{f"AIPROJECT_{name}": value for name, value in settings.items()}
        ),
    )
    told = done.stdout + done.stderr
    assert told
    for spelling in spellings(secret):
        assert spelling not in told, context(told, spelling)
    assert b"Traceback" not in told


def context(text: bytes, spelling: bytes) -> str:
    at = text.find(spelling)
    return re.sub(r"\s+", " ", text[max(0, at - 300) : at + 100].decode("utf-8", "replace"))
