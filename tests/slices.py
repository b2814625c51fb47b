"""Calls that hold their quota slice by slice, in a process of its own that tests may kill at any moment.

No endpoint extends holds yet, so that this program stands in for a server with live calls: it holds, extends and
settles on the shared database as fast as it can, and writes a line to its log for each settlement that it was told of.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import sys
from collections.abc import Sequence

from aiproject.accounts.core import store
from aiproject.accounts.core.model import Account
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import name_key
from aiproject.adapters.log import configure
from aiproject.ledger.model import Meter, Outcome, Stage
from aiproject.ledger.service import LeaseTimes, Quotas

__all__ = ["PREFIX", "WORKERS", "main"]

PREFIX = "slices-"
"""What the request ids of these calls begin with."""

WORKERS = 4
"""Calls at once; as many settlements may be committed when the process is killed without a line that says so."""


async def _call(quotas: Quotas, account: Account, key_id: int | None) -> None:
    identity = PREFIX + secrets.token_hex(12)
    hold = await quotas.hold(account, Meter.TOKENS, 20, request_id=identity, key_id=key_id, prompt_estimate=3)
    quotas.note(hold, Stage.SENT)
    for _ in range(random.randrange(6)):
        hold = await quotas.extend(hold, random.randrange(1, 50))
        await asyncio.sleep(random.uniform(0, 0.01))
    charged = await quotas.settle(
        hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=random.randrange(1, hold.amount + 10)
    )
    # One write, so that a line is there whole or not at all.
    os.write(1, f"{identity} {charged}\n".encode())


async def _run(url: str, lease: float, callers: Sequence[tuple[str, int | None]]) -> None:
    database = await Database.open(url)
    async with database.connect() as connection:
        found = await store.by_name_keys(connection, [name_key(name) for name, _ in callers])
    accounts = {account.username: account for account, *_ in found}

    async def work(quotas: Quotas, number: int) -> None:
        name, key_id = callers[number % len(callers)]
        while True:
            await _call(quotas, accounts[name], key_id)

    async with Quotas.running(database, LeaseTimes(lease)) as quotas, asyncio.TaskGroup() as group:
        for number in range(WORKERS):
            group.create_task(work(quotas, number))


def main() -> None:
    """Run until it is killed: ``slices URL LEASE NAME[=KEY_ID]…``."""
    configure("error", "json")
    url, lease, *callers = sys.argv[1:]
    parsed = [(name, int(key_id) if key_id else None) for name, _, key_id in (each.partition("=") for each in callers)]
    asyncio.run(_run(url, float(lease), parsed))
