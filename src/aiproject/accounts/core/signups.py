"""The quota that new accounts start with, bounded by the address that opens them.

Accounts are free, so the sign-up quota of many is free as well: whoever registers a hundred times has a hundred of it.
Each address therefore gets it for so many accounts in a day. Accounts beyond that are opened all the same, with an
empty balance that vouchers and administrators fill: people behind a shared address keep their names, and existing apps
would show a refusal as "用户名已存在".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta

from aiproject.accounts.core import signup_store as store
from aiproject.accounts.core.service import GrantOpening
from aiproject.adapters.db.engine import Connection
from aiproject.protocols.addresses import address_site

__all__ = ["Opening", "SignupQuota"]

NETWORKS_OF_A_SITE = 8
"""So many times the limit is given to one IPv6 site in a day. A customer with a site has 65,536 networks, each of them
an address to limits, and would have the sign-up quota as often; a mobile operator has many customers in one site."""

KEPT = timedelta(days=2)
"""How long counts are kept: today's, and yesterday's for nodes whose clocks are behind."""


class SignupQuota:
    """Decides what accounts start with that are opened by registration.

    Args:
        full: gives an account the sign-up quota.
        empty: gives it what an account beyond the bound has.
        limit: accounts of one address in a day that get the sign-up quota; ``None``: all do. An IPv6 address is a /64;
            for the /48 around it, see `NETWORKS_OF_A_SITE`.
        now: the moment, in the time zone in which days begin.
    """

    def __init__(
        self, full: GrantOpening, empty: GrantOpening, *, limit: int | None, now: Callable[[], datetime]
    ) -> None:
        self._full = full
        self._empty = empty
        self._limit = limit
        self._now = now
        self._forgot_on = 0

    def opening(self, address: str) -> Opening:
        """Return what gives its opening quota to one account that ``address`` registers, a name of `address_group`."""
        return Opening(self, address)

    async def grant_opening(self, connection: Connection, account_id: int, address: str) -> bool:
        """Grant the opening quota in the transaction that opens the account; return whether it got the full one.

        The account is counted in the same transaction, under the lock of the address' row: any number of registrations
        at the same moment, on any number of nodes, get the quota just as often as the limit says.
        """
        is_counted = self._limit is None or await self._count(connection, address, self._limit)
        await (self._full if is_counted else self._empty)(connection, account_id)
        return is_counted

    async def _count(self, connection: Connection, address: str, limit: int) -> bool:
        now = self._now()
        day = _day_of(now)
        bounds = {address: limit}
        if site := address_site(address):
            bounds[site] = limit * NETWORKS_OF_A_SITE
        for (
            subject,
            most,
        ) in bounds.items():  # the narrow one first, as everybody does, so that nobody waits in a circle
            if not await store.count(connection, day, _hashed(subject), limit=most):
                return False
        if self._forgot_on != day:  # once a day is enough, and a range that is deleted gets in the way of others
            self._forgot_on = day
            await store.forget(connection, before=_day_of(now - KEPT))
        return True


def _hashed(subject: str) -> str:
    return hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()


def _day_of(moment: datetime) -> int:
    return int(f"{moment:%Y%m%d}")


class Opening:
    """Grants one account its opening quota; given to `Accounts.register`.

    Attributes:
        is_full: whether the account got the sign-up quota; known once the account is open.
    """

    def __init__(self, quota: SignupQuota, address: str) -> None:
        self._quota = quota
        self._address = address
        self.is_full = True

    async def __call__(self, connection: Connection, account_id: int) -> None:
        self.is_full = await self._quota.grant_opening(connection, account_id, self._address)
