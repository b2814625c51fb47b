"""Browser sessions over HTTP: the cookie, what protects it, and what ends it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from aiproject.adapters.db.schema import browser_session
from system.browser import Browser
from system.harness import PASSWORD, LocalServer, Person, question

NEW_PASSWORD = "another long passphrase"


@pytest.fixture
async def person(server: LocalServer) -> Person:
    return await server.person()


@pytest.fixture
async def browser(server: LocalServer, person: Person) -> Browser:
    browser = Browser(server.port)
    await browser.sign_in(person)
    return browser


async def is_signed_in(browser: Browser) -> bool:
    answer = await browser.send("GET", "/v1/account/session")
    assert answer.status in (200, 401), answer.body
    return answer.status == 200


class TestSigningIn:
    async def test_the_cookie(self, server: LocalServer, person: Person) -> None:
        browser = Browser(server.port)
        answer = await browser.send("POST", "/v1/sessions", {"username": person.username, "password": PASSWORD})
        body = answer.json()
        assert answer.status == 201
        assert (body["code"], body["username"]) == (0, person.username)
        assert "uuid" not in answer.body.decode()
        cookie = answer.header("set-cookie") or ""
        found = re.fullmatch(
            r"aiproject_session=([0-9A-Za-z_-]{43}); Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict", cookie
        )
        assert found, cookie
        token = found[1]
        assert token not in answer.body.decode()
        async with server.database() as database, database.connect() as connection:
            stored = (await connection.execute(sa.select(browser_session))).all()
        assert not any(token in str(value) for row in stored for value in row)
        assert await is_signed_in(browser)

    async def test_behind_tls(self, start_server: Callable[..., LocalServer]) -> None:
        server = start_server(public_url="https://ai.example.com")
        person = await server.person()
        browser = Browser(server.port)
        cookie = (
            await browser.send("POST", "/v1/sessions", {"username": person.username, "password": PASSWORD})
        ).header("set-cookie") or ""
        assert cookie.startswith("__Host-aiproject_session=")
        assert cookie.endswith("; Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict; Secure")
        assert "domain" not in cookie.lower()
        own: list[tuple[str, str]] = [("Origin", "https://ai.example.com"), ("X-CSRF-Token", browser.csrf)]
        assert (await browser.send("PATCH", "/v1/account", {"academy": "文院"}, own)).status == 200
        # The plain name, which any page of the host could set, is not looked at.
        browser.cookie = browser.cookie.removeprefix("__Host-")
        assert not await is_signed_in(browser)

    async def test_a_new_token_at_each_login_and_the_old_one_is_dead(self, browser: Browser, person: Person) -> None:
        old = Browser(browser.port)
        old.cookie = browser.cookie
        await browser.sign_in(person)
        assert browser.cookie != old.cookie
        assert await is_signed_in(browser)
        assert not await is_signed_in(old)

    async def test_a_token_that_was_planted_is_not_taken_over(self, server: LocalServer, person: Person) -> None:
        browser = Browser(server.port)
        browser.cookie = planted = "aiproject_session=" + "A" * 43
        await browser.sign_in(person)
        assert browser.cookie != planted
        victim = Browser(server.port)
        victim.cookie = planted
        assert not await is_signed_in(victim)

    async def test_wrong_passwords(self, server: LocalServer, person: Person) -> None:
        browser = Browser(server.port)
        told = set()
        for name, password in ((person.username, "wrong password"), ("nobody at all", PASSWORD)):
            answer = await browser.send("POST", "/v1/sessions", {"username": name, "password": password})
            assert answer.status == 401
            assert answer.header("set-cookie") is None
            told.add(answer.body)
        assert told == {b'{"code":"LOGIN_ERROR","msg":"' + b"\\u7528\\u6237\\u767b\\u5f55\\u5931\\u8d25" + b'"}'}

    async def test_another_site_cannot_sign_somebody_in(self, server: LocalServer, person: Person) -> None:
        """Else it could have its victim write into its own account."""
        body = {"username": person.username, "password": PASSWORD}
        for headers in (
            [("Sec-Fetch-Site", "cross-site")],
            [("Sec-Fetch-Site", "same-site"), ("Origin", f"http://127.0.0.1:{server.port}")],
            [("Origin", "https://evil.example")],
            [("Origin", "null")],
        ):
            answer = await Browser(server.port).send("POST", "/v1/sessions", body, headers)
            assert answer.status == 403
            assert answer.header("set-cookie") is None


class TestProof:
    """A cookie alone changes nothing."""

    async def test_what_does_not_come_from_our_own_page_is_refused(self, browser: Browser) -> None:
        token: tuple[str, str] = ("X-CSRF-Token", browser.csrf)
        origin: tuple[str, str] = ("Origin", f"http://127.0.0.1:{browser.port}")
        bad: list[list[tuple[str, str]]] = [
            [],
            [token],
            [origin],
            [("Sec-Fetch-Site", "same-origin")],
            [origin, ("X-CSRF-Token", "")],
            [origin, ("X-CSRF-Token", "0" * 64)],
            [("Origin", "https://evil.example"), token],
            [("Origin", f"http://127.0.0.1:{browser.port + 1}"), token],
            [("Origin", f"https://127.0.0.1:{browser.port}"), token],
            [("Origin", "null"), token],
            [origin, origin, token],
            [origin, ("Sec-Fetch-Site", "cross-site"), token],
            [origin, ("Sec-Fetch-Site", "same-site"), token],
            [("Sec-Fetch-Site", "none"), token],
        ]
        for headers in bad:
            answer = await browser.send("PATCH", "/v1/account", {"academy": "stolen"}, headers)
            assert answer.status == 403, headers
            assert answer.json()["code"] == "PERMISSION_NOT_ALLOW"
        assert (await browser.send("GET", "/v1/account")).json()["academy"] is None
        for headers in ([origin, token], [("Sec-Fetch-Site", "same-origin"), token]):
            assert (await browser.send("PATCH", "/v1/account", {"academy": "mine"}, headers)).status == 200

    async def test_the_token_of_another_session_is_none(self, browser: Browser, person: Person) -> None:
        other = Browser(browser.port)
        await other.sign_in(person)
        browser.csrf = other.csrf
        assert (await browser.send("PATCH", "/v1/account", {"academy": "x"})).status == 403

    async def test_another_site_reads_nothing(self, browser: Browser) -> None:
        for path in ("/v1/account", "/v1/account/session", "/v1/usage"):
            answer = await browser.send("GET", path, None, [("Sec-Fetch-Site", "cross-site")])
            assert answer.status == 403, path
            answer = await browser.send("GET", path, None, [("Origin", "https://evil.example")])
            assert answer.status == 403, path
            assert answer.header("access-control-allow-credentials") is None
        # What browsers send when nobody's page asks: a typed address, or an old browser.
        for headers in ([("Sec-Fetch-Site", "none")], []):
            assert (await browser.send("GET", "/v1/account", None, headers)).status == 200

    async def test_two_cookies_of_the_name_are_none(self, browser: Browser) -> None:
        browser.cookie = f"{browser.cookie}; {browser.cookie}"
        assert not await is_signed_in(browser)


class TestCalls:
    async def test_a_chat_by_cookie_is_charged(self, browser: Browser, person: Person) -> None:
        before = await person.tokens()
        answer = await browser.send("POST", "/textModel/chat", {"dialog": question("你好")})
        assert answer.json()["code"] == 0
        assert await person.tokens() == before - answer.json()["consume_token"]

    async def test_without_the_proof_nothing_is_charged(self, browser: Browser, person: Person) -> None:
        before = await person.tokens()
        for path in ("/textModel/chat", "/textModel/stream"):
            answer = await browser.send("POST", path, {"dialog": question("你好")}, [("Sec-Fetch-Site", "cross-site")])
            assert answer.status == 403
        browser.csrf = "0" * 64
        assert (await browser.send("POST", "/textModel/chat", {"dialog": question("你好")})).status == 403
        assert await person.tokens() == before

    async def test_the_documented_pair_wins(self, server: LocalServer, browser: Browser, person: Person) -> None:
        other = await server.person()
        before = await person.tokens()
        answer = await browser.send("POST", "/textModel/chat", other.call("你好"), [])
        assert answer.json()["code"] == 0
        assert await person.tokens() == before

    async def test_usage(self, browser: Browser) -> None:
        assert (await browser.send("GET", "/v1/usage")).json()["code"] == 0


class TestEnds:
    async def test_signing_out(self, browser: Browser) -> None:
        again = Browser(browser.port)
        again.cookie = browser.cookie
        answer = await browser.send("DELETE", "/v1/account/session")
        assert answer.status == 200
        assert (answer.header("set-cookie") or "").startswith("aiproject_session=; Path=/; Max-Age=0;")
        assert browser.cookie == ""
        assert not await is_signed_in(again)

    async def test_the_list_and_one_of_it(self, server: LocalServer, browser: Browser, person: Person) -> None:
        other = Browser(browser.port)
        await other.sign_in(person)
        found = (await browser.send("GET", "/v1/account/sessions")).json()["sessions"]
        assert len(found) == 2
        assert {session["is_current"] for session in found} == {True, False}
        assert other.cookie.partition("=")[2] not in str(found)
        (theirs,) = [session["id"] for session in found if not session["is_current"]]
        stranger = Browser(server.port)
        await stranger.sign_in(await server.person())
        assert (await stranger.send("DELETE", f"/v1/account/sessions/{theirs}")).status == 404
        assert await is_signed_in(other)
        assert (await browser.send("DELETE", f"/v1/account/sessions/{theirs}")).status == 200
        assert not await is_signed_in(other)
        assert await is_signed_in(browser)
        assert (await browser.send("DELETE", f"/v1/account/sessions/{theirs}")).status == 404

    async def test_all(self, browser: Browser, person: Person) -> None:
        other = Browser(browser.port)
        await other.sign_in(person)
        kept = Browser(browser.port)
        kept.cookie = browser.cookie
        assert (await browser.send("DELETE", "/v1/account/sessions")).json()["ended"] == 2
        assert not await is_signed_in(other)
        assert not await is_signed_in(kept)

    async def test_a_password_that_is_changed(self, browser: Browser, person: Person) -> None:
        other, before = Browser(browser.port), Browser(browser.port)
        await other.sign_in(person)
        before.cookie = browser.cookie
        body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
        answer = await browser.send("POST", "/v1/account/password", body)
        assert answer.status == 200
        assert answer.json()["uuid"] != person.uuid
        assert await is_signed_in(browser), "who changes it goes on, with another cookie"
        assert not await is_signed_in(before)
        assert not await is_signed_in(other)
        assert (await browser.send("PATCH", "/v1/account", {"academy": "文院"})).status == 200
        assert (await person.chat("你好")).json()["code"] == "USER_NOT_FOUND", "the old uuid is no more"
        person.uuid = answer.json()["uuid"]
        assert (await person.chat("你好")).json()["code"] == 0

    async def test_apps_may_be_kept_signed_in(self, browser: Browser, person: Person) -> None:
        other = Browser(browser.port)
        await other.sign_in(person)
        body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD, "sign_out_everywhere": False}
        assert (await browser.send("POST", "/v1/account/password", body)).json()["uuid"] == person.uuid
        assert not await is_signed_in(other)
        assert (await person.chat("你好")).json()["code"] == 0

    async def test_a_password_set_by_the_operator(self, server: LocalServer, browser: Browser, person: Person) -> None:
        async with server.accounts() as (accounts, _):
            await accounts.set_password(await accounts.named(person.username), NEW_PASSWORD)
        assert not await is_signed_in(browser)
        await browser.sign_in(person, NEW_PASSWORD)
        assert await is_signed_in(browser)

    async def test_an_account_that_is_disabled(self, server: LocalServer, browser: Browser, person: Person) -> None:
        async with server.accounts() as (accounts, _):
            await accounts.set_disabled(person.username, True)
        assert not await is_signed_in(browser)

    async def test_time(self, start_server: Callable[..., LocalServer]) -> None:
        """The limits count for sessions that are open, too; moved here by hand, since a minute is the least."""
        server = start_server(session_idle=60, session_lifetime=3600)
        person = await server.person()
        for column, seconds, alive in (
            (browser_session.c.seen_at, 50, True),
            (browser_session.c.seen_at, 61, False),
            (browser_session.c.created_at, 3601, False),
        ):
            browser = Browser(server.port)
            body = await browser.sign_in(person)
            mine = browser_session.c.session_id == body["session"]["id"]
            async with server.database() as database:
                async with database.connect() as connection:
                    at = (await connection.execute(sa.select(column).where(mine))).scalar_one()
                async with database.begin() as connection:
                    earlier = {column.name: at - timedelta(seconds=seconds)}
                    await connection.execute(sa.update(browser_session).where(mine).values(**earlier))
            assert await is_signed_in(browser) == alive, (column.name, seconds)

    async def test_parallel_logins_and_ends(self, browser: Browser, person: Person) -> None:
        browsers = [Browser(browser.port) for _ in range(4)]
        await asyncio.gather(*(each.sign_in(person) for each in browsers))
        assert len({each.cookie for each in browsers}) == 4
        await asyncio.gather(*(each.send("DELETE", "/v1/account/session") for each in browsers[:2]))
        assert [await is_signed_in(each) for each in browsers] == [False] * 2 + [True] * 2
