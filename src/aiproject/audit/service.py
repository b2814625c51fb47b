"""Reads, exports and verifies the audit log; only `aiproject.audit.store.record` writes it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, fields
from typing import Any, Literal

from aiproject.adapters.db.engine import Database
from aiproject.adapters.http.timestamps import format_milliseconds
from aiproject.audit import store
from aiproject.audit.model import AuditContext, AuditEntry, AuditFilter, Fact, seal

__all__ = ["EXPORT_MEDIA_TYPES", "AuditLog", "ExportFormat", "exported"]

PAGE = 1000
"""Entries per page when all of them are read."""

ExportFormat = Literal["csv", "jsonl"]

EXPORT_MEDIA_TYPES: dict[ExportFormat, str] = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}

COLUMNS = (*(field.name for field in fields(AuditEntry)), "time")

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


EVERYTHING = AuditFilter()


class AuditLog:
    """The audit log for its readers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(
        self,
        origin: AuditContext,
        action: str,
        target: str,
        *,
        before: dict[str, Fact] | None = None,
        after: dict[str, Fact] | None = None,
    ) -> None:
        """Append an entry in a transaction of its own, for acts that change nothing else in the database."""
        await self._database.transact(store.record, origin, action, target, before=before, after=after)

    async def newest(self, wanted: AuditFilter = EVERYTHING, *, limit: int, offset: int = 0) -> list[AuditEntry]:
        """Return entries, the newest first."""
        async with self._database.connect() as connection:
            return await store.newest(connection, wanted, limit=limit, offset=offset)

    async def count(self, wanted: AuditFilter = EVERYTHING) -> int:
        """Return the number of entries."""
        async with self._database.connect() as connection:
            return await store.count(connection, wanted)

    async def all(self, wanted: AuditFilter = EVERYTHING) -> AsyncIterator[AuditEntry]:
        """Yield entries, the oldest first. Reading page by page is safe, because the log only grows at its end."""
        after = 0
        while True:
            async with self._database.connect() as connection:
                page = await store.oldest(connection, wanted, after=after, limit=PAGE)
            for entry in page:
                yield entry
            if len(page) < PAGE:
                return
            after = page[-1].seq

    async def export(self, form: ExportFormat, wanted: AuditFilter = EVERYTHING) -> AsyncIterator[str]:
        """Yield the lines of an export, the oldest entry first.

        In CSV, a cell that a spreadsheet would interpret as a formula is prefixed with an apostrophe; JSON lines are
        exact.
        """
        if form == "csv":
            yield _csv_line(COLUMNS)
        async for entry in self.all(wanted):
            row = exported(entry)
            if form == "csv":
                yield _csv_line([_harmless(row[name]) for name in COLUMNS])
            else:
                yield json.dumps(row, separators=(",", ":")) + "\n"

    async def verify(self) -> AsyncIterator[str]:
        """Yield a sentence for each place where the log is not as it was written: a gap, an edit, a wrong hash.

        Entries removed from the end leave no trace in the log itself: compare the newest hash with one that was
        exported earlier.
        """
        previous, expected = "", 1
        async for entry in self.all():
            if entry.seq != expected:
                yield f"entries {expected} to {entry.seq - 1} are missing"
            told = asdict(entry)
            hash_ = told.pop("hash")
            if seal(previous, **told) != hash_:
                yield f"entry {entry.seq} does not fit its hash"
            previous, expected = hash_, entry.seq + 1


def exported(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry's fields, with its time also as text."""
    return asdict(entry) | {"time": format_milliseconds(entry.at)}


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def _csv_line(cells: Any) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
