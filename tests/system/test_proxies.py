"""A real nginx and HAProxy that pass offers to upgrade on, and a real curl that makes one: each gets its own answer.

The proxies keep their connections to the server open and share them among their clients, so bytes of a body that were
run as a request would be answered to somebody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services import free_port
from system import wire
from system.harness import LocalServer, Person, post_json

OFFERS = [
    [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQ")],
    [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")],
    [("Connection", "upgrade"), ("Upgrade", "nonsense/1")],
]
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
START_SECONDS = 30.0

NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 128; }}
http {{
    access_log off;
    client_body_temp_path {directory}/client;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream aiproject {{ server 127.0.0.1:{server}; keepalive 2; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://aiproject;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
            proxy_request_buffering {buffering};
            proxy_buffering off;
        }}
    }}
}}
"""

HAPROXY = """
global
    maxconn 128
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend public
    bind 127.0.0.1:{port}
    # HAProxy itself drops an offer that comes with a body; a rule of an operator's may put it back.
    http-request set-header Upgrade h2c if {{ method POST }}
    default_backend aiproject
backend aiproject
    server node 127.0.0.1:{server}
"""


@contextlib.contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a proxy until the block ends."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        _wait_for(port, process, log)
        yield
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        listening = Path("/proc/net/tcp").read_text(encoding="ascii")
        if f"0100007F:{port:04X} 00000000:0000 0A" in listening:
            return
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the proxy did not start:\n{log.read_text('utf-8', 'replace')}")
        time.sleep(0.05)


@pytest.fixture(params=["nginx", "nginx-unbuffered", "haproxy"])
def proxy_port(
    request: pytest.FixtureRequest, server: LocalServer, service_program: Callable[[str], str], tmp_path: Path
) -> Iterator[int]:
    """The port of a proxy in front of `server`."""
    kind, _, variant = request.param.partition("-")
    program = service_program(kind)
    port, configuration = free_port(), tmp_path / f"{kind}.conf"
    template = NGINX if kind == "nginx" else HAPROXY
    buffering = "off" if variant else "on"
    configuration.write_text(template.format(directory=tmp_path, port=port, server=server.port, buffering=buffering))
    own_arguments = ["-p", str(tmp_path), "-e", str(tmp_path / "error.log"), "-c"] if kind == "nginx" else ["-db", "-f"]
    with running([program, *own_arguments, str(configuration)], port, tmp_path / "proxy.log"):
        yield port


@pytest.fixture
async def person(server: LocalServer) -> Person:
    return await server.person()


class TestProxies:
    @pytest.mark.parametrize("offer", OFFERS, ids=["h2c", "websocket", "nonsense"])
    async def test_each_client_gets_its_own_answer(
        self, person: Person, proxy_port: int, offer: list[wire.Header]
    ) -> None:
        """One after another, so that the proxy sends them over the same connection."""
        person = Person(proxy_port, person.username, person.uuid)
        for _ in range(3):
            bodies = await wire.request(proxy_port, "POST", "/auth/login", offer, SMUGGLED)
            assert bodies.json()["code"] == "APP_QUERY_METHOD_ERROR"
            health = await wire.request(proxy_port, "GET", "/health")
            assert health.json()["status"] == "ok"
            chat = await post_json(proxy_port, "/textModel/chat", person.call("hello"), *offer)
            assert chat.json()["code"] == 0

    async def test_so_do_many_at_once(self, person: Person, proxy_port: int) -> None:
        person = Person(proxy_port, person.username, person.uuid)

        async def ask(number: int) -> None:
            if number % 2:
                health = await wire.request(proxy_port, "GET", "/health")
                assert health.json()["status"] == "ok"
            else:
                chat = await post_json(proxy_port, "/textModel/chat", person.call("hello"), *OFFERS[number % 3])
                assert chat.json()["code"] == 0

        await asyncio.gather(*(ask(number) for number in range(40)))

    async def test_a_body_that_comes_in_parts(self, proxy_port: int, person: Person) -> None:
        body = json.dumps(person.call("hello")).encode()
        async with wire.Connection(proxy_port) as connection:
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *OFFERS[0]]
            connection.ask("POST", "/textModel/chat", headers, b"")
            for piece in (body[:5], body[5:-3], body[-3:]):
                await connection.flush()
                await asyncio.sleep(0.05)
                connection.send(piece)
            assert (await connection.answer()).json()["code"] == 0
        assert (await wire.request(proxy_port, "GET", "/health")).json()["status"] == "ok"


class TestCurl:
    """``curl --http2`` offers h2c with its first request, and does not mind to be answered in HTTP/1.1."""

    def run(self, program: str, *arguments: str) -> list[str]:
        done = subprocess.run(
            [program, "--silent", "--show-error", "--http2", "--max-time", "30", "--noproxy", "*", *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    async def test_it_can_post(self, person: Person, service_program: Callable[[str], str], tmp_path: Path) -> None:
        url = f"http://127.0.0.1:{person.port}"
        asked = tmp_path / "chat.json"
        asked.write_text(json.dumps(person.call("hello")))
        post = ["-H", "Content-Type: application/json", "--data-binary", f"@{asked}", "-w", "\n%{http_version}\n"]
        for more in ([], ["-H", "Transfer-Encoding: chunked"]):
            # Two requests by one connection, then another.
            arguments = [*post, *more, f"{url}/textModel/chat", f"{url}/textModel/chat"]
            lines = await asyncio.to_thread(self.run, service_program("curl"), *arguments)
            assert [json.loads(line)["code"] for line in lines[0::2]] == [0, 0]
            assert lines[1::2] == ["1.1", "1.1"]

    async def test_it_can_stream(self, person: Person, service_program: Callable[[str], str]) -> None:
        body = json.dumps(person.call("[[fault:frames n=30]]"))
        url = f"http://127.0.0.1:{person.port}/textModel/stream"
        for version in ([], ["--http1.0"]):
            arguments = [*version, "-H", "Content-Type: application/json", "-d", body, url]
            lines = await asyncio.to_thread(self.run, service_program("curl"), *arguments)
            assert len(lines) == 30
            assert json.loads(lines[-1])["header"]["status"] == 2
