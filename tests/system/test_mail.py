"""Verification and reset by mail, over HTTP and against a real SMTP server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from aiproject.adapters.db.schema import mail_token
from mail_server import MailBox, running_mail_server
from system import wire
from system.browser import Browser
from system.harness import PASSWORD, LocalServer, Person, ServerProcess, open_account, post_json

NEW_PASSWORD = "another long passphrase"
CODE = re.compile(r"#(verify|reset)=([0-9A-Za-z_-]{43})")


@pytest.fixture
def box() -> Iterator[MailBox]:
    with running_mail_server() as box:
        yield box


@pytest.fixture
def mailing(start_server: Callable[..., LocalServer], box: MailBox) -> LocalServer:
    return start_server(
        smtp_url=f"smtp://127.0.0.1:{box.port}",
        mail_from="AiProject <noreply@example.com>",
        public_url="http://127.0.0.1:1/ai/",
    )


async def letter(box: MailBox, count: int) -> tuple[str, str]:
    """The purpose and the token in the last of so many letters."""
    (_, found) = (await asyncio.to_thread(box.wait, count))[-1]
    codes = set(CODE.findall(found.get_content()))
    assert len(codes) == 1, "one token, in both languages"
    purpose, token = codes.pop()
    return purpose, token


async def verified_person(server: LocalServer, box: MailBox) -> Person:
    person = await server.person()
    before = len(box.letters)
    body = {"password": PASSWORD}
    sent = await post_json(server.port, "/v1/account/email/verification", body, *person.headers)
    assert sent.status == 202
    purpose, token = await letter(box, before + 1)
    assert purpose == "verify"
    answer = await post_json(server.port, "/v1/email/verification", {"token": token})
    assert answer.json() == {"code": 0, "msg": "邮箱验证成功"}
    return person


async def profile(person: Person) -> dict[str, object]:
    found = (await wire.request(person.port, "GET", "/v1/account", person.headers)).json()
    assert isinstance(found, dict)
    return found


async def settle(box: MailBox, count: int) -> None:
    """Give letters that should not come some time, and count those that did."""
    await asyncio.sleep(0.5)
    assert len(box.letters) == count


class TestVerification:
    async def test_it_is_single_use_and_says_nothing_of_the_account(self, mailing: LocalServer, box: MailBox) -> None:
        person = await mailing.person("请看 evil.example")
        body = {"password": PASSWORD}
        await post_json(mailing.port, "/v1/account/email/verification", body, *person.headers)
        _, token = await letter(box, 1)
        recipients, found = box.letters[0]
        assert recipients == [f"{len(person.username)}@example.com"]
        text = found.get_content()
        assert f"http://127.0.0.1:1/ai/mail#verify={token}" in text
        assert "evil.example" not in text, "whose words we send to strangers"
        async with mailing.database() as database, database.connect() as connection:
            stored = (await connection.execute(sa.select(mail_token))).all()
        assert len(stored) == 1
        assert token not in str(stored)
        for expected in (200, 400):
            answer = await post_json(mailing.port, "/v1/email/verification", {"token": token})
            assert answer.status == expected
        assert (await profile(person))["email_verified"] is True
        again = await post_json(mailing.port, "/v1/account/email/verification", body, *person.headers)
        assert (again.status, again.json()["msg"]) == (200, "邮箱已经过验证")
        await settle(box, 1)

    async def test_a_token_is_for_its_address_only(self, mailing: LocalServer, box: MailBox) -> None:
        person = await mailing.person()
        browser = Browser(mailing.port)
        await browser.sign_in(person)
        assert (await browser.send("POST", "/v1/account/email/verification")).status == 202
        _, token = await letter(box, 1)
        changed = {"email": "other@example.com", "password": PASSWORD}
        assert (await browser.send("PATCH", "/v1/account", changed)).status == 200
        assert (await post_json(mailing.port, "/v1/email/verification", {"token": token})).status == 400
        assert (await profile(person))["email_verified"] is False

    async def test_letters_of_an_account_are_limited(self, mailing: LocalServer, box: MailBox) -> None:
        browser = Browser(mailing.port)
        await browser.sign_in(await mailing.person())
        statuses = [(await browser.send("POST", "/v1/account/email/verification")).status for _ in range(6)]
        assert statuses == [202] * 5 + [429]
        await asyncio.to_thread(box.wait, 5)
        await settle(box, 5)

    async def test_an_address_that_is_none(self, mailing: LocalServer) -> None:
        await post_json(mailing.port, "/auth/register", {"username": "no mail", "password": PASSWORD, "email": "xxx"})
        browser = Browser(mailing.port)
        await browser.sign_in(Person(mailing.port, "no mail", ""))
        assert (await browser.send("POST", "/v1/account/email/verification")).status == 400


class TestReset:
    async def test_a_forgotten_password(self, mailing: LocalServer, box: MailBox) -> None:
        person = await verified_person(mailing, box)
        browser = Browser(mailing.port)
        await browser.sign_in(person)
        asked = await post_json(mailing.port, "/v1/password-reset", {"username": person.username})
        assert asked.status == 202
        purpose, token = await letter(box, 2)
        assert purpose == "reset"
        assert person.username in box.letters[-1][1].get_content()

        weak = await post_json(mailing.port, "/v1/password-reset/confirm", {"token": token, "new_password": "short"})
        assert weak.status == 400
        body = {"token": token, "new_password": NEW_PASSWORD}
        done = await post_json(mailing.port, "/v1/password-reset/confirm", body)
        assert done.json() == {"code": 0, "msg": "密码已重置，请重新登录"}
        assert (await browser.send("GET", "/v1/account/session")).status == 401
        assert (await wire.request(mailing.port, "GET", "/v1/account", person.headers)).status == 401, "another uuid"
        assert (await post_json(mailing.port, "/v1/password-reset/confirm", body)).status == 400
        person.password = NEW_PASSWORD
        assert (await person.login())["uuid"] != person.uuid

    async def test_it_opens_a_lock(self, mailing: LocalServer, box: MailBox) -> None:
        person = await verified_person(mailing, box)
        login = {"username": person.username, "password": "wrong password"}
        for _ in range(7):
            refused = await post_json(mailing.port, "/v1/sessions", login)
        assert refused.status == 429
        await post_json(mailing.port, "/v1/password-reset", {"email": f"{len(person.username)}@EXAMPLE.com"})
        _, token = await letter(box, 2)
        body = {"token": token, "new_password": NEW_PASSWORD}
        assert (await post_json(mailing.port, "/v1/password-reset/confirm", body)).status == 200
        await Browser(mailing.port).sign_in(person, NEW_PASSWORD)

    async def test_one_token_in_a_race(self, mailing: LocalServer, box: MailBox) -> None:
        person = await verified_person(mailing, box)
        await post_json(mailing.port, "/v1/password-reset", {"username": person.username})
        _, token = await letter(box, 2)
        passwords = [f"{NEW_PASSWORD} {number}" for number in range(4)]
        answers = await asyncio.gather(
            *(
                post_json(mailing.port, "/v1/password-reset/confirm", {"token": token, "new_password": password})
                for password in passwords
            )
        )
        assert sorted(answer.status for answer in answers) == [200, 400, 400, 400]
        (winner,) = [password for password, answer in zip(passwords, answers, strict=True) if answer.status == 200]
        await Browser(mailing.port).sign_in(person, winner)

    async def test_nobody_learns_who_exists(self, mailing: LocalServer, box: MailBox) -> None:
        known, unverified = await verified_person(mailing, box), await mailing.person()
        told = set()
        for body in (
            {"username": known.username},
            {"username": unverified.username},
            {"username": "nobody"},
            {"username": "\0"},
            {"username": "\ud800"},
            {"username": ""},
            {"email": "nobody@example.com"},
            {"email": "'; drop table user"},
            {"email": ""},
        ):
            answer = await post_json(mailing.port, "/v1/password-reset", body)
            told.add((answer.status, answer.body))
        assert len(told) == 1
        await asyncio.to_thread(box.wait, 2)
        await settle(box, 2)

    async def test_letters_of_an_account_are_limited(self, mailing: LocalServer, box: MailBox) -> None:
        person = await verified_person(mailing, box)
        for _ in range(5):
            answer = await post_json(mailing.port, "/v1/password-reset", {"username": person.username})
            assert answer.status == 202, "whoever asks is not told"
        await asyncio.to_thread(box.wait, 4)
        await settle(box, 4)

    async def test_a_token_is_good_for_one_purpose(self, mailing: LocalServer, box: MailBox) -> None:
        person = await verified_person(mailing, box)
        await post_json(mailing.port, "/v1/password-reset", {"username": person.username})
        _, token = await letter(box, 2)
        assert (await post_json(mailing.port, "/v1/email/verification", {"token": token})).status == 400

    @pytest.mark.parametrize("body", [{}, {"username": "a", "email": "b"}, {"username": 5}, {"email": None}])
    async def test_what_is_refused(self, mailing: LocalServer, body: dict[str, object]) -> None:
        assert (await post_json(mailing.port, "/v1/password-reset", body)).status == 400


class TestSettings:
    async def test_without_a_mail_server_it_says_so(self, server: LocalServer) -> None:
        for path, body in (
            ("/v1/password-reset", {"username": "x"}),
            ("/v1/password-reset/confirm", {"token": "x", "new_password": NEW_PASSWORD}),
            ("/v1/email/verification", {"token": "x"}),
        ):
            answer = await post_json(server.port, path, body)
            assert (answer.status, answer.json()["code"]) == (404, "ITEM_NOT_FOUND")
            assert "邮件" in answer.json()["msg"]

    async def test_requests_of_an_address_are_limited(
        self, start_server: Callable[..., LocalServer], box: MailBox
    ) -> None:
        server = start_server(smtp_url=f"smtp://127.0.0.1:{box.port}", mail_from="noreply@example.com", limits="on")
        statuses = [
            (await post_json(server.port, "/v1/password-reset", {"username": "nobody"})).status for _ in range(21)
        ]
        assert statuses == [202] * 20 + [429]

    async def test_the_page_of_the_links(self, server: LocalServer) -> None:
        page = await wire.request(server.port, "GET", "/mail")
        assert page.status == 200
        assert (page.header("content-type") or "").startswith("text/html")
        assert "default-src 'none'" in (page.header("content-security-policy") or "")
        assert page.header("referrer-policy") == "no-referrer"
        assert b"<script>" not in page.body
        script = await wire.request(server.port, "GET", "/mail.js")
        assert (script.header("content-type") or "").startswith("text/javascript")
        for path in (b"v1/email/verification", b"v1/password-reset/confirm"):
            assert path in script.body


async def test_nothing_secret_reaches_the_log(serve_command: Callable[..., ServerProcess], box: MailBox) -> None:
    """The command itself, with all that an account's owner can do by mail and by browser."""
    process = await serve_command(
        {
            "AIPROJECT_SMTP_URL": f"smtp://127.0.0.1:{box.port}",
            "AIPROJECT_MAIL_FROM": "noreply@example.com",
            "AIPROJECT_LOG_LEVEL": "debug",
        }
    ).until_ready()
    person = await open_account(process.port, "somebody")
    browser = Browser(process.port)
    await browser.sign_in(person)
    found = []
    for count, asked, path, more in (
        (1, "/v1/account/email/verification", "/v1/email/verification", {}),
        (2, "/v1/password-reset", "/v1/password-reset/confirm", {"new_password": NEW_PASSWORD}),
    ):
        body = {"username": person.username} if count == 2 else None
        assert (await browser.send("POST", asked, body)).status == 202
        text = (await asyncio.to_thread(box.wait, count))[-1][1].get_content()
        (token,) = set(re.findall(r"code: ([0-9A-Za-z_-]{43})", text))
        found.append(token)
        statuses = [(await post_json(process.port, path, {"token": token, **more})).status for _ in range(2)]
        assert statuses == [200, 400]
    told = {event["event"] for event in process.events()}
    assert {"letter sent", "session opened", "e-mail address verified", "password reset by mail"} <= told
    cookie = browser.cookie.partition("=")[2]
    secrets = (*found, cookie, browser.csrf, person.uuid, PASSWORD, NEW_PASSWORD, "8@example.com")
    assert all(secrets)
    assert not [secret for secret in secrets if secret in process.log]
