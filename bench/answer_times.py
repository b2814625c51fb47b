"""Does the time of an answer tell who exists? Medians of interleaved refusals, known against unknown.

A server of its own on SQLite, passwords hashed as they are set. Logins: wrong passwords of accounts that exist and of
names that nobody has, five each (the first that waits would be the seventh). Uuids: of a name that exists with a wrong
uuid, with one that is wrong in its last digit only, and of a name that nobody has. The limit on addresses is off, as
in `bench.login_storm`.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import aiohttp
import uvloop

from aiproject.accounts import Account
from aiproject.adapters import log as logging_setup
from aiproject.config import load_settings
from bench.login_storm import fill, process

__all__ = ["LOGIN_BOUND", "UUID_BOUND_MS", "run"]

NAMES = 20
LOGINS_A_NAME = 5
CALLS = 600

LOGIN_BOUND = 0.1
"""By how much of the shorter one two medians of logins may differ; hashing is nearly all of the time."""

UUID_BOUND_MS = 0.5

Times = dict[str, list[float]]


def run() -> Mapping[str, Mapping[str, float]]:
    """Return median milliseconds by what was asked and by case; takes a minute or two."""
    logging_setup.configure("warning", "console")
    with tempfile.TemporaryDirectory() as folder:
        times = uvloop.run(_run(Path(folder)))
    return {
        kind: {case: statistics.median(values) * 1000 for case, values in cases.items()}
        for kind, cases in times.items()
    }


async def _run(folder: Path) -> Mapping[str, Times]:
    people = await fill(load_settings(data_dir=folder))
    environment = {"AIPROJECT_DATA_DIR": str(folder), "AIPROJECT_LIMITS": "off", "AIPROJECT_LOG_LEVEL": "warning"}
    with process(["serve", "--port", "0"], environment, r"listens on http://\S+", folder / "server.log") as line:
        async with aiohttp.ClientSession(line.rpartition(" ")[2]) as http:
            return {"login": await _logins(http), "uuid": await _uuids(http, people)}


async def _logins(http: aiohttp.ClientSession) -> Times:
    async def ask(name: str) -> None:
        async with http.post("/auth/login", json={"username": name, "password": "a wrong guess"}) as answer:
            if (await answer.json())["code"] != "LOGIN_ERROR":
                raise RuntimeError("a wrong password was answered otherwise")

    orders = [
        (case, f"{case}{number}")
        for number in range(NAMES)
        for case in ("storm", "nobody")
        for _ in range(LOGINS_A_NAME)
    ]
    names = {"storm": "known", "nobody": "unknown"}
    return await _measure([(names[case], lambda name=name: ask(name)) for case, name in orders])  # type: ignore[misc]


async def _uuids(http: aiohttp.ClientSession, people: Sequence[Account]) -> Times:
    async def ask(name: str, uuid: str) -> None:
        async with http.get("/v1/usage", headers={"username": name, "uuid": uuid}) as answer:
            if (await answer.json())["code"] == 0:
                raise RuntimeError("a wrong uuid was let in")

    orders: list[tuple[str, Callable[[], Awaitable[None]]]] = []
    for _ in range(CALLS):
        person = secrets.choice(people)
        near = person.uuid[:-1] + ("0" if person.uuid[-1] != "0" else "1")
        for case, name, uuid in (
            ("known", person.username, secrets.token_hex(16)),
            ("known, last digit wrong", person.username, near),
            ("unknown", f"nobody{len(orders)}", secrets.token_hex(16)),
        ):
            orders.append((case, lambda name=name, uuid=uuid: ask(name, uuid)))  # type: ignore[misc]
    return await _measure(orders)


async def _measure(orders: list[tuple[str, Callable[[], Awaitable[None]]]]) -> Times:
    random.shuffle(orders)
    times: Times = {case: [] for case in sorted({case for case, _ in orders})}
    for case, ask in orders:
        started = time.perf_counter()
        await ask()
        times[case].append(time.perf_counter() - started)
        await asyncio.sleep(0)
    return times
