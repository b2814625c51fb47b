"""Existing names, older than the rules for new ones, that can be confused with others, for ``aiproject doctor``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiproject.accounts.core import store as account_store
from aiproject.adapters.db.engine import Connection, Database
from aiproject.administration import store as administrator_store
from aiproject.cli.findings import Finding
from aiproject.messages.commands import Line
from aiproject.protocols.names import hides_characters, is_reordering, mixes_digits, mixes_scripts, name_key

__all__ = ["examine_names"]

SHOWN = 10
"""Maximum names in a finding; of further ones only the number is given."""

BATCH = 1000
"""Rows that are read at once."""

NamesAfter: TypeAlias = Callable[[Connection, int, int], Awaitable[list[tuple[int, str, str]]]]
"""Reads a page of names. Takes the connection, the last number of the previous page, and the maximum of rows."""


async def examine_names(database: Database) -> list[Finding]:
    """Examine the names of all administrators and accounts."""
    administrators = await _misleading(database, administrator_store.names_after)
    accounts = await _misleading(database, account_store.names_after)
    findings = []
    if administrators:
        lines = (Line.NAMES_OF_ADMINISTRATORS, Line.NAMES_OF_MORE_ADMINISTRATORS)
        findings.append(_finding("fix", administrators, *lines))
    if accounts:
        findings.append(_finding("note", accounts, Line.NAMES_OF_ACCOUNTS, Line.NAMES_OF_MORE_ACCOUNTS))
    return findings or [Finding("ok", "names", Line.NAMES_FINE)]


async def _misleading(database: Database, names_after: NamesAfter) -> list[str]:
    found: list[str] = []
    last = -1
    while True:
        async with database.connect() as connection:
            rows = await names_after(connection, last, BATCH)
        found += [name for _, name, key in rows if _is_misleading(name, key)]
        if len(rows) < BATCH:
            return found
        last = rows[-1][0]


def _is_misleading(name: str, key: str) -> bool:
    if hides_characters(name):
        return True
    if name.isascii():
        return False
    # A key with ignorable characters remains only if the key without them belongs to another account.
    return key != name_key(name) or is_reordering(name) or mixes_scripts(name) or mixes_digits(name)


def _finding(level: str, names: list[str], whole: Line, cut: Line) -> Finding:
    shown = [ascii(name) for name in names[:SHOWN]]  # escaped, so that the difference is visible
    if len(names) <= SHOWN:
        return Finding(level, "names", whole, names=shown)
    return Finding(level, "names", cut, names=shown, count=len(names) - SHOWN)
