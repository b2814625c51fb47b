"""The parts of the application that the server and the commands share.

Commands import this module instead of `aiproject.wiring`, which loads every package for the server, because a command
must respond immediately.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from aiproject.adapters.log import get_logger
from aiproject.codes import Detail
from aiproject.config.settings import Settings
from aiproject.errors import Misconfigured

if TYPE_CHECKING:
    import argon2

    from aiproject.accounts.core.service import GrantOpening
    from aiproject.ledger.service import Quotas

__all__ = ["open_database", "opening", "password_profile", "prepare_schema", "signup_voice_ms"]

log = get_logger("wiring")


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Database]:
    """Open the database of the settings, and close it at the end."""
    database = await Database.open(settings.effective_database_url)
    try:
        yield database
    finally:
        await database.close()


async def prepare_schema(database: Database) -> None:
    """Upgrade an embedded or an empty database; refuse any other one that is not up to date.

    SQLite belongs to this program alone. On a database server, nodes of the previous release may still be running, and
    an existing table of users may belong to another application, so the operator decides there.

    Raises:
        Misconfigured: ``aiproject db upgrade`` is needed, or a later release of this program.
        Unavailable: the database is unavailable, or an upgrade by another process does not end.
    """
    status = await migrations.status(database)
    if status.is_current:
        return
    if status.is_newer:
        raise Misconfigured(Detail.SCHEMA_NEWER, found=str(status.current), known=str(status.head))
    if status.is_empty or (database.dialect == "sqlite" and not status.is_foreign):
        report = await migrations.upgrade(database)
        log.info("database brought up to date", revision=report.to_revision)
        return
    # Another worker or node may have found the database empty as well, and be upgrading it now.
    status = await migrations.settled_status(database)
    if status.is_current:
        return
    if status.is_foreign:
        raise Misconfigured(Detail.SCHEMA_FOREIGN)
    raise Misconfigured(Detail.SCHEMA_OLDER, found=str(status.current), needed=str(status.head))


def password_profile(settings: Settings) -> argon2.Parameters:
    """Return the parameters of password hashing."""
    from aiproject.adapters.passwords import argon2id  # most commands do not hash passwords

    return argon2id(settings.argon2_memory, settings.argon2_passes, settings.argon2_lanes)


def signup_voice_ms(settings: Settings) -> int | None:
    """Return the dictation that a new account starts with, in milliseconds; ``None``: unmetered."""
    seconds = settings.signup_voice_seconds
    return None if seconds is None else seconds * 1000


def opening(settings: Settings, quotas: Quotas) -> GrantOpening:
    """Return what grants a new account its initial quota."""
    return partial(
        quotas.grant_opening,
        tokens=settings.signup_tokens,
        pic_times=settings.signup_pic_times,
        voice_ms=signup_voice_ms(settings),
    )
