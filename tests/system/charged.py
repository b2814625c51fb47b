"""Charged calls over real sockets, and what the books say of them afterwards."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from aiproject.accounts.core.model import Account
from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import hold, ledger_entry, stored_answer, user
from bookkeeping import open_account
from crash import PATHS, Node, small_picture
from forker import shared_forker
from system import wire

__all__ = ["SERVICES", "Books", "Caller", "caller_of", "cluster", "dialog_call", "opened_books"]

SERVICES = ("chat", "stream", "picture", "voice")

MILLISECONDS = 200
CLIP = b"\x10\x00" * (16 * MILLISECONDS)
PICTURE = small_picture()

_names = count(1)


def dialog_call(account: Account, prompt: str) -> bytes:
    """The body of a chat."""
    dialog = [{"role": "user", "content": prompt}]
    return json.dumps({"uuid": account.uuid, "username": account.username, "dialog": dialog}).encode()


@dataclass(frozen=True)
class Caller:
    """Somebody with an account, at one server."""

    account: Account
    port: int

    def at(self, node: Node) -> Caller:
        """The same person at another server."""
        return replace(self, port=node.port)

    async def ask(
        self,
        service: str,
        key: str | None = None,
        *,
        prompt: str = "你好",
        headers: Sequence[wire.Header] = (),
        body: bytes | None = None,
        query: str = "",
    ) -> wire.Answer:
        """Make a call on a connection of its own and read the whole answer."""
        async with wire.Connection(self.port) as connection:
            self.begin(connection, service, key, prompt=prompt, headers=headers, body=body, query=query)
            return await connection.answer()

    def begin(
        self,
        connection: wire.Connection,
        service: str,
        key: str | None = None,
        *,
        prompt: str = "你好",
        headers: Sequence[wire.Header] = (),
        body: bytes | None = None,
        query: str = "",
    ) -> None:
        """Send a call, and leave the answer to the caller."""
        sent = [*headers]
        if key is not None:
            sent.append(("Idempotency-Key", key))
        if service in ("chat", "stream"):
            sent.append(("Content-Type", "application/json"))
            content = dialog_call(self.account, prompt)
        else:
            sent += [("uuid", self.account.uuid), ("username", quote(self.account.username))]
            sent.append(("Content-Type", "application/octet-stream"))
            content = PICTURE if service == "picture" else CLIP
        connection.ask("POST", PATHS[service] + query, sent, content if body is None else body)


class Books:
    """The database of the servers, from beside them."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def rows(self, table: sa.Table, account: Account) -> list[dict[str, Any]]:
        column = table.c.AccountId if table is user else table.c.account_id
        async with self.database.connect() as connection:
            found = await connection.execute(sa.select(table).where(column == account.account_id))
            return [dict(row) for row in found.mappings()]

    async def charges(self, account: Account) -> list[int]:
        """What was taken, in the order in which it was."""
        entries = sorted(await self.rows(ledger_entry, account), key=lambda entry: int(entry["seq"]))
        return [-entry["amount"] for entry in entries if entry["kind"] == "charge"]

    async def holds(self, account: Account) -> list[dict[str, Any]]:
        return sorted(await self.rows(hold, account), key=lambda row: int(row["opened_at"]))

    async def balance(self, account: Account) -> dict[str, Any]:
        """The account's row."""
        (row,) = await self.rows(user, account)
        return row

    async def stored(self, account: Account) -> list[dict[str, Any]]:
        """The account's keys."""
        async with self.database.connect() as connection:
            found = await connection.execute(
                sa.select(stored_answer).where(stored_answer.c.scope == f"account {account.account_id}")
            )
            return [dict(row) for row in found.mappings()]

    async def change(self, statement: sa.Update) -> None:
        """Interfere."""
        async with self.database.begin() as connection:
            await connection.execute(statement)


@asynccontextmanager
async def opened_books(url: str) -> AsyncIterator[Books]:
    """Open a database; make its schema if it is empty."""
    database = await Database.open(url)
    try:
        await migrations.upgrade(database)
        yield Books(database)
    finally:
        await database.close()


async def caller_of(
    books: Books, node: Node, *, tokens: int = 100_000, pic_times: int = 100, voice_ms: int | None = 1_000_000
) -> Caller:
    """A new account, its owner at ``node``."""
    name = f"somebody{next(_names)}"
    account = await open_account(books.database, name, tokens=tokens, pic_times=pic_times, voice_ms=voice_ms)
    return Caller(account, node.port)


@asynccontextmanager
async def cluster(
    size: int, database_url: str, platform: dict[str, str], directory: Path, *arguments: str, **settings: str
) -> AsyncIterator[list[Node]]:
    """Servers on one database, ready to be called; killed at the end.

    Args:
        platform: the settings that lead to it.
        arguments: of each server's command line.
        settings: by their names, ``hold_lease="1"``.
    """
    environment = {f"AIPROJECT_{name.upper()}": value for name, value in settings.items()}
    environment |= {**platform, "AIPROJECT_DATABASE_URL": database_url}
    nodes = [
        Node(f"server{index}", environment, directory, forker=shared_forker(), arguments=arguments)
        for index in range(size)
    ]
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            assert node.await_ready(), node.log_tail()
        yield nodes
    finally:
        for node in nodes:
            node.kill()
