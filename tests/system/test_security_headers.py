"""What answers tell browsers: nothing may be guessed, framed, kept or read with somebody's cookies."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from aiproject.web.openapi import describe
from system import wire
from system.harness import LocalServer

ORIGINS = ["https://console.example", "null", "http://127.0.0.1:8080"]
ROUTES = [
    (path.replace("{", "").replace("}", ""), method.upper())
    for path, methods in describe()["paths"].items()
    for method in methods
]


@pytest.mark.parametrize(("path", "method"), [*ROUTES, ("/nowhere", "GET"), ("/auth/login", "TRACE")])
class TestEveryRoute:
    async def test_its_answers_are_not_guessed_at_and_not_kept(
        self, server: LocalServer, path: str, method: str
    ) -> None:
        answer = await wire.request(server.port, method, path, [], b"{}" if method == "POST" else None)
        assert answer.header("x-content-type-options") == "nosniff"
        assert answer.header("content-type") == "application/json"
        assert answer.header("cache-control") == "no-store"
        assert answer.header("strict-transport-security") is None  # this server speaks no TLS

    @pytest.mark.parametrize("origin", ORIGINS)
    async def test_no_page_may_read_it_with_cookies(
        self, server: LocalServer, path: str, method: str, origin: str
    ) -> None:
        asked: list[wire.Header] = [("Origin", origin), ("Cookie", "__Host-session=1")]
        preflight = [*asked, ("Access-Control-Request-Method", method), ("Access-Control-Request-Headers", "cookie")]
        for answer in (
            await wire.request(server.port, method, path, asked, b"{}" if method == "POST" else None),
            await wire.request(server.port, "OPTIONS", path, preflight),
        ):
            assert answer.header("access-control-allow-credentials") is None
            assert answer.header("access-control-allow-origin") == "*"  # which forbids credentials by itself


class TestPages:
    async def test_swagger_runs_under_a_policy_that_names_its_one_script(self, server: LocalServer) -> None:
        answer = await wire.request(server.port, "GET", "/docs")
        assert answer.header("x-content-type-options") == "nosniff"
        assert answer.header("referrer-policy") == "no-referrer"
        policy = directives(answer.header("content-security-policy"))
        assert policy["default-src"] == ["'none'"]
        assert policy["frame-ancestors"] == ["'none'"]
        assert policy["base-uri"] == ["'none'"]
        assert "'unsafe-inline'" not in policy["script-src"]
        assert "'unsafe-eval'" not in policy["script-src"]
        page = answer.body.decode()
        (inline,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy["script-src"] == ["'self'", f"'sha256-{digest}'"]
        assert " onload=" not in page
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert loaded
        for address in loaded:
            assert address.startswith("/"), "everything is served from here"
            part = await wire.request(server.port, "GET", address)
            assert part.status == 200
            assert part.header("x-content-type-options") == "nosniff"
            assert part.header("content-security-policy")
        description = await wire.request(server.port, "GET", "/openapi.json")
        assert json.loads(description.body)["info"]["title"] == "AiProject"

    async def test_an_unknown_page_has_the_headers_of_a_page(self, server: LocalServer) -> None:
        answer = await wire.request(server.port, "GET", "/docs/nowhere")
        assert answer.status == 404
        assert directives(answer.header("content-security-policy"))["script-src"] == ["'self'"]


def directives(policy: str | None) -> dict[str, list[str]]:
    assert policy
    return {name: values for name, *values in (part.split() for part in policy.split(";"))}
