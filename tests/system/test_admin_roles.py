"""Who may call what: every address of the administration with every role, with nobody, and with a user's credentials.

The table below is written from the rules, not read from the code: what is not listed in it is refused.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from functools import partial
from typing import Any

import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from aiproject.administration.model import ALLOWED, Role
from system import wire
from system.administrators import ADMIN_PASSWORD, Console, sign_in
from system.harness import PASSWORD, LocalServer, Platform

OWNER, ADMIN, AUDITOR = Role.OWNER, Role.ADMIN, Role.AUDITOR

INFO = {
    "new_username": "no such user",
    "new_password": "",
    "new_tokens": 1,
    "new_email": "",
    "new_pictimes": 1,
    "new_academy": "",
}
LIMIT = {"tokens": 1, "pictimes": 1}

# Each call is one that a permitted role gets past the door with, and that changes nothing.
CALLS: dict[str, tuple[str, Any, set[Role]]] = {
    "console_test": ("POST", {}, {OWNER, ADMIN}),
    "add_normal_user": ("POST", {}, {OWNER, ADMIN}),
    "modify_normal_user": ("POST", {"target_user": "no such user", "new_user_info": INFO}, {OWNER, ADMIN}),
    "delete_normal_user": ("POST", {"target_username": "no such user"}, {OWNER, ADMIN}),
    "add_admin": ("POST", {}, {OWNER}),
    "modify_admin": ("POST", {"target_admin": "no such admin", "new_name": "x"}, {OWNER}),
    "delete_admin": ("POST", {"target_admin": "no such admin"}, {OWNER}),
    "add_token": ("POST", {}, {OWNER, ADMIN}),
    "modify_token": ("POST", {"target_token": "NONE", "new_token_limit": LIMIT}, {OWNER, ADMIN}),
    "delete_token": ("POST", {"target_token": "NONE"}, {OWNER}),
    "control_token?is_available=1&token_name=NONE": ("GET", None, {OWNER, ADMIN}),
    "query_table?table=user&query_range=1&start=0": ("GET", None, {OWNER, ADMIN, AUDITOR}),
    "query_table?table=admin&query_range=1&start=0": ("GET", None, {OWNER, ADMIN, AUDITOR}),
    "query_table_count?table=token": ("GET", None, {OWNER, ADMIN, AUDITOR}),
    "query_table_data?table=user&target_name=x": ("GET", None, {OWNER, ADMIN, AUDITOR}),
    "audit?limit=1": ("GET", None, {OWNER, AUDITOR}),
    "audit/export?action=none": ("GET", None, {OWNER, AUDITOR}),
}

REFUSED = {"code": "PERMISSION_NOT_ALLOW", "msg": "权限不足"}


@pytest.fixture(scope="module")
def consoles(_server: LocalServer) -> dict[Role, Console]:
    return {role: _server.run(partial(sign_in, _server, f"matrix {role}", role)) for role in Role}


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("role", list(Role))
async def test_role_by_route(consoles: dict[Role, Console], role: Role, path: str) -> None:
    method, body, allowed = CALLS[path]
    answer = await consoles[role].call(method, f"/admin/{path}", body)
    assert answer.status == 200
    if role not in allowed:
        assert answer.json() == REFUSED
    elif not path.startswith("audit/export"):
        assert answer.json()["code"] != REFUSED["code"]


@pytest.mark.parametrize("path", [*CALLS, "refresh", "logout"])
async def test_nobody_and_a_user_are_refused_everywhere(server: LocalServer, path: str) -> None:
    person = await server.person()
    method, body, _ = CALLS.get(path, ("POST" if path == "logout" else "GET", {}, set()))
    data = b"" if body is None else json.dumps(body).encode()
    for headers in ([], [("uuid", person.uuid), ("username", person.username)]):
        answer = await wire.request(server.port, method, f"/admin/{path}", [*headers], data)
        assert (answer.status, answer.json()) == (401, {"msg": "Missing Authorization Header"})
    answer = await wire.request(
        server.port, method, f"/admin/{path}", [("Authorization", f"Bearer {person.uuid}")], data
    )
    assert (answer.status, set(answer.json())) == (422, {"msg"})


async def test_every_mounted_address_is_in_the_matrix(server: LocalServer) -> None:
    """A new address cannot be forgotten here."""
    listed = {(method, f"/admin/{path.partition('?')[0]}") for path, (method, _, _) in CALLS.items()}
    assert set(ALLOWED) == listed | {("GET", "/admin/refresh"), ("POST", "/admin/logout")}


async def test_a_head_changes_nothing(server: LocalServer, consoles: dict[Role, Console]) -> None:
    owner = consoles[OWNER]
    token = {"token_name": "HEAD-CODE", "token_limit": {"tokens": 1}, "token_range": ""}
    assert (await owner.post("add_token", token))["code"] == 0
    url = f"http://127.0.0.1:{server.port}/admin/control_token?is_available=0&token_name=HEAD-CODE"
    headers = {"Authorization": f"Bearer {owner.access}"}
    await asyncio.to_thread(requests.head, url, headers=headers, timeout=10)
    row = await owner.get("query_table_data", table="token", target_name="HEAD-CODE")
    assert row["data"]["Available"] == 1


def forged(claims: dict[str, Any], header: dict[str, Any], key: bytes | None) -> str:
    """A token put together by hand, so that no library keeps us from it."""

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    text = f"{part(header)}.{part(claims)}"
    signature = b"" if key is None else hmac.new(key, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


class TestForgery:
    """RFC 8725, section 2: what was done to other people's JWTs."""

    @staticmethod
    def claims(console: Console) -> dict[str, Any]:
        found: dict[str, Any] = jwt.decode(console.access, options={"verify_signature": False})
        return found

    @staticmethod
    async def refused(console: Console, token: str) -> tuple[int, Any]:
        answer = await console.call("GET", "/admin/query_table_count?table=user", token=token)
        assert set(answer.json()) == {"msg"}
        return answer.status, answer.json()["msg"]

    async def test_claims(self, consoles: dict[Role, Console]) -> None:
        claims = self.claims(consoles[OWNER])
        assert {"sub", "type", "iat", "nbf", "exp", "jti", "csrf", "fresh"} < set(claims)
        assert claims["exp"] - claims["iat"] == 3600
        refresh = jwt.decode(consoles[OWNER].refresh, options={"verify_signature": False})
        assert refresh["exp"] - refresh["iat"] == 30 * 24 * 3600

    @pytest.mark.parametrize("name", ["none", "None", "NONE", ""])
    async def test_no_algorithm(self, consoles: dict[Role, Console], name: str) -> None:
        token = forged(self.claims(consoles[OWNER]), {"alg": name, "typ": "JWT"}, None)
        assert (await self.refused(consoles[OWNER], token))[0] == 422

    async def test_another_key(self, consoles: dict[Role, Console]) -> None:
        for key in (b"", b"secret", b"0" * 32):
            token = forged(self.claims(consoles[OWNER]), {"alg": "HS256", "typ": "JWT"}, key)
            assert await self.refused(consoles[OWNER], token) == (422, "Signature verification failed")

    @pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
    async def test_a_neighbouring_algorithm_with_the_right_key(
        self, server: LocalServer, consoles: dict[Role, Console], algorithm: str
    ) -> None:
        key = (server.settings.data_dir / "admin-jwt.key").read_bytes().strip()
        token = jwt.encode(self.claims(consoles[OWNER]), key, algorithm=algorithm)
        status, msg = await self.refused(consoles[OWNER], token)
        assert (status, msg) == (422, "The specified alg value is not allowed")

    async def test_a_public_key_in_the_role_of_a_secret(self, consoles: dict[Role, Console]) -> None:
        private = rsa.generate_private_key(65537, 2048)
        public = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        claims = self.claims(consoles[OWNER])
        for token in (
            jwt.encode(claims, private, algorithm="RS256"),
            forged(claims, {"alg": "HS256", "typ": "JWT"}, public),
            forged(claims, {"alg": "RS256", "typ": "JWT"}, public),
        ):
            assert (await self.refused(consoles[OWNER], token))[0] == 422

    async def test_headers_that_name_a_key_are_not_followed(
        self, server: LocalServer, consoles: dict[Role, Console]
    ) -> None:
        for extra in ({"kid": "../../dev/null"}, {"jku": "http://127.0.0.1:9/"}, {"jwk": {"kty": "oct", "k": "AA"}}):
            token = forged(self.claims(consoles[OWNER]), {"alg": "HS256", "typ": "JWT", **extra}, b"")
            assert (await self.refused(consoles[OWNER], token))[0] == 422

    async def test_what_is_over_and_what_is_not_yet(self, server: LocalServer, consoles: dict[Role, Console]) -> None:
        key = (server.settings.data_dir / "admin-jwt.key").read_bytes().strip()
        claims = self.claims(consoles[OWNER])
        now = int(time.time())
        old = jwt.encode(claims | {"iat": now - 7200, "nbf": now - 7200, "exp": now - 3600}, key, algorithm="HS256")
        assert await self.refused(consoles[OWNER], old) == (401, "Token has expired")
        early = jwt.encode(claims | {"iat": now + 900, "nbf": now + 900, "exp": now + 1800}, key, algorithm="HS256")
        assert (await self.refused(consoles[OWNER], early))[0] == 422

    async def test_good_signatures_with_odd_claims(self, server: LocalServer, consoles: dict[Role, Console]) -> None:
        key = (server.settings.data_dir / "admin-jwt.key").read_bytes().strip()
        claims = self.claims(consoles[OWNER])
        other = self.claims(consoles[AUDITOR])
        for change in ({"sid": other["sid"]}, {"aid": other["aid"]}, {"sid": "x"}, {"aid": 1}):
            token = jwt.encode(claims | change, key, algorithm="HS256")
            assert await self.refused(consoles[OWNER], token) == (401, "Token has been revoked"), change
        for name in ("exp", "iat", "nbf", "sub", "type", "aid", "sid"):
            short = {key_: value for key_, value in claims.items() if key_ != name}
            assert (await self.refused(consoles[OWNER], jwt.encode(short, key, algorithm="HS256")))[0] == 422, name
        for change in ({"aid": "1"}, {"aid": True}, {"sid": 5}, {"type": "king"}, {"type": None}):
            token = jwt.encode(claims | change, key, algorithm="HS256")
            assert (await self.refused(consoles[OWNER], token))[0] == 422, change

    async def test_the_key_is_its_owner_s_only(self, server: LocalServer) -> None:
        path = server.settings.data_dir / "admin-jwt.key"
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(path.read_bytes().strip()) == 64


