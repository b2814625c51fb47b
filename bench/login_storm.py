"""Do logins disturb running streams? The spacing of frames at the clients, without and with a storm of logins.

A server (SQLite, argon2 as it is set) and the sandbox run in processes of their own, as a gateway and its platform do.
Twenty clients stream one answer after the other; the sandbox sends a frame every 40 ms. Then a process of its own opens
a thousand logins at the same moment, each of another account with the right password, and comes back with those that
were told to (the queue is bounded), until all are logged in or the time is up. Gaps are measured by the streaming
clients, in this process, between two reads of one answer.

The limit on what one address may do is off, since everybody comes from this machine.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import os
import random
import re
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import uvloop
from argon2.profiles import CHEAPEST

from aiproject.accounts.core import store
from aiproject.accounts.core.model import Account
from aiproject.accounts.core.service import Accounts, new_uuid
from aiproject.adapters import log as logging_setup
from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import name_key
from aiproject.adapters.passwords import PasswordHasher, PasswordService
from aiproject.assembly import opening, password_profile
from aiproject.config.loading import load_settings
from aiproject.config.settings import Settings
from aiproject.ledger.service import LeaseTimes, Quotas

__all__ = ["LOGINS", "STREAMS", "Figures", "Spacing", "fill", "process", "run"]

STREAMS = 20
LOGINS = 1000
FRAME_SECONDS = 0.04
CALM_SECONDS = 15.0
STORM_SECONDS = 60.0
PASSWORD = secrets.token_urlsafe(12)


@dataclass(frozen=True)
class Spacing:
    """Milliseconds between two frames of an answer.

    Attributes:
        booked_p50: from the last but one to the last, which waits until the charge is committed; so p99 below.
    """

    frames: int
    p50: float
    p99: float
    most: float
    booked_p50: float
    booked_p99: float

    @classmethod
    def of(cls, gaps: Gaps) -> Spacing:
        ranks, booked = (statistics.quantiles(some, n=100) for some in (gaps.inner, gaps.last))
        return cls(
            len(gaps.inner),
            ranks[49] * 1000,
            ranks[98] * 1000,
            max(gaps.inner) * 1000,
            booked[49] * 1000,
            booked[98] * 1000,
        )


@dataclass(frozen=True)
class Gaps:
    """Seconds between two frames of an answer; ``last``: before its last one."""

    inner: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)

    def clear(self) -> None:
        self.inner.clear()
        self.last.clear()


@dataclass(frozen=True)
class Figures:
    """What one run showed.

    Attributes:
        logged_in: of the logins of the storm.
        refused: answers that told a login to come back, since the queue was full.
        seconds: from the first login to the last.
    """

    calm: Spacing
    storm: Spacing
    logged_in: int
    refused: int
    seconds: float


def run() -> Figures:
    """Measure; takes a minute to five."""
    logging_setup.configure("warning", "console")
    with tempfile.TemporaryDirectory() as folder:
        return uvloop.run(_run(Path(folder)))


async def _run(folder: Path) -> Figures:
    settings = load_settings(data_dir=folder)
    people = await fill(settings)
    with process(["sandbox", "--port", "0"], {}, r"(?s).*AIPROJECT_OCR_URL\S+", folder / "sandbox.log") as said:
        environment = dict(re.findall(r"export (\w+)='([^']*)'", said))
        control = re.search(r"http://\S+/sandbox", said)
        assert control is not None
        environment |= {"AIPROJECT_DATA_DIR": str(folder), "AIPROJECT_LIMITS": "off", "AIPROJECT_LOG_LEVEL": "warning"}
        async with aiohttp.ClientSession() as http:
            order = {"service": "chat", "fault": "slow", "seconds": FRAME_SECONDS, "times": 0}
            async with http.post(f"{control[0]}/faults", json=[order]) as answer:
                answer.raise_for_status()
            with process(
                ["serve", "--port", "0"], environment, r"listens on http://\S+", folder / "server.log"
            ) as line:
                return await _measure(http, line.rpartition(" ")[2], people)


async def _measure(http: aiohttp.ClientSession, address: str, people: Sequence[Account]) -> Figures:
    gaps = Gaps()
    stop = asyncio.Event()
    streams = [asyncio.ensure_future(_stream(http, address, person, gaps, stop)) for person in people]
    await asyncio.sleep(3)  # everything has been done once
    gaps.clear()
    await asyncio.sleep(CALM_SECONDS)
    calm = Spacing.of(gaps)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    storm = context.Process(target=_storm, args=(address, PASSWORD, theirs), daemon=True)
    storm.start()
    try:
        await asyncio.to_thread(ours.recv)  # it has started and is about to begin
        gaps.clear()
        started = time.perf_counter()
        ours.send(None)
        logged_in, refused = await asyncio.to_thread(ours.recv)
        seconds = time.perf_counter() - started
        windy = Spacing.of(gaps)
    finally:
        storm.kill()
        storm.join()
    stop.set()
    await asyncio.gather(*streams)
    return Figures(calm, windy, logged_in, refused, seconds)


async def _stream(http: aiohttp.ClientSession, address: str, person: Account, gaps: Gaps, stop: asyncio.Event) -> None:
    dialog = [{"role": "user", "content": "tell me a long story about a storm " * 4}]
    question = {"uuid": person.uuid, "username": person.username, "dialog": dialog}
    while not stop.is_set():
        async with http.post(f"{address}/textModel/stream", json=question) as answer:
            moments, pieces = [], []
            async for piece in answer.content.iter_any():
                moments.append(time.perf_counter())
                pieces.append(piece)
        if b'"total_tokens"' not in pieces[-1]:
            raise RuntimeError(f"a stream ended with {pieces[-1][-300:]!r}")
        *inner, last = (later - earlier for earlier, later in itertools.pairwise(moments))
        gaps.inner.extend(inner)
        gaps.last.append(last)


def _storm(address: str, password: str, line: Connection) -> None:
    os.nice(10)  # those who log in sit at machines of their own
    line.send(None)
    line.recv()
    line.send(uvloop.run(_log_in(address, password)))


async def _log_in(address: str, password: str) -> tuple[int, int]:
    refused = logged_in = 0

    async def log_in(http: aiohttp.ClientSession, name: str) -> None:
        nonlocal refused, logged_in
        while True:
            async with http.post(f"{address}/auth/login", json={"username": name, "password": password}) as answer:
                body = json.loads(await answer.read())
            if body["code"] == 0:
                logged_in += 1
                return
            if body["code"] != "TOO_MANY_REQUESTS":
                raise RuntimeError(f"a login was answered with {body}")
            refused += 1
            await asyncio.sleep(float(answer.headers["Retry-After"]) * random.uniform(1, 3))  # people are no choir

    with suppress(TimeoutError):
        async with (
            asyncio.timeout(STORM_SECONDS),
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(STORM_SECONDS)
            ) as http,
        ):
            await asyncio.gather(*(log_in(http, f"storm{number}") for number in range(LOGINS)))
    return logged_in, refused


async def fill(settings: Settings) -> list[Account]:
    """Open the accounts: those that stream, which are returned, and those that log in."""
    database = await Database.open(settings.effective_database_url)
    passwords = PasswordService(PasswordHasher(CHEAPEST))
    try:
        await migrations.upgrade(database)
        rich = settings.model_copy(update={"signup_tokens": 10**12})
        accounts = Accounts(database, passwords, opening(rich, Quotas(database, LeaseTimes(30))))
        people = [await accounts.register(f"reader{number}", PASSWORD, "") for number in range(STREAMS)]
        stored = PasswordHasher(password_profile(settings)).hash(PASSWORD)
        async with database.begin() as connection:
            for number in range(LOGINS):
                await store.add(
                    connection,
                    account_id=number + 1,
                    uuid=new_uuid(),
                    name_key=name_key(f"storm{number}"),
                    username=f"storm{number}",
                    password=stored,
                    email="",
                    academy=None,
                    now=datetime.now(UTC),
                )
        return people
    finally:
        await passwords.close()
        await database.close()


@contextmanager
def process(words: list[str], environment: dict[str, str], ready: str, log: Path) -> Iterator[str]:
    """Run ``aiproject``; yields what it said when it was ready, as far as ``ready`` matches."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "aiproject", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
    try:
        deadline = time.monotonic() + 60
        while (found := re.search(ready, log.read_text("utf-8", "replace"))) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"aiproject {words[0]} did not start:\n{log.read_text('utf-8', 'replace')}")
            time.sleep(0.05)
        yield found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
