"""Checkpoints of a database: written every hour by a running server, or by command; and compared with it later.

The format is `aiproject.ledger.checkpoint`'s.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from aiproject.adapters.db.engine import Connection, Database
from aiproject.adapters.log import get_logger
from aiproject.errors import AiProjectError
from aiproject.ledger import checkpoint_store as store
from aiproject.ledger.checkpoint import CheckpointReader, CheckpointWriter, Head, Signed
from aiproject.ledger.checkpoint_keys import private_key
from aiproject.ledger.findings import Difference

__all__ = ["DIRECTORY", "Checkpoints", "anchor_differences"]

log = get_logger("quotas")

DIRECTORY = "checkpoints"
"""In the data directory."""

INTERVAL = 3600.0
"""Seconds between two checkpoints of one data directory: what was cut off is noticed if it is older than that."""

LOOK_SECONDS = (60.0, 120.0)
"""Pause before it is looked again whether a checkpoint is due: drawn between these, so that the processes of a node
take turns, and not shorter, so that a start or a full disk does not cause a burst."""

KEPT = 24
"""Files that are kept, a day of them. What shall last longer belongs on another machine anyway."""

CHUNK = 1000
"""Accounts read in one go, by their index: some milliseconds."""

COMPARED = 400
"""Heads compared in one go; with two parameters each, below the 999 of an old SQLite."""


class Checkpoints:
    """Writes the checkpoints of one database into one data directory."""

    def __init__(self, database: Database, data_dir: Path) -> None:
        self._database = database
        self._data_dir = data_dir
        self._directory = data_dir / DIRECTORY

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write one whenever it is due, while inside."""
        task = asyncio.create_task(self._keep_writing())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def write(self, path: Path | None = None, *, is_patient: bool = False) -> Signed:
        """Write a checkpoint.

        Args:
            path: where to; ``None``: into the data directory, where old ones are removed.
            is_patient: rest between reads as long as they took, so that a server's calls go first.

        Raises:
            Misconfigured: the key cannot be read or made.
            OSError: the disk refuses.
            Unavailable: the database is away.
        """
        key = await asyncio.to_thread(private_key, self._data_dir)
        now = time.time()
        name = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H-%M-%SZ}.jsonl"
        # The audit log first: what is recorded from now on may be missing, and nothing is in it too early.
        audit = await self._audit_head()
        writer = await asyncio.to_thread(CheckpointWriter, path or self._directory / name, audit, int(now * 1000))
        try:
            async for heads in self._heads(is_patient=is_patient):
                await asyncio.to_thread(writer.add, heads)
            signed = await asyncio.to_thread(writer.finish, key)
        finally:
            await asyncio.to_thread(writer.discard)
        if path is None:
            await asyncio.to_thread(self._remove_old)
        return signed

    async def write_if_due(self) -> Signed | None:
        """Write a checkpoint if the newest one is an hour old, and log what proves it."""
        if not await asyncio.to_thread(self._is_due):
            return None
        signed = await self.write(is_patient=True)
        log.info(
            "ledger checkpoint written",
            file=signed.path.name,
            accounts=signed.accounts,
            audit_seq=signed.audit.seq,
            audit_hash=signed.audit.hash,
            sha256=signed.digest,
            signature=signed.signature,
        )
        return signed

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(random.uniform(*LOOK_SECONDS))  # noqa: S311
            try:
                await self.write_if_due()
            except (AiProjectError, OSError) as error:
                log.warning("no ledger checkpoint written", error=str(error))
            except Exception as error:  # noqa: BLE001 - a mistake of ours must not end the checkpoints
                log.error("no ledger checkpoint written", error=type(error).__name__)

    def _is_due(self) -> bool:
        newest = max((path.stat().st_mtime for path in self._files()), default=0.0)
        return not newest <= time.time() < newest + INTERVAL  # a clock that was put back does not end them

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob("*.jsonl"))

    def _remove_old(self) -> None:
        for path in self._files()[:-KEPT]:
            path.unlink(missing_ok=True)
        for draft in self._directory.glob(".*.jsonl.*"):  # of a process that was killed
            if draft.stat().st_mtime < time.time() - INTERVAL:
                draft.unlink(missing_ok=True)

    async def _audit_head(self) -> Head:
        async with self._database.connect() as connection:
            return await store.audit_head(connection)

    async def _heads(self, *, is_patient: bool) -> AsyncIterator[Sequence[Head]]:
        """Yield the heads of all accounts, as their rows keep them, each chunk in a transaction of its own."""
        after = -1
        while True:
            began = time.monotonic()
            async with self._database.connect() as connection:
                heads = await store.heads_after(connection, after, CHUNK)
            if heads:
                yield heads
            if len(heads) < CHUNK:
                return
            after = heads[-1].account_id
            if is_patient:
                await asyncio.sleep(time.monotonic() - began)


async def anchor_differences(database: Database, checkpoint: CheckpointReader) -> AsyncIterator[Difference]:
    """Yield each chain that does not hold the head any more that it had when the checkpoint was written.

    Together with `aiproject.ledger.verify.verify`, which proves that chains are whole, this proves that nothing is
    missing or different that was there at that time.
    """
    async with database.connect() as connection:
        for difference in await _audit_difference(connection, checkpoint.audit):
            yield difference
    heads_left = checkpoint.heads()
    while heads := list(islice(heads_left, COMPARED)):
        async with database.connect() as connection:
            found = list(await _compare(connection, heads))
        for difference in found:
            yield difference


async def _audit_difference(connection: Connection, head: Head) -> list[Difference]:
    if not head.seq:
        return []
    stored = await store.audit_hash(connection, head.seq)
    what = f"hash of entry {head.seq} of the audit log, by the checkpoint"
    return [] if stored == head.hash else [Difference(None, what, head.hash, stored)]


async def _compare(connection: Connection, heads: Sequence[Head]) -> Iterator[Difference]:
    present = await store.existing_accounts(connection, [head.account_id for head in heads])
    hashes = await store.entry_hashes(connection, [(head.account_id, head.seq) for head in heads if head.seq])
    return _differences(heads, present, hashes)


def _differences(
    heads: Sequence[Head], present: set[int], hashes: dict[tuple[int, int], str]
) -> Iterator[Difference]:  # fmt: skip
    for head in heads:
        if head.account_id not in present:
            yield Difference(head.account_id, "account, by the checkpoint", "one", None)
        elif head.seq and hashes.get((head.account_id, head.seq)) != head.hash:
            what = f"hash of entry {head.seq}, by the checkpoint"
            yield Difference(head.account_id, what, head.hash, hashes.get((head.account_id, head.seq)))
