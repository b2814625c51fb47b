"""The bounds on a request's body and the headers of an answer over TLS, without a server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest

from aiproject.adapters.http.asgi import Message, Receive, Scope, Send, send_json
from aiproject.adapters.http.receiving import MIN_BODY_RATE
from aiproject.errors import BodyEncoded, BodyTooSlow
from aiproject.web.middleware import BodiesMiddleware, RequestsMiddleware, path_to_log
from aiproject.web.openapi import describe

CHUNKED = [(b"transfer-encoding", b"chunked")]


def scope(headers: list[tuple[bytes, bytes]], scheme: str = "http") -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": "/", "scheme": scheme, "headers": headers}


def sender(*pieces: tuple[float, int, bool]) -> Receive:
    """A client that waits, sends so many bytes, and says whether more come; then it is silent."""
    left: Iterator[tuple[float, int, bool]] = iter(pieces)

    async def receive() -> Message:
        wait, size, more = next(left, (3600.0, 0, True))
        await asyncio.sleep(wait)
        return {"type": "http.request", "body": bytes(size), "more_body": more}

    return receive


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["more_body"]:
        pass


async def send_nothing(message: Message) -> None: ...


class TestBodies:
    async def test_silence_is_cut(self) -> None:
        with pytest.raises(BodyTooSlow):
            await BodiesMiddleware(read_all, 0.01)(scope(CHUNKED), sender((0, 10, True)), send_nothing)

    async def test_a_rate_below_the_smallest_is_cut(self) -> None:
        dribble = [(0.01, 1, True)] * 100
        began = asyncio.get_running_loop().time()
        with pytest.raises(BodyTooSlow):
            await BodiesMiddleware(read_all, 0.05)(scope(CHUNKED), sender(*dribble, (0, 0, False)), send_nothing)
        assert asyncio.get_running_loop().time() - began < 0.5

    async def test_a_rate_above_it_is_not(self) -> None:
        steady = [(0.03, MIN_BODY_RATE, True)] * 20
        await BodiesMiddleware(read_all, 0.5)(scope(CHUNKED), sender(*steady, (0, 0, False)), send_nothing)

    async def test_only_waiting_counts(self) -> None:
        async def slow_reader(scope: Scope, receive: Receive, send: Send) -> None:
            is_whole = False
            while not is_whole:
                is_whole = not (await receive())["more_body"]
                await asyncio.sleep(0.02)

        body = [(0.0, 1, True)] * 5
        await BodiesMiddleware(slow_reader, 0.03)(scope(CHUNKED), sender(*body, (0, 0, False)), send_nothing)

    async def test_a_hang_up_is_awaited_as_long_as_it_takes(self) -> None:
        async def watch(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await receive()

        await BodiesMiddleware(watch, 0.01)(scope(CHUNKED), sender((0, 1, False), (0.05, 0, False)), send_nothing)

    @pytest.mark.parametrize(
        "header",
        [
            (b"content-encoding", b"gzip"),
            (b"content-encoding", b"identity, deflate"),
            (b"transfer-encoding", b"gzip, chunked"),
        ],
    )
    async def test_encoded_ones_are_refused(self, header: tuple[bytes, bytes]) -> None:
        with pytest.raises(BodyEncoded):
            await BodiesMiddleware(read_all, 1)(scope([header]), sender((0, 0, False)), send_nothing)


@pytest.mark.parametrize(("scheme", "expected"), [("https", True), ("http", False)])
async def test_browsers_are_told_to_stay_with_tls_only_over_tls(scheme: str, expected: bool) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, b"{}")

    await RequestsMiddleware(answer)(scope([], scheme), sender(), send)
    headers = dict(sent[0]["headers"])
    assert (b"strict-transport-security" in headers) is expected
    assert headers[b"x-content-type-options"] == b"nosniff"


async def test_request_ids_tell_the_moment_and_come_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of time they stand together in the holds' index."""
    now = 1_795_000_000_000
    monkeypatch.setattr("aiproject.web.middleware.time.time_ns", lambda: now * 1_000_000)
    told: list[str] = []

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, 200, b"{}")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            told.append(dict(message["headers"])[b"x-request-id"].decode())

    requests = RequestsMiddleware(answer)
    for _ in range(300):
        await requests({**scope([]), "client": ("192.0.2.1", 1)}, sender(), send)
        now += 1
    assert told == sorted(told)
    assert all(re.fullmatch("[0-9a-f]{24}", one) for one in told)
    assert [int(one[:11], 16) for one in told] == list(range(now - 300, now))
    assert len({one[11:] for one in told}) == 300


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/account/keys/sk-0123456789", "/v1/account/keys/sk-0123456789"),
        ("/v1/account/keys/sk-0123456789abcdefghijklmnop", "/v1/account/keys/sk-0123456789…"),
        ("/v1/usage/0123456789abcdef01234567", "/v1/usage/0123456789abcdef01234567"),
        ("/v1/usage/0123456789abcdef0123456789abcdef/x", "/v1/usage/…/x"),
        ("/eyJhbGciOiJIUzI1NiJ9.eyJwbGFudGVkIjoxfQ.c2lnbmF0dXJl", "/…"),
        ("/static-offline-docs/swagger-ui-bundle.js", "/static-offline-docs/swagger-ui-bundle.js"),
    ],
)
def test_paths_are_logged_without_credentials(path: str, told: str) -> None:
    assert path_to_log(path) == told


def test_no_address_of_ours_is_taken_for_a_credential() -> None:
    assert all(path_to_log(path) == path for path in describe()["paths"])
