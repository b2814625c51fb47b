"""The whole server for tests: in a thread of this process, or as the real command in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import argon2.profiles
import pytest
import uvicorn
import uvloop

import program
from aiproject import wiring
from aiproject.accounts.api_keys.model import CHECKSUM_LENGTH, PREFIX_LENGTH, draw_key, with_checksum
from aiproject.accounts.core.service import Accounts
from aiproject.adapters.db.engine import Database
from aiproject.adapters.passwords import PasswordHasher, PasswordService
from aiproject.administration.setup import SetupCode
from aiproject.assembly import open_database, opening
from aiproject.config.iflytek import IflytekCredentials
from aiproject.config.settings import Settings
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify
from aiproject.protocols.chat import ChatMessage
from aiproject.protocols.iflytek.spark.estimate import estimate_tokens
from aiproject.sandbox.faults import parse_fault_requests
from aiproject.sandbox.running import SandboxAddress, SandboxThread
from aiproject.server import CLIENT_TIMEOUT, Serving, bind, make_server
from system import wire

__all__ = [
    "PASSWORD",
    "LocalServer",
    "Person",
    "Platform",
    "ServerProcess",
    "estimated",
    "eventually",
    "open_account",
    "open_sockets",
    "post_json",
    "question",
    "taken_port",
    "with_other_secret",
]

T = TypeVar("T")

PASSWORD = "correct horse battery staple"


async def eventually(condition: Callable[[], bool], what: str, *, seconds: float = 5.0) -> None:
    """Wait until ``condition`` holds; fail with ``what`` if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.02)


@dataclass
class Person:
    """Somebody with an account: what an app keeps of it, and the calls an app makes."""

    port: int
    username: str
    uuid: str
    password: str = PASSWORD

    @property
    def headers(self) -> list[wire.Header]:
        """For the two upload routes; the name percent-encoded."""
        return [("uuid", self.uuid), ("username", quote(self.username))]

    def call(self, dialog: object) -> dict[str, Any]:
        """The body of a chat; a text is asked as the desktop app asks it."""
        if isinstance(dialog, str):
            dialog = question(dialog)
        return {"uuid": self.uuid, "username": self.username, "dialog": dialog}

    async def chat(self, dialog: object) -> wire.Answer:
        return await post_json(self.port, "/textModel/chat", self.call(dialog))

    async def stream(self, dialog: object, *headers: wire.Header) -> wire.Answer:
        return await post_json(self.port, "/textModel/stream", self.call(dialog), *headers)

    async def voice(self, pcm: bytes, *headers: wire.Header, query: str = "") -> wire.Answer:
        kind = ("Content-Type", "application/octet-stream")
        return await wire.request(self.port, "POST", f"/voiceModel/chat{query}", [kind, *self.headers, *headers], pcm)

    async def picture(self, data: bytes, *headers: wire.Header) -> wire.Answer:
        kind = ("Content-Type", "image/jpeg")
        path = "/PictureToTextModel/chat"
        return await wire.request(self.port, "POST", path, [kind, *self.headers, *headers], data)

    async def login(self) -> dict[str, Any]:
        answer = await post_json(self.port, "/auth/login", {"username": self.username, "password": self.password})
        found = answer.json()
        assert found["code"] == 0, found
        assert isinstance(found, dict)
        return found

    async def tokens(self) -> int:
        """The balance, as an app would learn it."""
        return int((await self.login())["tokens"])

    async def pictures(self) -> int:
        """The picture balance, as an app would learn it."""
        return int((await self.login())["picTimes"])


def question(text: str) -> list[dict[str, str]]:
    """A dialog exactly as the existing desktop app sends it."""
    return [{"role": "system", "content": ""}, {"role": "user", "content": text}]


def with_other_secret(key: str) -> str:
    """An API key with the public prefix of ``key`` and a secret of its own; its checksum is right."""
    return with_checksum(key[:PREFIX_LENGTH] + draw_key()[PREFIX_LENGTH:-CHECKSUM_LENGTH])


def estimated(dialog: list[dict[str, str]], answer: str) -> int:
    """What is charged where upstream does not tell."""
    messages = [ChatMessage("user", turn["content"]) for turn in dialog]
    return sum(estimate_tokens(message.text) for message in messages) + estimate_tokens(answer)


async def post_json(port: int, path: str, value: object, *headers: wire.Header) -> wire.Answer:
    body = json.dumps(value).encode()
    return await wire.request(port, "POST", path, [("Content-Type", "application/json"), *headers], body)


