"""What do the books cost? Pairs of a hold and its capture, each committed durably, per second.

Every caller has an account of its own and makes one call after the other: hold, three notes of how far it got, capture.
A keyed call has an Idempotency-Key: its key is claimed before the hold, and its answer stored with the capture.
The database is a fresh one on this machine's disk, its servers are those of the tests with their usual settings: no
fsync is switched off anywhere (SQLite: WAL, ``synchronous = FULL``; MySQL: ``innodb_flush_log_at_trx_commit = 1``, no
binary log; PostgreSQL: ``fsync``, ``synchronous_commit`` on). "alone" is one caller.

CPU is that of our process, by the kernel's accounting (``time.process_time``): on SQLite that includes the database's
own work, which runs in it; on the others the driver's. Rounds of each load are repeated and the median is reported.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import uvloop
from sqlalchemy import insert

from aiproject.accounts.core.model import Account
from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import new_account_id
from aiproject.adapters.db.schema import user as users
from aiproject.adapters.http.asgi import Scope
from aiproject.calls.idempotency import IdempotencyClaim, IdempotencyStore
from aiproject.ledger.batch import apply
from aiproject.ledger.model import Grant, Kind, Meter, Outcome, Stage
from aiproject.ledger.service import LeaseTimes, Quotas

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from services import MySQL, PostgreSQL, ServerMissing

__all__ = ["LOADS", "Figures", "Load", "measure_fsync", "run"]


class Load(NamedTuple):
    """How many callers there are, and whether their calls have keys."""

    callers: int
    is_keyed: bool = False

    def __str__(self) -> str:
        return f"{self.callers} callers{', keyed' if self.is_keyed else ''}"


LOADS = (Load(1), Load(16), Load(200), Load(1, is_keyed=True), Load(16, is_keyed=True), Load(200, is_keyed=True))
ANSWER = b'{"code":0,"content":"' + b"a" * 600 + b'"}'
"""Of a keyed call."""

SECONDS = 3.0
ROUNDS = 3


@dataclass(frozen=True)
class Figures:
    """One load on one database.

    Attributes:
        pairs_per_second: holds with their captures, committed.
        cpu_us: microseconds of our CPU a pair.
        latency_ms: of a hold, median.
    """

    pairs_per_second: float
    cpu_us: float
    latency_ms: float


async def _accounts(database: Database, count: int) -> list[Account]:
    rows = [
        {
            "AccountId": new_account_id(datetime.now(UTC)) + number,
            "Id": f"bench-{number}",
            "NameKey": f"bench-{number}",
            "UserName": f"bench-{number}",
            "PassWord": "",
            "Email": "",
        }
        for number in range(count)
    ]
    async with database.begin() as connection:
        await connection.execute(insert(users), rows)
    accounts = [
        Account(row["AccountId"], row["Id"], row["UserName"], "", None, 0, 0, None, 0, None, None)  # type: ignore[arg-type]
        for row in rows
    ]
    orders = [Grant(account.account_id, Meter.TOKENS, 1 << 50, Kind.GRANT, "bench") for account in accounts]
    async with database.begin() as connection:
        await apply(connection, orders, dialect=database.dialect)
    return accounts


async def _round(
    quotas: Quotas, accounts: list[Account], seconds: float, replay: IdempotencyStore, *, is_keyed: bool = False
) -> Figures:
    latencies: list[float] = []
    deadline = time.perf_counter() + seconds

    async def call(account: Account, request_id: str, claim: IdempotencyClaim) -> None:
        began = time.perf_counter()
        hold = await quotas.hold(
            account,
            Meter.TOKENS,
            2148,
            need=101,
            request_id=request_id,
            prompt_estimate=100,
            completion_limit=2048,
        )
        latencies.append(time.perf_counter() - began)
        quotas.note(hold, Stage.SENT)
        quotas.note(hold, Stage.FIRST_FRAME)
        quotas.note(hold, Stage.LAST_FRAME)
        await quotas.settle(
            hold,
            Outcome.FINISHED,
            Stage.LAST_FRAME,
            reported=357,
            estimated=300,
            sid="cht000b1a2c@dx18a0b1c2d3e4f5",
            answer=claim.stored(ANSWER),
        )

    async def caller(account: Account) -> None:
        while time.perf_counter() < deadline:
            request_id = secrets.token_hex(12)  # as our server names its requests
            async with replay.claim(_request(request_id, is_keyed=is_keyed), account.account_id, b"{}") as claim:
                await call(account, request_id, claim)

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller(account) for account in accounts))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Figures(len(latencies) / wall, cpu / len(latencies) * 1e6, statistics.median(latencies) * 1e3)


def _request(request_id: str, *, is_keyed: bool) -> Scope:
    headers = [(b"idempotency-key", request_id.encode())] if is_keyed else []
    return {
        "path": "/textModel/chat",
        "query_string": b"",
        "headers": headers,
        "aiproject.record": {"request_id": request_id},
    }


async def measure(url: str, *, seconds: float = SECONDS, rounds: int = ROUNDS) -> dict[Load, Figures]:
    """Return the figures of a fresh database, by the load."""
    database = await Database.open(url)
    try:
        await migrations.upgrade(database)
        async with Quotas.running(database, LeaseTimes(30.0)) as quotas:
            replay = IdempotencyStore(database, quotas)
            accounts = await _accounts(database, max(load.callers for load in LOADS))
            await _round(quotas, accounts, 0.5, replay)
            measured: dict[Load, list[Figures]] = {}
            for _ in range(rounds):
                for load in LOADS:
                    figures = await _round(
                        quotas, accounts[: load.callers], seconds, replay, is_keyed=load.is_keyed
                    )  # fmt: skip
                    measured.setdefault(load, []).append(figures)
        return {
            load: Figures(
                statistics.median(figure.pairs_per_second for figure in figures),
                statistics.median(figure.cpu_us for figure in figures),
                statistics.median(figure.latency_ms for figure in figures),
            )
            for load, figures in measured.items()
        }
    finally:
        await database.close()


@contextmanager
def _database(kind: str) -> Iterator[str]:
    with ExitStack() as stack:
        if kind == "sqlite":
            yield f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/bench.db"
            return
        server = {"mysql": MySQL, "postgresql": PostgreSQL}[kind]()
        stack.callback(server.remove)
        server.start()
        yield server.url(server.create_database())


def measure_fsync(times: int = 200) -> float:
    """Return the median milliseconds that this disk takes to have 4 KiB for good."""
    taken = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(times):
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e3


def run(kinds: tuple[str, ...] = ("sqlite", "mysql", "postgresql"), **options: float) -> dict[str, dict[Load, Figures]]:
    """Return the figures by database and load; without those whose server is not on this machine."""
    results = {}
    for kind in kinds:
        try:
            with _database(kind) as url:
                results[kind] = uvloop.run(measure(url, **options))  # type: ignore[arg-type]
        except ServerMissing as error:
            print(error, file=sys.stderr)
    return results
