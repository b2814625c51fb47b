"""Does the time of an answer tell who exists? Medians of interleaved refusals, known against unknown.

A server of its own on SQLite, passwords hashed as they are set. Logins, of accounts and of administrators: wrong
passwords of names that exist and of names that nobody has, five each (the first that waits would be the seventh).
Uuids: of a name that exists with a wrong uuid, with one that is wrong in its last digit only, and of a name that nobody
has. API keys, all with a right checksum: with the public prefix of one that exists and a wrong secret, with one that is
wrong in its last character only, and with a prefix that nobody has. The limit on addresses is off, as in
`bench.login_storm`.
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

from aiproject.accounts.api_keys.model import CHECKSUM_LENGTH, PREFIX_LENGTH, KeyTerms, draw_key, with_checksum
from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.model import Account
from aiproject.adapters import log as logging_setup
from aiproject.adapters.passwords import PasswordHasher, PasswordService
from aiproject.administration.model import Role
from aiproject.administration.service import Administrators
from aiproject.assembly import open_database, password_profile
from aiproject.audit.model import Actor, ActorKind, AuditContext
from aiproject.config.loading import load_settings
from aiproject.config.settings import Settings
from bench.login_storm import PASSWORD, fill, process

__all__ = ["LOGIN_BOUND", "LOOKUP_BOUND_MS", "differs", "run"]

NAMES = 20
LOGINS_A_NAME = 5
CALLS = 600

LOGIN_BOUND = 0.1
"""By how much of the shorter one two medians of logins may differ; hashing is nearly all of the time."""

LOOKUP_BOUND_MS = 0.5
"""By how much two medians of refused uuids or API keys may differ."""

LOGINS = {"login": ("/auth/login", "username", "storm"), "administrator's login": ("/admin/login", "admin", "boss")}
"""By what is asked: its address, the field of the name, and what existing names begin with."""

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


def differs(kind: str, medians: Mapping[str, float]) -> bool:
    """Whether the medians of what was asked, in milliseconds, are further apart than their bound."""
    shortest, longest = min(medians.values()), max(medians.values())
    if kind in LOGINS:
        return longest > shortest * (1 + LOGIN_BOUND)
    return longest - shortest > LOOKUP_BOUND_MS


async def _run(folder: Path) -> Mapping[str, Times]:
    settings = load_settings(data_dir=folder)
    people = await fill(settings)
    keys = await _add_administrators_and_keys(settings, people)
    environment = {"AIPROJECT_DATA_DIR": str(folder), "AIPROJECT_LIMITS": "off", "AIPROJECT_LOG_LEVEL": "warning"}
    with process(["serve", "--port", "0"], environment, r"listens on http://\S+", folder / "server.log") as line:
        async with aiohttp.ClientSession(line.rpartition(" ")[2]) as http:
            return {
                **{kind: await _logins(http, *how) for kind, how in LOGINS.items()},
                "uuid": await _uuids(http, people),
                "api key": await _keys(http, keys),
            }


async def _add_administrators_and_keys(settings: Settings, people: Sequence[Account]) -> list[str]:
    passwords = PasswordService(PasswordHasher(password_profile(settings)))
    try:
        async with open_database(settings) as database:
            origin = AuditContext(Actor(ActorKind.COMMAND_LINE, "benchmark"), "", "")
            for number in range(NAMES):
                await Administrators(database, passwords).add(f"boss{number}", PASSWORD, Role.ADMIN, origin)
            keys = ApiKeys(database)
            try:
                return [(await keys.create(person.account_id, KeyTerms("a key"))).text for person in people]
            finally:
                await keys.close()
    finally:
        await passwords.close()


async def _logins(http: aiohttp.ClientSession, path: str, field: str, known: str) -> Times:
    async def ask(name: str) -> None:
        async with http.post(path, json={field: name, "password": "a wrong guess"}) as answer:
            if (await answer.json())["code"] != "LOGIN_ERROR":
                raise RuntimeError("a wrong password was answered otherwise")

    orders = [
        (case, f"{case}{number}") for number in range(NAMES) for case in (known, "nobody") for _ in range(LOGINS_A_NAME)
    ]
    names = {known: "known", "nobody": "unknown"}
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


async def _keys(http: aiohttp.ClientSession, keys: Sequence[str]) -> Times:
    async def ask(key: str) -> None:
        async with http.get("/v1/usage", headers={"Authorization": f"Bearer {key}"}) as answer:
            if answer.status != 401:
                raise RuntimeError("a wrong key was let in")

    orders: list[tuple[str, Callable[[], Awaitable[None]]]] = []
    for _ in range(CALLS):
        key = secrets.choice(keys)
        body, unknown = key[:-CHECKSUM_LENGTH], draw_key()
        near = body[:-1] + ("0" if body[-1] != "0" else "1")
        for case, text in (
            ("known", with_checksum(body[:PREFIX_LENGTH] + unknown[PREFIX_LENGTH:-CHECKSUM_LENGTH])),
            ("known, last character wrong", with_checksum(near)),
            ("unknown", unknown),
        ):
            orders.append((case, lambda text=text: ask(text)))  # type: ignore[misc]
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
