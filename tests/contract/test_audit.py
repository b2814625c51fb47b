"""The audit log on real databases: written with the act or not at all, in one chain, by any number of nodes."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from typing import Any

import pytest
import sqlalchemy as sa

from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import audit_entry
from aiproject.audit.model import Actor, ActorKind, AuditContext, AuditFilter
from aiproject.audit.service import AuditLog
from aiproject.audit.store import record

ORIGIN = AuditContext(Actor(ActorKind.ADMINISTRATOR, "小明"), "192.0.2.7", "request-1")


@pytest.fixture
def log(database: Database) -> AuditLog:
    return AuditLog(database)


async def differences(log: AuditLog) -> list[str]:
    return [each async for each in log.verify()]


async def lines(log: AuditLog, form: Any, wanted: AuditFilter | None = None) -> list[str]:
    return [each async for each in log.export(form, wanted or AuditFilter())]


class TestWriting:
    async def test_what_an_entry_holds(self, log: AuditLog) -> None:
        await log.record(ORIGIN, "user.grant", "alice", before={"tokens": 1}, after={"tokens": 2, "academy": "文院"})
        (entry,) = await log.newest(limit=10)
        assert (entry.seq, entry.actor_kind, entry.actor) == (1, "administrator", "小明")
        assert (entry.action, entry.target, entry.before) == ("user.grant", "alice", '{"tokens":1}')
        assert json.loads(entry.after) == {"tokens": 2, "academy": "文院"}
        assert (entry.address, entry.request_id, len(entry.hash)) == ("192.0.2.7", "request-1", 64)

    async def test_it_goes_with_its_act(self, database: Database, log: AuditLog) -> None:
        async def act(fails: bool) -> None:
            async with database.begin() as connection:
                await record(connection, ORIGIN, "user.delete", "alice")
                if fails:
                    raise LookupError

        with pytest.raises(LookupError):
            await act(True)
        assert await log.count() == 0
        await act(False)
        assert await log.count() == 1

    async def test_anything_can_be_a_target(self, log: AuditLog) -> None:
        for target in ("x" * 1000, "nul\0and\ud800half", "", "'; DROP TABLE audit_entry; --", "emoji 🐎"):
            await log.record(ORIGIN, "user.delete", target)
        assert await differences(log) == []
        assert len((await log.newest(limit=10))[-1].target) == 200

    async def test_many_writers_of_two_nodes_make_one_chain(self, database: Database, database_url: str) -> None:
        other = await Database.open(database_url)
        try:

            async def write(node: Database, number: int) -> None:
                await node.transact(record, ORIGIN, "user.grant", f"user {number}", after={"tokens": number})

            await asyncio.gather(*(write(database if n % 2 else other, n) for n in range(40)))
        finally:
            await other.close()
        log = AuditLog(database)
        assert await differences(log) == []
        entries = await log.newest(limit=100)
        assert [entry.seq for entry in entries] == list(range(40, 0, -1))
        assert {entry.target for entry in entries} == {f"user {n}" for n in range(40)}


class TestReading:
    @pytest.fixture
    async def filled(self, log: AuditLog) -> AuditLog:
        for number, (actor, action) in enumerate(
            [("ann", "user.add"), ("ann", "user.grant"), ("bob", "voucher.add"), ("bob", "user_x")]
        ):
            origin = AuditContext(Actor(ActorKind.COMMAND_LINE, actor), "", f"request {number}")
            await log.record(origin, action, f"target {number}")
        return log

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            (AuditFilter(), [4, 3, 2, 1]),
            (AuditFilter(actor="ann"), [2, 1]),
            (AuditFilter(actor="an%"), []),
            (AuditFilter(action="user.add"), [1]),
            (AuditFilter(action="user."), [2, 1]),
            (AuditFilter(action="%."), []),
            (AuditFilter(target="target 2"), [3]),
            (AuditFilter(request_id="request 3"), [4]),
            (AuditFilter(before_seq=3), [2, 1]),
            (AuditFilter(since=2**50), []),
            (AuditFilter(until=2**50), [4, 3, 2, 1]),
        ],
    )
    async def test_filters(self, filled: AuditLog, wanted: AuditFilter, found: list[int]) -> None:
        assert [entry.seq for entry in await filled.newest(wanted, limit=10)] == found
        assert await filled.count(wanted) == len(found)

    async def test_exports(self, filled: AuditLog) -> None:
        told = [json.loads(line) for line in await lines(filled, "jsonl")]
        assert [each["seq"] for each in told] == [1, 2, 3, 4]
        rows = list(csv.DictReader(io.StringIO("".join(await lines(filled, "csv")))))
        assert [row["hash"] for row in rows] == [each["hash"] for each in told]
        assert (await lines(filled, "jsonl", AuditFilter(actor="bob")))[0].startswith('{"seq":3,')

    async def test_a_spreadsheet_reads_no_formula(self, log: AuditLog) -> None:
        await log.record(ORIGIN, "user.delete", '=HYPERLINK("http://x")')
        (row,) = csv.DictReader(io.StringIO("".join(await lines(log, "csv"))))
        assert row["target"] == '\'=HYPERLINK("http://x")'
        assert json.loads((await lines(log, "jsonl"))[0])["target"].startswith("=")


class TestProof:
    @pytest.mark.parametrize(
        ("column", "value"),
        [("target", "somebody else"), ("at", 5), ("after", "{}"), ("hash", "0" * 64), ("actor", "x")],
    )
    async def test_an_edit_shows(self, database: Database, log: AuditLog, column: str, value: object) -> None:
        for number in range(3):
            await log.record(ORIGIN, "user.grant", f"user {number}", after={"tokens": number})
        assert await differences(log) == []
        async with database.begin() as connection:
            await connection.execute(sa.update(audit_entry).where(audit_entry.c.seq == 2).values({column: value}))
        assert "entry 2 does not fit its hash" in await differences(log)

    async def test_a_gap_shows(self, database: Database, log: AuditLog) -> None:
        for number in range(4):
            await log.record(ORIGIN, "user.grant", f"user {number}")
        async with database.begin() as connection:
            await connection.execute(sa.delete(audit_entry).where(audit_entry.c.seq.in_([2, 3])))
        assert await differences(log) == ["entries 2 to 3 are missing", "entry 4 does not fit its hash"]
