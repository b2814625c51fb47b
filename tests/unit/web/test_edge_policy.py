"""What the application sees of its clients, and who is let in."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog.testing

from aiproject.adapters.http.asgi import Message, Receive, Scope, Send, client_address, send_json
from aiproject.adapters.http.rate_limiter import MemoryRateLimiter
from aiproject.protocols.forwarding import TrustedProxies
from aiproject.web.middleware import EdgePolicy, with_middleware

Headers = list[tuple[bytes, bytes]]


class Door:
    """An application that tells whom it sees, behind its middleware."""

    def __init__(self, *proxies: str, limit: int | None = None) -> None:
        gate = None if limit is None else MemoryRateLimiter(lambda: 600_000.0)
        self._app = with_middleware(self._tell, ["*"], EdgePolicy(TrustedProxies(proxies), gate, limit or 0))

    async def _tell(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, json.dumps([client_address(scope), scope["scheme"]]).encode())

    async def ask(
        self, peer: str = "192.0.2.1", *, path: str = "/x", method: str = "GET", headers: Headers | None = None
    ) -> tuple[int, dict[str, str], Any]:
        sent: list[Message] = []

        async def receive() -> Message:
            raise AssertionError("nobody reads")

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "scheme": "http",
            "client": (peer, 1),
            "headers": headers or [],
        }
        await self._app(scope, receive, send)
        fields = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        assert len(fields) == len(sent[0]["headers"])
        body = sent[1]["body"]
        return sent[0]["status"], fields, json.loads(body) if body.startswith((b"[", b"{")) else body


FORWARDED: Headers = [(b"x-forwarded-for", b"203.0.113.5, 192.0.2.7"), (b"x-forwarded-proto", b"https")]


class TestForwarding:
    async def test_a_trusted_proxy_is_believed(self) -> None:
        assert (await Door("10.0.0.0/8").ask("10.1.1.1", headers=FORWARDED))[2] == ["192.0.2.7", "https"]
        assert (await Door("10.0.0.0/8").ask("::ffff:10.1.1.1", headers=FORWARDED))[2] == ["192.0.2.7", "https"]

    @pytest.mark.parametrize("proxies", [(), ("10.0.0.0/8",)])
    async def test_others_are_not(self, proxies: tuple[str, ...]) -> None:
        assert (await Door(*proxies).ask("192.0.2.1", headers=FORWARDED))[2] == ["192.0.2.1", "http"]

    async def test_a_mapped_peer_is_told_as_ipv4(self) -> None:
        assert (await Door().ask("::ffff:192.0.2.1"))[2] == ["192.0.2.1", "http"]

    async def test_the_log_names_the_client(self) -> None:
        with structlog.testing.capture_logs() as lines:
            await Door("10.0.0.1").ask("10.0.0.1", headers=FORWARDED)
            await Door().ask("10.0.0.1", headers=FORWARDED)
        assert [line["client"] for line in lines] == ["192.0.2.7", "10.0.0.1"]

    async def test_limits_count_the_client_and_not_the_proxy(self) -> None:
        door = Door("10.0.0.1", limit=1)
        for client in (b"192.0.2.1", b"192.0.2.2"):
            assert (await door.ask("10.0.0.1", headers=[(b"x-forwarded-for", client)]))[0] == 200
        assert (await door.ask("10.0.0.1", headers=[(b"x-forwarded-for", b"192.0.2.1")]))[0] == 429

    async def test_a_made_up_chain_is_no_new_client(self) -> None:
        door = Door("10.0.0.1", limit=3)
        answers = [
            await door.ask("10.0.0.1", headers=[(b"x-forwarded-for", b"198.51.100.%d, 192.0.2.1" % number)])
            for number in range(4)
        ]
        assert [answer[0] for answer in answers] == [200, 200, 200, 429]


class TestAddressLimit:
    async def test_so_many_and_then_429_with_the_standard_fields(self) -> None:
        door = Door(limit=2)
        first, second, third = [await door.ask(headers=[(b"origin", b"https://app.example")]) for _ in range(3)]
        assert (first[0], first[1]["ratelimit-policy"], first[1]["ratelimit"]) == (
            200,
            '"address";q=2;w=60',
            '"address";r=1;t=60',
        )
        assert second[1]["ratelimit"] == '"address";r=0;t=60'
        status, fields, body = third
        assert (status, body) == (429, {"code": "TOO_MANY_REQUESTS", "msg": "请求过于频繁，请稍后再试"})
        assert fields["retry-after"] == "90"
        assert fields["ratelimit"] == '"address";r=0;t=90'
        exposed = fields["access-control-expose-headers"]
        assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(exposed.split(", "))
        assert fields["x-request-id"]

    async def test_an_ipv6_client_is_its_network(self) -> None:
        door = Door(limit=1)
        assert (await door.ask("2001:db8::1"))[0] == 200
        assert (await door.ask("2001:db8::ffff:1"))[0] == 429
        assert (await door.ask("2001:db8:0:1::1"))[0] == 200

    async def test_pages_and_probes_are_free_or_apart(self) -> None:
        door = Door(limit=1)
        assert (await door.ask())[0] == 200
        for path in ("/health", "/docs", "/docs/oauth2-redirect", "/openapi.json", "/static-offline-docs/x.js"):
            status, fields, _ = await door.ask(path=path)
            assert status == 200
            assert "ratelimit" not in fields
        assert [(await door.ask(path="/ready"))[0] for _ in range(2)] == [200, 429]
        assert (await door.ask(path="/docsx"))[0] == 429

    async def test_preflights_are_not_counted(self) -> None:
        door = Door(limit=1)
        preflight = [(b"origin", b"https://app.example"), (b"access-control-request-method", b"POST")]
        for _ in range(3):
            assert (await door.ask(method="OPTIONS", headers=preflight))[0] == 200
        assert (await door.ask())[0] == 200

    async def test_switched_off_nothing_is_counted_or_told(self) -> None:
        door = Door()
        for _ in range(3):
            status, fields, _ = await door.ask()
            assert status == 200
            assert "ratelimit" not in fields
