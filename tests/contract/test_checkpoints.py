"""Checkpoints: what a chain of hashes cannot show by itself, its end cut off or all of it written anew, they show."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import audit_entry, ledger_entry, user
from aiproject.audit.model import server_origin
from aiproject.audit.service import AuditLog
from aiproject.errors import InvalidInput, Misconfigured
from aiproject.ledger.chain import seal
from aiproject.ledger.checkpoint import CheckpointReader
from aiproject.ledger.checkpoint_keys import PRIVATE_FILE, PUBLIC_FILE, private_key, public_key
from aiproject.ledger.checkpoints import DIRECTORY, INTERVAL, KEPT, Checkpoints, anchor_differences
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify
from bookkeeping import open_account


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "node"


async def compared(database: Database, path: Path, data_dir: Path) -> list[str]:
    """What the checkpoint shows."""
    with path.open("rb") as file:
        reader = CheckpointReader(file, public_key(data_dir / PUBLIC_FILE))
        return [str(difference) async for difference in anchor_differences(database, reader)]


async def proved(database: Database) -> list[str]:
    """What is found without a checkpoint."""
    return [str(difference) async for difference in verify(database)]


async def keep_ledger(database: Database) -> None:
    quotas = Quotas(database, LeaseTimes(30))
    await open_account(database, "empty")
    for name in ("ann", "bob"):
        account = await open_account(database, name, tokens=100)
        await quotas.grant(account, tokens=7)


async def cut_off(database: Database, name: str) -> int:
    """Take an account's newest entry away, as if it had never been; return the account's number."""
    async with database.begin() as connection:
        account = (await connection.execute(sa.select(user.c.AccountId).where(user.c.UserName == name))).scalar_one()
        rows = sa.select(ledger_entry).where(ledger_entry.c.account_id == account).order_by(ledger_entry.c.seq.desc())
        newest, before = (await connection.execute(rows)).all()
        await connection.execute(
            sa.delete(ledger_entry).where(ledger_entry.c.account_id == account, ledger_entry.c.seq == newest.seq)
        )
        head = {"Tokens": before.balance, "LedgerSeq": before.seq, "LedgerHash": before.hash}
        await connection.execute(sa.update(user).where(user.c.AccountId == account).values(head))
    return int(account)


class TestWhatTheyShow:
    async def test_nothing_where_the_ledger_only_went_on(self, database: Database, data_dir: Path) -> None:
        await keep_ledger(database)
        signed = await Checkpoints(database, data_dir).write()
        assert (signed.accounts, signed.audit.seq) == (3, 2)
        await keep_more(database)
        assert await compared(database, signed.path, data_dir) == []

    async def test_ends_cut_off(self, database: Database, data_dir: Path) -> None:
        await keep_ledger(database)
        signed = await Checkpoints(database, data_dir).write()
        account = await cut_off(database, "bob")
        async with database.begin() as connection:
            await connection.execute(sa.delete(audit_entry).where(audit_entry.c.seq == 2))
        assert await proved(database) == []
        audit, ledger = await compared(database, signed.path, data_dir)
        assert (
            audit == f"hash of entry 2 of the audit log, by the checkpoint: expected {signed.audit.hash}, found nothing"
        )
        assert ledger.startswith(f"account {account}: hash of entry 2, by the checkpoint: expected ")
        assert ledger.endswith("found nothing")

    async def test_a_chain_that_was_written_anew(self, small_database: Database, data_dir: Path) -> None:
        await open_account(small_database, "ann", tokens=100)
        signed = await Checkpoints(small_database, data_dir).write()
        async with small_database.begin() as connection:
            row: dict[str, Any] = dict((await connection.execute(sa.select(ledger_entry))).mappings().one())
            row |= {"amount": 900, "balance": 900}
            row["hash"] = seal("", **{name: value for name, value in row.items() if name != "hash"})
            await connection.execute(sa.update(ledger_entry).values(row))
            await connection.execute(sa.update(user).values(Tokens=900, LedgerHash=row["hash"]))
        assert await proved(small_database) == []
        (difference,) = await compared(small_database, signed.path, data_dir)
        assert difference.endswith(f"found {row['hash']}")

    async def test_accounts_without_a_trace(self, small_database: Database, data_dir: Path) -> None:
        account = await open_account(small_database, "empty")
        signed = await Checkpoints(small_database, data_dir).write()
        async with small_database.begin() as connection:
            await connection.execute(sa.delete(user))
        assert await proved(small_database) == []
        assert await compared(small_database, signed.path, data_dir) == [
            f"account {account.account_id}: account, by the checkpoint: expected one, found nothing"
        ]

    async def test_all_of_many_accounts(
        self, small_database: Database, data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("aiproject.ledger.checkpoints.CHUNK", 2)
        monkeypatch.setattr("aiproject.ledger.checkpoints.COMPARED", 2)
        accounts = [await open_account(small_database, f"person {n}", tokens=1) for n in range(5)]
        signed = await Checkpoints(small_database, data_dir).write(is_patient=True)
        assert signed.accounts == 5
        async with small_database.begin() as connection:
            await connection.execute(sa.update(ledger_entry).values(hash="0" * 64))
        found = await compared(small_database, signed.path, data_dir)
        told = {each.partition(":")[0] for each in found}
        assert told == {f"account {account.account_id}" for account in accounts}


async def keep_more(database: Database) -> None:
    """What an honest server does meanwhile."""
    await Quotas(database, LeaseTimes(30)).grant(await open_account(database, "eve", tokens=3), tokens=1)
    await AuditLog(database).record(server_origin(), "user.unlock", "eve")


class TestSignatures:
    @pytest.fixture
    async def path(self, small_database: Database, data_dir: Path) -> Path:
        await keep_ledger(small_database)
        return (await Checkpoints(small_database, data_dir).write()).path

    def test_the_private_half_is_the_owners_alone(self, path: Path, data_dir: Path) -> None:
        mode = (data_dir / PRIVATE_FILE).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    async def test_a_private_half_that_was_replaced_signs_nothing(
        self, small_database: Database, path: Path, data_dir: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "other").mkdir()
        private_key(tmp_path / "other")
        (data_dir / PRIVATE_FILE).write_bytes((tmp_path / "other" / PRIVATE_FILE).read_bytes())
        with pytest.raises(Misconfigured, match="CHECKPOINT_KEYS_NO_PAIR"):
            await Checkpoints(small_database, data_dir).write()

    async def test_a_key_is_made_once(self, data_dir: Path) -> None:
        assert private_key(data_dir).private_bytes_raw() == private_key(data_dir).private_bytes_raw()

    @pytest.mark.parametrize("line", range(5))
    def test_an_edited_line_shows(self, path: Path, data_dir: Path, line: int) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        lines[line] = re.sub(rb"\d", lambda found: b"2" if found[0] == b"1" else b"1", lines[line], count=1)
        self.assert_refused(path, b"".join(lines), data_dir)

    @pytest.mark.parametrize("damage", [b"", b"{}", b"{}\n", b"[]\n", b"\xff\n", b"1" * 5000, b"[" * 998 + b"\n"])
    def test_what_is_no_checkpoint(self, path: Path, data_dir: Path, damage: bytes) -> None:
        self.assert_refused(path, damage, data_dir)

    def test_one_that_was_cut_off(self, path: Path, data_dir: Path) -> None:
        whole = path.read_bytes()
        for length in range(0, len(whole), 7):
            self.assert_refused(path, whole[:length], data_dir)

    def assert_refused(self, path: Path, data: bytes, data_dir: Path) -> None:
        path.write_bytes(data)
        with path.open("rb") as file, pytest.raises(InvalidInput):
            CheckpointReader(file, public_key(data_dir / PUBLIC_FILE))

    async def test_another_key_is_refused(self, path: Path) -> None:
        with path.open("rb") as file, pytest.raises(InvalidInput, match="CHECKPOINT_SIGNATURE_WRONG"):
            CheckpointReader(file, Ed25519PrivateKey.generate().public_key())

    def test_a_file_that_is_no_key(self, data_dir: Path) -> None:
        data_dir.mkdir()
        for name in (PRIVATE_FILE, PUBLIC_FILE):
            (data_dir / name).write_text("no key")
        with pytest.raises(Misconfigured):
            private_key(data_dir)
        with pytest.raises(Misconfigured):
            public_key(data_dir / PUBLIC_FILE)
        with pytest.raises(Misconfigured):
            public_key(data_dir / "missing")


class TestEveryHour:
    async def test_one_is_written_when_the_newest_is_old(self, small_database: Database, data_dir: Path) -> None:
        checkpoints = Checkpoints(small_database, data_dir)
        with capture_logs() as logs:
            first = await checkpoints.write_if_due()
            assert await checkpoints.write_if_due() is None
        assert first is not None
        (event,) = [each for each in logs if each["event"] == "ledger checkpoint written"]
        assert (event["sha256"], event["signature"]) == (first.digest, first.signature)
        os.utime(first.path, times=(time.time() - INTERVAL,) * 2)
        assert await checkpoints.write_if_due() is not None

    async def test_a_running_server_writes_them(
        self, small_database: Database, data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("aiproject.ledger.checkpoints.LOOK_SECONDS", (0.01, 0.02))
        async with Checkpoints(small_database, data_dir).running():
            deadline = time.monotonic() + 30
            while not list((data_dir / DIRECTORY).glob("*.jsonl")):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

    async def test_a_day_of_them_is_kept(self, small_database: Database, data_dir: Path) -> None:
        directory = data_dir / DIRECTORY
        directory.mkdir(parents=True)
        for hour in range(KEPT + 3):
            (directory / f"2020-01-{1 + hour // 24:02}T{hour % 24:02}-00-00Z.jsonl").write_text("old\n")
        leftover = directory / ".2020-01-01T00-00-00Z.jsonl.0123"
        leftover.write_text("half")
        os.utime(leftover, times=(0, 0))
        signed = await Checkpoints(small_database, data_dir).write()
        kept = sorted(path.name for path in directory.iterdir())
        assert (len(kept), kept[0], kept[-1]) == (KEPT, "2020-01-01T04-00-00Z.jsonl", signed.path.name)

    async def test_a_failed_one_leaves_nothing(
        self, small_database: Database, data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await keep_ledger(small_database)

        def fail(*_: object) -> None:
            raise OSError("the disk is full")

        monkeypatch.setattr("aiproject.ledger.checkpoint.CheckpointWriter.add", fail)
        with pytest.raises(OSError, match="full"):
            await Checkpoints(small_database, data_dir).write()
        assert list((data_dir / DIRECTORY).iterdir()) == []
