"""Hosts are looked up once in a while, raced, and remembered when the name service fails; TLS sessions are resumed."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest

from aiproject.adapters.net.dialer import REMEMBERED_SECONDS, Dialer, client_tls
from virtual_time import run

PLACES = [
    (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 443, 0, 0)),
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443)),
]


class Names:
    """A name service and a dial tone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.is_down = False
        self.dialled: list[Any] = []
        monkeypatch.setattr("aiohappyeyeballs.start_connection", self.start_connection)

    async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        await asyncio.sleep(0.1)
        if self.is_down:
            raise socket.gaierror("no answer")
        return PLACES

    async def start_connection(self, places: Any, **options: Any) -> socket.socket:
        assert options["happy_eyeballs_delay"] < 1
        self.dialled.append(places)
        return socket.socket()

    async def connect(self, dialer: Dialer, host: str = "spark.example") -> None:
        asyncio.get_running_loop().getaddrinfo = self.getaddrinfo  # type: ignore[method-assign]
        sock = await dialer.connect(host, 443)
        assert sock is not None
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.close()


def test_a_host_is_looked_up_once_a_while_and_all_its_addresses_are_raced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        names, dialer = Names(monkeypatch), Dialer()
        await asyncio.gather(*(names.connect(dialer) for _ in range(5)))
        await names.connect(dialer)
        assert names.asked == 1
        assert names.dialled == [PLACES] * 6
        await names.connect(dialer, "other.example")
        assert names.asked == 2
        await asyncio.sleep(REMEMBERED_SECONDS)
        await names.connect(dialer)
        assert names.asked == 3

    run(scenario())


def test_the_last_known_addresses_serve_while_the_name_service_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        names, dialer = Names(monkeypatch), Dialer()
        await names.connect(dialer)
        names.is_down = True
        await asyncio.sleep(10 * REMEMBERED_SECONDS)
        await names.connect(dialer)
        assert names.dialled == [PLACES] * 2
        with pytest.raises(socket.gaierror):
            await names.connect(dialer, "never-seen.example")

    run(scenario())


def test_one_caller_that_gives_up_does_not_take_the_answer_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        names, dialer = Names(monkeypatch), Dialer()
        first = asyncio.create_task(names.connect(dialer))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(names.connect(dialer))
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert names.asked == 1

    run(scenario())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_numbers_are_not_looked_up(host: str) -> None:
    async def scenario() -> None:
        assert await Dialer().connect(host, 443) is None

    run(scenario())


def test_the_context_checks_whom_it_talks_to() -> None:
    context = client_tls()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
