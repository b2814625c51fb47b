"""Databases as our migrations leave them, made once and then copied for each test that wants one."""

from __future__ import annotations

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from services import Server

__all__ = ["Migrated"]


class Migrated:
    """Makes them on demand.

    Args:
        path: for the SQLite file that is copied.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: dict[Server, str] = {}

    def file(self, path: Path) -> str:
        """Make a SQLite file with the current schema; returns its URL."""
        if not self._path.exists():
            _migrate(f"sqlite:///{self._path}")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(self._path, path)
        return f"sqlite:///{path}"

    def on(self, server: Server) -> str:
        """The name of a database on a server that has the current schema; not to be used but by `copy_database`."""
        if server not in self._names:
            name = server.create_database()
            _migrate(server.url(name))
            self._names[server] = name
        return self._names[server]


def _migrate(url: str) -> None:
    async def upgrade() -> None:
        database = await Database.open(url)
        try:
            await migrations.upgrade(database)
        finally:
            await database.close()

    # In a thread, whatever loop the caller may have.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, upgrade()).result()