async def test_an_auditor_learns_no_code(server: LocalServer) -> None:
    """The attack: a code is put together letter by letter from whether, and how often, its pieces are found."""
    owner = await sign_in(server, "oracle owner", OWNER)
    auditor = await sign_in(server, "oracle auditor", AUDITOR)
    code = "ZQXJ-0K7V-WPM3-8HTY"
    token = {"token_name": "期末", "token_id": code, "token_limit": {"tokens": 1}, "token_range": ""}
    assert (await owner.post("add_token", token))["code"] == 0
    assert (await owner.get("query_table_count", table="token", search="ZQXJ"))["total_count"] == 1
    for text in ("Z", "ZQ", "ZQXJ-0", "8HTY", code, code.lower()):
        assert (await auditor.get("query_table_count", table="token", search=text))["total_count"] == 0, text
        page = await auditor.get("query_table", table="token", query_range=500, start=0, search=text)
        assert page["data"] == [], text
    missing, wrong = [
        await auditor.get("query_table_data", table="token", target_name=text) for text in (code, code[:-1] + "Z")
    ]
    assert missing == wrong
    row = (await auditor.get("query_table_data", table="token", target_name="期末"))["data"]
    assert (row["Id"], row["Name"]) == ("********", "期末")
    everything = str(await auditor.get("query_table", table="token", query_range=500, start=0))
    assert code not in everything + str(await auditor.get("audit", limit=500))


