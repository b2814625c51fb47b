"""The services that commands about accounts use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiproject.accounts.core.service import Accounts
from aiproject.adapters.db.engine import Database
from aiproject.adapters.passwords import PasswordHasher, PasswordService
from aiproject.assembly import opening, password_profile
from aiproject.config.settings import Settings
from aiproject.ledger.service import LeaseTimes, Quotas

__all__ = ["open_services"]


@asynccontextmanager
async def open_services(settings: Settings, database: Database) -> AsyncIterator[tuple[Accounts, Quotas]]:
    """Open accounts and their quotas on an open database; at the end, stop the threads that hash passwords."""
    passwords = PasswordService(PasswordHasher(password_profile(settings)))
    try:
        quotas = Quotas(database, LeaseTimes(settings.hold_lease))
        accounts = Accounts(
            database, passwords, opening(settings, quotas), password_min_length=settings.password_min_length
        )
        yield accounts, quotas
    finally:
        await passwords.close()