async def open_account(port: int, name: str) -> Person:
    """Register over HTTP and log in."""
    registration = {"username": name, "password": PASSWORD, "email": f"{len(name)}@example.com"}
    answer = await post_json(port, "/auth/register", registration)
    assert answer.json() == {"code": 0, "msg": "用户注册成功"}
    person = Person(port, name, "")
    person.uuid = (await person.login())["uuid"]
    return person


class Platform:
    """The sandbox in the role of the vendor's platform, with its control API at hand."""

    def __init__(self, thread: SandboxThread, address: SandboxAddress) -> None:
        self.thread = thread
        self.address = address

    def order(self, service: str, fault: str, *, times: int = 1, **options: object) -> None:
        """Order a fault for the next ``times`` calls; 0: for every call until `forget`."""
        self.thread.faults.add(parse_fault_requests({"service": service, "fault": fault, "times": times, **options}))

    def forget(self) -> None:
        """Take every order back."""
        self.thread.faults.clear()

    def counts(self, service: str) -> dict[str, int]:
        """The counters of one service, as ``GET /sandbox/calls`` tells them."""
        counts = self.thread.calls()["services"][service]
        assert isinstance(counts, dict)
        return counts

    def last(self, service: str) -> dict[str, Any]:
        """The parameters of the last request of a service."""
        last = self.thread.calls()["last"][service]
        assert isinstance(last, dict)
        return last


class LocalServer:
    """The server in a thread of this process, with the loop, tasks and sockets open to a look."""

    def __init__(
        self,
        platform: SandboxAddress,
        directory: Path,
        *,
        client_timeout: float = CLIENT_TIMEOUT,
        setup_code: SetupCode | None = None,
        **overrides: Any,
    ) -> None:
        values: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": 0,
            "data_dir": directory,
            "signup_tokens": 1_000_000,
            "signup_pic_times": 1000,
            "limits": "off",
            "spark_url": platform.spark_url,
            "dictation_url": platform.dictation_url,
            "ocr_url": platform.ocr_url,
            "shutdown_grace": 1.0,
            **overrides,
        }
        directory.mkdir(parents=True, exist_ok=True)
        # Connections that are opened ahead would meet the faults that a test orders for its calls.
        values.setdefault("spark_warm_connections", 0)
        with pytest.MonkeyPatch.context() as environment:
            for name in [name for name in os.environ if name.startswith("AIPROJECT_")]:
                environment.delenv(name)
            self.settings = Settings(**values)
        credentials = IflytekCredentials(platform.app_id, platform.api_key, platform.api_secret)
        self._serving = Serving(self.settings, credentials, is_sandbox=True, setup_code=setup_code)
        self._listener = bind("127.0.0.1", 0, client_timeout=client_timeout)
        self.port = int(self._listener.getsockname()[1])
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: uvicorn.Server | None = None
        self._failure: BaseException | None = None
        self.idle_tasks = 0
        self._thread = threading.Thread(target=self._run, name="server-under-test", daemon=True)
        self._people = 0

    def start(self) -> LocalServer:
        with pytest.MonkeyPatch.context() as cheap:
            # Hundreds of passwords are hashed in these tests. `ServerProcess` pays the real price.
            cheap.setattr(wiring, "PasswordHasher", lambda profile: PasswordHasher(argon2.profiles.CHEAPEST))
            self._thread.start()
            self._ready.wait(30)
        if self._failure is not None:
            raise self._failure
        self.idle_tasks = self.task_count()
        return self

    def stop(self) -> None:
        """Stop as on SIGTERM."""
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(20)
        self._listener.close()
        assert not self._thread.is_alive(), "the server does not stop"
        if self._failure is not None:
            raise self._failure

    def begin_to_stop(self) -> None:
        """Do what SIGTERM does, and return at once."""
        assert self._server is not None
        self._server.should_exit = True

    def _run(self) -> None:
        def on_ready() -> None:
            self._loop = asyncio.get_running_loop()
            self._ready.set()

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                self._server = make_server(self._serving, on_ready=on_ready)
                runner.run(self._server.serve([self._listener]))
        except BaseException as error:  # noqa: BLE001 - handed over to the test's thread
            self._failure = error
        finally:
            self._ready.set()

    @property
    def application(self) -> Any:
        """The ASGI application that runs."""
        assert self._server is not None
        return self._server.config.app

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the server's own loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(20)

    def task_count(self) -> int:
        """Tasks in the server's loop, without the one that counts."""

        async def count() -> int:
            return len(asyncio.all_tasks()) - 1

        return self.run(count)

    def connection_count(self) -> int:
        """Clients that are connected."""
        assert self._server is not None
        return len(self._server.server_state.connections)

    async def settles(self) -> None:
        """Wait until no call has left a task or a client's connection behind."""
        await eventually(lambda: self.connection_count() == 0, "all clients' connections are closed")
        await eventually(lambda: self.task_count() <= self.idle_tasks, "no task is left in the server")

    async def person(self, name: str = "") -> Person:
        """Open an account of its own for a test."""
        self._people += 1
        return await open_account(self.port, name or f"person{self._people}")

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """The server's database, from beside it."""
        async with open_database(self.settings) as database:
            yield database

    @asynccontextmanager
    async def accounts(self) -> AsyncIterator[tuple[Accounts, Quotas]]:
        """The rooms of accounts and quotas, as the command line has them."""
        async with self.database() as database:
            passwords = PasswordService(PasswordHasher())
            try:
                quotas = Quotas(database, LeaseTimes(self.settings.hold_lease))
                yield Accounts(database, passwords, opening(self.settings, quotas)), quotas
            finally:
                await passwords.close()

    async def assert_books_add_up(self) -> None:
        """Recompute every balance of the database from its records."""
        async with self.database() as database:
            assert [str(difference) async for difference in verify(database)] == []

    async def set_balance(self, person: Person, *, tokens: int | None = None, pictures: int | None = None) -> None:
        """Bring a balance to a value, through the operator's door."""
        async with self.accounts() as (accounts, quotas):
            account = await accounts.named(person.username)
            await quotas.grant(
                account,
                tokens=0 if tokens is None else tokens - account.tokens,
                pic_times=0 if pictures is None else pictures - account.pic_times,
            )


