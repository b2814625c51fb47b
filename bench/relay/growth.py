"""Does a chat cost more when there are more accounts, and when the books are thick?

Databases are filled by SQL, in the order of their keys, with rows as the program writes them: every account has its
opening grant and then charges, each with its captured hold. Only the seals are random, since nothing is verified here.
They take some 6 GB for 10 million entries under ``--scratch``, which is removed at the end.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from bench.relay.contenders import Contender, aiproject
from bench.relay.measuring import CALLERS, CHAT, measured, upstream

__all__ = ["SCALES", "Scale", "fill", "growth", "name_of", "uuid_of"]

GRANT = 10**12
PRICE = 205
"""Tokens of a charge in the books, as one of the benchmark's chats is charged."""

CALLED = 1000
"""Accounts, spread over all, that the load takes turns with."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How big a database is; every account has ``entries / accounts`` entries, its grant among them."""

    accounts: int
    entries: int


SCALES = (Scale(1_000, 1_000), Scale(100_000, 1_000_000), Scale(1_000_000, 10_000_000))

ACCOUNT_ID = "700000000000 + i * 4096"
REQUEST_ID = "printf('%08x%06x%010x', i * (4294967296 / :accounts), s, i)"
"""24 hexadecimal digits, spread evenly, and rising with the account. A real one begins with the time, so that those of
the calls stand together somewhere between them."""

OPENED_AT = "1780000000000 + i * 1000 + s * 10"
NUMBERS = """
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :accounts),
    t(s) AS (SELECT 1 UNION ALL SELECT s + 1 FROM t WHERE s + 1 <= :each)
"""

USERS = f"""
    {NUMBERS} INSERT INTO user (Id, UserName, PassWord, Tokens, Email, PicTimes, Academy, AccountId, NameKey, CreatedAt,
                                LedgerSeq, LedgerHash)
    SELECT printf('bench%027x', i), printf('person %d', i),
           '$argon2id$v=19$m=65536,t=3,p=4$' || hex(randomblob(8)) || '$' || hex(randomblob(16)),
           {GRANT} - (:each - 1) * {PRICE}, printf('person%d@example.org', i), 0, NULL, {ACCOUNT_ID},
           printf('person %d', i), '2026-05-01 08:00:00.000000', :each, lower(hex(randomblob(32)))
    FROM n
"""
ENTRIES = f"""
    {NUMBERS} INSERT INTO ledger_entry (account_id, seq, capability, amount, balance, kind, request_id, attempt, rule,
                                        created_at, hash)
    SELECT {ACCOUNT_ID}, s, 'tokens', iif(s = 1, {GRANT}, -{PRICE}), {GRANT} - (s - 1) * {PRICE},
           iif(s = 1, 'signup', 'charge'), iif(s = 1, 'signup', {REQUEST_ID}), iif(s = 1, 0, 1), :rule,
           {OPENED_AT}, lower(hex(randomblob(32)))
    FROM n CROSS JOIN t
"""
HOLDS = f"""
    {NUMBERS} INSERT INTO hold (request_id, attempt, account_id, capability, amount, state, stage, owner, lease_until,
                                opened_at, closed_at, outcome, reported, charged, sid, rule)
    SELECT {REQUEST_ID}, 1, {ACCOUNT_ID}, 'tokens', 4101, 'captured', 'last frame', 'bench', {OPENED_AT} + 30000,
           {OPENED_AT}, {OPENED_AT} + 900, 'finished', {PRICE}, {PRICE}, 'cht000cb087@dx18793cd421fb894542', :rule
    FROM n CROSS JOIN t WHERE s > 1
"""
RULE = '{"basis":"reported","completion_limit":4096,"prompt_estimate":5,"rule":1}'


def uuid_of(number: int) -> str:
    """Return the uuid of account ``number``."""
    return f"bench{number:027x}"


def name_of(number: int) -> str:
    """Return its name."""
    return f"person {number}"


def fill(path: Path, scale: Scale) -> None:
    """Make the database at ``path``, and fill it."""
    asyncio.run(_migrate(path))
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        words = {"accounts": scale.accounts, "each": scale.entries // scale.accounts, "rule": RULE}
        for statement in (USERS, ENTRIES, HOLDS):
            connection.execute(statement, {name: words[name] for name in words if f":{name}" in statement})
            connection.commit()
    finally:
        connection.close()


async def _migrate(path: Path) -> None:
    database = await Database.open(f"sqlite:///{path}")
    try:
        await migrations.upgrade(database)
    finally:
        await database.close()


@contextmanager
def _filled(scratch: Path | None, scale: Scale) -> Iterator[tuple[Path, list[tuple[str, str]], float]]:
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="aiproject-bench-growth-", dir=scratch))
    try:
        began = time.monotonic()
        fill(folder / "aiproject.db", scale)
        taken = random.Random(1).sample(range(scale.accounts), min(CALLED, scale.accounts))
        yield folder, [(uuid_of(number), name_of(number)) for number in taken], time.monotonic() - began
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def growth(
    *, rounds: int, calls: int = 1000, scales: Sequence[Scale] = SCALES, scratch: Path | None = None
) -> dict[str, Any]:
    """Compare the cost of a chat on databases of several sizes, in alternating rounds."""
    found: list[dict[str, Any]] = []
    with ExitStack() as stack:
        port = stack.enter_context(upstream()).port
        contenders: list[Contender] = []
        for scale in scales:
            folder, accounts, seconds = stack.enter_context(_filled(scratch, scale))
            size = (folder / "aiproject.db").stat().st_size
            contenders.append(stack.enter_context(aiproject(port, filled=(folder, accounts))))
            found.append(
                {
                    "accounts": scale.accounts,
                    "entries": scale.entries,
                    "database_mib": size / 2**20,
                    "filled_in_seconds": seconds,
                }
            )
        costs: list[list[float]] = [[] for _ in scales]
        waits: list[list[float]] = [[] for _ in scales]
        for number in range(rounds + 1):
            for contender, row, wait in zip(contenders, costs, waits, strict=True):
                called, cpu = measured(contender, CHAT, 50, calls=calls, callers=CALLERS)
                if number:  # the first round warms up
                    row.append(cpu)
                    wait += called.whole
    for figures, row, wait in zip(found, costs, waits, strict=True):
        figures["cpu_us"] = statistics.median(row)
        figures["whole_ms_p50"] = statistics.median(wait) * 1000
        figures["ratio"] = statistics.median(cpu / base for cpu, base in zip(row, costs[0], strict=True))
    return {"scales": found}