async def test_secrets_appear_nowhere(
    server: LocalServer, platform: Platform, capfd: pytest.CaptureFixture[str]
) -> None:
    """Planted in every field that takes one, then looked for in answers, in the log and in the audit log."""
    owner = await sign_in(server, "secrets owner", OWNER)
    person = await server.person("secrets person")
    secrets = {
        "user": "planted user password",
        "user2": "planted second user password",
        "admin": "planted admin password",
        "admin2": "planted second admin password",
        "code": "PLANTED-VOUCHER-CODE",
        "prompt": "planted prompt of a trial",
    }
    answers = [
        await owner.post(
            "add_normal_user",
            {
                "username": "planted",
                "password": secrets["user"],
                "tokens": 1,
                "email": "",
                "pictimes": 1,
                "academy": "",
            },
        ),
        await owner.post(
            "modify_normal_user",
            {
                "target_user": "planted",
                "new_user_info": INFO | {"new_username": "planted", "new_password": secrets["user2"]},
            },
        ),
        await owner.post("add_admin", {"admin": "planted", "password": secrets["admin"]}),
        await owner.post("modify_admin", {"target_admin": "planted", "new_password": secrets["admin2"]}),
        await owner.post("login", {"admin": "planted", "password": secrets["admin2"]}),
        await owner.post(
            "add_token",
            {
                "token_name": "planted voucher",
                "token_id": secrets["code"],
                "token_limit": {"tokens": 1},
                "token_range": "",
            },
        ),
        await owner.get("control_token", is_available=0, token_name="planted voucher"),
        await owner.post(
            "console_test",
            {"dialog": [{"role": "user", "content": secrets["prompt"]}], "limit": 9, "top_k": 1, "temperature": 1},
        ),
        await owner.get("query_table", table="admin", query_range=500, start=0),
        await owner.get("query_table", table="user", query_range=500, start=0),
    ]
    assert [each["code"] for each in answers] == [0] * len(answers)
    audit = str(await owner.get("audit", limit=100))
    exported = await owner.call("GET", "/admin/audit/export?format=jsonl")
    audit += exported.body.decode() + b"".join(chunk.data for chunk in exported.chunks).decode()
    logged = "".join(capfd.readouterr())
    assert "path=/admin/console_test" in logged  # the log was really caught
    # The trial's answer quotes the prompt, as it may; no other answer quotes anything.
    told = str([each for each in answers if "content" not in each])
    hidden = [*secrets.values(), ADMIN_PASSWORD, PASSWORD, person.uuid, "$argon2"]
    hidden += [platform.address.app_id, platform.address.api_key, platform.address.api_secret]
    hidden += [owner.access, owner.refresh]
    for secret in hidden:
        assert secret not in told, secret
        assert secret not in audit, secret
        assert secret not in logged, secret
