"""Cookies and the proof of origin, request by request."""

from __future__ import annotations

from typing import Any

import pytest

from aiproject.accounts.sessions.cookies import BrowserRules, csrf_token
from aiproject.errors import NotAllowed

TOKEN = "t" * 43
PLAIN = BrowserRules(None, 3600)
PUBLIC = BrowserRules("https://ai.example.com/some/path", 3600)


def scope(method: str = "POST", scheme: str = "http", **headers: str) -> dict[str, Any]:
    given = {"host": "ai.example.com", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return {
        "method": method,
        "scheme": scheme,
        "headers": [(name.encode(), value.encode()) for name, value in given.items() if value],
    }


class TestCookie:
    @pytest.mark.parametrize(
        ("rules", "scheme", "is_secure"),
        [(PLAIN, "http", False), (PLAIN, "https", True), (PUBLIC, "http", True), (PUBLIC, "https", True)],
    )
    def test_secure_whenever_the_browser_came_by_tls(self, rules: BrowserRules, scheme: str, is_secure: bool) -> None:
        request = scope(scheme=scheme)
        name = "__Host-aiproject_session" if is_secure else "aiproject_session"
        cookie = rules.cookie(request, TOKEN)
        assert cookie.split("; ") == [
            f"{name}={TOKEN}", "Path=/", "Max-Age=3600", "HttpOnly", "SameSite=Strict", *["Secure"] * is_secure,
        ]  # fmt: skip
        assert rules.cookie(request, "").startswith(f"{name}=; Path=/; Max-Age=0;")
        for sent, found in ((f"{name}={TOKEN}", TOKEN), (f"other{name}={TOKEN}", None), (f"{name}", None)):
            assert rules.token(scope(scheme=scheme, cookie=sent)) == found

    def test_reading(self) -> None:
        for sent, found in (
            (f"a=b; aiproject_session={TOKEN};c=d", TOKEN),
            (f" aiproject_session = {TOKEN} ", None),
            (f"aiproject_session={TOKEN}; aiproject_session=x", None),
            ("aiproject_session=", None),
            ("", None),
        ):
            assert PLAIN.token(scope(cookie=sent)) == found, sent
        twice = scope(cookie=f"aiproject_session={TOKEN}")
        twice["headers"] *= 2
        assert PLAIN.token(twice) is None
        assert PLAIN.token(scope(cookie=f"__Host-aiproject_session={TOKEN}")) is None
        assert PUBLIC.token(scope(cookie=f"aiproject_session={TOKEN}")) is None


class TestProof:
    @pytest.mark.parametrize(
        ("headers", "passes"),
        [
            ({"origin": "http://ai.example.com"}, True),
            ({"origin": "http://ai.example.com:80"}, True),
            ({"origin": "HTTP://AI.example.com"}, True),
            ({"origin": "https://ai.example.com"}, False),
            ({"origin": "http://ai.example.com:8080"}, False),
            ({"origin": "http://ai.example.com.evil.example"}, False),
            ({"origin": "http://evil.example"}, False),
            ({"origin": "null"}, False),
            ({"origin": "nonsense://["}, False),
            ({"origin": "http://ai.example.com", "sec_fetch_site": "same-origin"}, True),
            ({"origin": "http://ai.example.com", "sec_fetch_site": "same-site"}, False),
            ({"origin": "http://ai.example.com", "sec_fetch_site": "cross-site"}, False),
            ({"sec_fetch_site": "same-origin"}, True),
            ({"sec_fetch_site": "none"}, False),
            ({}, False),
        ],
    )
    def test_what_changes_something(self, headers: dict[str, str], passes: bool) -> None:
        request = scope(x_csrf_token=csrf_token(TOKEN), **headers)
        if passes:
            PLAIN.check_proof(request, TOKEN)
        else:
            with pytest.raises(NotAllowed):
                PLAIN.check_proof(request, TOKEN)

    def test_behind_a_proxy_that_ends_tls(self) -> None:
        request = scope(host="10.0.0.5:8080", origin="https://ai.example.com", x_csrf_token=csrf_token(TOKEN))
        PUBLIC.check_proof(request, TOKEN)
        with pytest.raises(NotAllowed):
            PLAIN.check_proof(request, TOKEN)

    @pytest.mark.parametrize("shown", ["", "x", csrf_token("u" * 43), csrf_token(TOKEN).upper(), TOKEN, "é"])
    def test_the_token_is_the_session_s(self, shown: str) -> None:
        with pytest.raises(NotAllowed):
            PLAIN.check_proof(scope(origin="http://ai.example.com", x_csrf_token=shown), TOKEN)

    def test_reading_needs_no_proof_but_must_not_be_foreign(self) -> None:
        for headers in ({}, {"sec_fetch_site": "none"}, {"sec_fetch_site": "same-origin"}):
            PLAIN.check_proof(scope("GET", **headers), TOKEN)
        for headers in ({"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"}, {"origin": "null"}):
            with pytest.raises(NotAllowed):
                PLAIN.check_proof(scope("GET", **headers), TOKEN)

    def test_a_header_that_comes_twice_proves_nothing(self) -> None:
        request = scope(origin="http://ai.example.com", x_csrf_token=csrf_token(TOKEN))
        request["headers"].append((b"origin", b"http://ai.example.com"))
        with pytest.raises(NotAllowed):
            PLAIN.check_proof(request, TOKEN)