def open_sockets() -> int:
    """Sockets of this process."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += str(entry.readlink()).startswith("socket:")
    return found


class ServerProcess:
    """``aiproject serve`` as an operator starts it, in a session of its own so that nothing of it can hide.

    Args:
        environment: settings; nothing else of ours reaches it.
        arguments: of the command line.
    """

    def __init__(self, directory: Path, environment: dict[str, str], *arguments: str) -> None:
        self.log_path = directory / "server.log"
        self.port = 0
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*program.COMMAND, "serve", "--port", "0", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**program.environment(AIPROJECT_DATA_DIR=str(directory / "data")), **environment},
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """Everything it has said so far."""
        return self.log_path.read_text("utf-8", "replace")

    def events(self) -> list[dict[str, Any]]:
        """The structured lines of the log; the banner is none."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    async def until_ready(self, *, seconds: float = 60.0) -> ServerProcess:
        """Wait for the banner, which tells the port."""
        deadline = time.monotonic() + seconds
        while True:
            found = re.search(r"listens on http://127\.0\.0\.1:(\d+)", self.log)
            if found and self.log.rstrip().endswith("╯"):
                self.port = int(found[1])
                return self
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the server did not start:\n{self.log}")
            await asyncio.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, *, seconds: float = 20.0) -> int:
        """Wait for its end; return the exit status."""
        await eventually(lambda: self.process.poll() is not None, f"the server ended\n{self.log}", seconds=seconds)
        return int(self.process.returncode)

    def members(self) -> list[int]:
        """Every live process of its session, itself and all children included."""
        return [pid for pid, session, state, _ in _processes() if session == self.process.pid and state != "Z"]

    def workers(self) -> list[int]:
        """Its worker processes."""
        return [
            pid
            for pid, session, state, parent in _processes()
            if session == self.process.pid and parent == self.process.pid and state != "Z" and _is_worker(pid)
        ]

    def clean_up(self) -> None:
        """End whatever of it is still there, by its ids."""
        for pid in [*self.members(), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                if self.process.poll() is None or pid != self.process.pid:
                    os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


def _processes() -> Iterator[tuple[int, int, str, int]]:
    """Process id, session, state and parent of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name in brackets may hold anything; what follows the last bracket is fixed.
                state, parent, _, session, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
                yield int(entry.name), int(session), state, int(parent)


def _is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def taken_port() -> tuple[socket.socket, int]:
    """A port on which somebody else listens."""
    other = socket.socket()
    other.bind(("127.0.0.1", 0))
    other.listen(1)
    return other, int(other.getsockname()[1])
