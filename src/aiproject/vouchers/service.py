"""Use cases of vouchers; each opens and commits its own transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from aiproject.accounts.core.model import Account
from aiproject.adapters.db.engine import Connection, Database
from aiproject.adapters.db.errors import PRIMARY, CommitInDoubt, UniqueViolation
from aiproject.adapters.log import get_logger
from aiproject.audit.model import AuditContext, Fact, server_origin
from aiproject.audit.store import record
from aiproject.codes import Detail
from aiproject.errors import AiProjectError, InvalidInput, VoucherRedeemed, VoucherUnusable
from aiproject.ledger.batch import apply
from aiproject.ledger.model import Grant, Kind, Meter
from aiproject.vouchers import store
from aiproject.vouchers.model import CodeTaken, Voucher, VoucherNameTaken, check_new_voucher, normal_code

__all__ = ["Vouchers", "facts"]

log = get_logger("vouchers")

MAX_AT_ONCE = 10_000
"""Maximum number of vouchers that are created in one transaction."""

LIST_PAGE = 500
"""Vouchers that are read at once when all are listed."""

LOOKS = 5
"""Maximum attempts of a redemption whose commit is in doubt."""

LOOK_PAUSE = 0.5
"""Seconds between these attempts, in which a lost database node may return or another may take over."""


class Vouchers:
    """Creates, changes and redeems vouchers."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._clock = clock

    async def add(
        self,
        *,
        name: str | None = None,
        code: str | None = None,
        count: int = 1,
        tokens: int = 0,
        pic_times: int = 0,
        audience: str | None = None,
        expires_at: datetime | None = None,
        max_uses: int | None = None,
        origin: AuditContext | None = None,
    ) -> Sequence[Voucher]:
        """Create ``count`` vouchers, all or none.

        Args:
            name: shown in lists and in the audit log; a number is appended for each of several vouchers. ``None``:
                their numbers serve as names.
            code: only for a single voucher; ``None``: codes are drawn.
            origin: who acts, for the audit log; ``None``: the server.

        Raises:
            InvalidInput: see `check_new_voucher`.
            CodeTaken: a voucher with this code exists.
            VoucherNameTaken: a voucher with this name exists.
        """
        if not 1 <= count <= MAX_AT_ONCE:
            raise InvalidInput(Detail.VOUCHER_COUNT_OUT_OF_RANGE, limit=MAX_AT_ONCE)
        if code is not None and count != 1:
            raise InvalidInput(Detail.VOUCHER_CODE_FOR_ONE)
        now, by = self._clock(), origin or server_origin()
        new = [
            check_new_voucher(
                name=name if name is None or count == 1 else f"{name} {number}",
                code=code,
                tokens=tokens,
                pic_times=pic_times,
                audience=audience,
                expires_at=expires_at,
                max_uses=max_uses,
                now=now,
            )
            for number in range(1, count + 1)
        ]
        try:
            await self._database.transact(_insert, new, by)
        except UniqueViolation as error:
            if error.constraint == PRIMARY:
                raise CodeTaken(Detail.VOUCHER_CODE_TAKEN) from None
            raise VoucherNameTaken(Detail.VOUCHER_NAME_TAKEN) from None
        log.info("vouchers made", count=count, tokens=tokens, pic_times=pic_times)
        return new

    async def all(self) -> AsyncIterator[Voucher]:
        """Yield every voucher in the order of codes, a page at a time."""
        after = ""
        while True:
            async with self._database.connect() as connection:
                page = await store.listed(connection, after=after, limit=LIST_PAGE)
            for voucher in page:
                yield voucher
            if len(page) < LIST_PAGE:
                return
            after = page[-1].code

    async def set_available(self, name: str, is_available: bool, *, origin: AuditContext | None = None) -> Voucher:
        """Enable or disable a voucher; past redemptions stay.

        Args:
            name: the name or the code, see `store.find_named`.
            origin: who acts, for the audit log; ``None``: the server.

        Raises:
            VoucherUnusable: there is none with this name or code.
        """
        voucher = await self._database.transact(_set_available, name, is_available, origin or server_origin())
        log.info("voucher switched on" if is_available else "voucher switched off")
        return voucher

    async def modify(
        self,
        name: str,
        *,
        tokens: int,
        pic_times: int,
        audience: str | None,
        is_available: bool,
        origin: AuditContext | None = None,
    ) -> Voucher:
        """Change a voucher's value for future redemptions, its audience, and whether it may be redeemed.

        Raises:
            VoucherUnusable: there is none with this name or code.
            InvalidInput: it would have no value, see `check_new_voucher`.
        """

        def alter(old: Voucher) -> Voucher:
            checked = check_new_voucher(
                code=old.code,
                tokens=tokens,
                pic_times=pic_times,
                audience=audience,
                expires_at=None,
                max_uses=None,
                now=self._clock(),
            )
            return replace(
                old, tokens=tokens, pic_times=pic_times, audience=checked.audience, is_available=is_available
            )

        return await self._database.transact(_modify, name, alter, origin or server_origin())

    async def delete(self, name: str, *, origin: AuditContext | None = None) -> Voucher:
        """Delete a voucher. Its redemptions stay, so the same accounts cannot redeem a new voucher with this code.

        Raises:
            VoucherUnusable: there is none with this name or code.
        """
        return await self._database.transact(_delete, name, origin or server_origin())

    async def check(self, account: Account, code: str, *, claimed_academy: str = "") -> None:
        """Check whether the account may redeem a code, without changes or locks.

        A code that the account has redeemed already passes; `redeem` reports it.

        Raises:
            VoucherUnusable: as in `redeem`.
        """
        code = normal_code(code)
        async with self._database.connect() as connection:
            voucher = await store.find(connection, code) if code else None
            if voucher is None:
                raise VoucherUnusable
            is_usable = voucher.state(self._clock()) == "available" and voucher.is_for(
                account.academy, claimed=claimed_academy
            )
            if not is_usable and await store.redeemed_at(connection, code, account.account_id) is None:
                raise VoucherUnusable

    async def redeem(self, account: Account, code: str, *, claimed_academy: str = "") -> Voucher:
        """Add a voucher's value to an account: the use, the redemption and the balances in one transaction.

        Args:
            claimed_academy: see `Voucher.is_for`.

        Raises:
            VoucherUnusable: this account, or any account, cannot redeem such a code now; no use was counted.
            VoucherRedeemed: the account has redeemed it before.
            Unavailable: the database is unavailable. If it was lost during the commit, a second call reports whether
                the redemption took effect.
        """
        code = normal_code(code)
        now = self._clock()
        async with self._database.connect() as connection:
            voucher = await store.find(connection, code) if code else None
        if voucher is None:
            raise VoucherUnusable  # without a write: guessing must not delay the redemptions of others
        for look in range(1, LOOKS + 1):
            try:
                voucher = await self._database.transact(self._redeem_once, account, code, claimed_academy, now)
                break
            except CommitInDoubt:
                if look == LOOKS:
                    raise
                await asyncio.sleep(LOOK_PAUSE)
        log.info("voucher redeemed", account=account.account_id, tokens=voucher.tokens, pic_times=voucher.pic_times)
        return voucher

    async def _redeem_once(
        self, connection: Connection, account: Account, code: str, claimed_academy: str, now: datetime
    ) -> Voucher:
        account_id = account.account_id
        known = await store.redeemed_at(connection, code, account_id)
        if known is None:
            if not await store.use(connection, code, now):
                # A simultaneous call of the same account may just have taken the last use.
                if await store.redeemed_at(connection, code, account_id) is not None:
                    raise VoucherRedeemed
                raise VoucherUnusable
        elif known != now:
            raise VoucherRedeemed
        voucher = await store.find(connection, code)
        if known is None and voucher is not None:
            try:
                await store.record(connection, voucher, account_id, now)
            except UniqueViolation:
                raise VoucherRedeemed from None
        if voucher is None or not voucher.is_for(account.academy, claimed=claimed_academy):
            raise VoucherUnusable
        if known == now:
            return voucher  # the commit that was in doubt did take effect
        worth = {Meter.TOKENS: voucher.tokens, Meter.PIC_TIMES: voucher.pic_times}
        grants = [
            Grant(account_id, capability, amount, Kind.VOUCHER, voucher.reference)
            for capability, amount in worth.items()
            if amount
        ]
        for result in await apply(connection, grants, dialect=self._database.dialect):
            if isinstance(result, AiProjectError):
                raise result
        return voucher


async def _insert(connection: Connection, new: Sequence[Voucher], origin: AuditContext) -> None:
    await store.add(connection, new)
    target = new[0].title if len(new) == 1 else f"{len(new)} vouchers"
    after: dict[str, Fact] = {"count": len(new), **facts(new[0])}
    await record(connection, origin, "voucher.add", target, after=after)


async def _locked(connection: Connection, name: str) -> Voucher:
    found = await store.find_named(connection, name, is_locked=True)
    if found is None:
        raise VoucherUnusable
    return found


async def _set_available(connection: Connection, name: str, is_available: bool, origin: AuditContext) -> Voucher:
    old = await _locked(connection, name)
    new = replace(old, is_available=is_available)
    await store.change(connection, new)
    action = "voucher.enable" if is_available else "voucher.disable"
    before, after = {"is_available": old.is_available}, {"is_available": is_available}
    await record(connection, origin, action, old.title, before=before, after=after)
    return new


async def _modify(
    connection: Connection, name: str, alter: Callable[[Voucher], Voucher], origin: AuditContext
) -> Voucher:
    old = await _locked(connection, name)
    new = alter(old)
    await store.change(connection, new)
    was, now_so = facts(old), facts(new)
    changed = [name for name in was if was[name] != now_so[name]]
    await record(
        connection,
        origin,
        "voucher.modify",
        old.title,
        before={name: was[name] for name in changed},
        after={name: now_so[name] for name in changed} | {"made_at": now_so["made_at"]},
    )
    return new


async def _delete(connection: Connection, name: str, origin: AuditContext) -> Voucher:
    old = await _locked(connection, name)
    await store.delete(connection, old.code)
    before: dict[str, Fact] = {**facts(old), "uses": old.uses}
    await record(connection, origin, "voucher.delete", old.title, before=before)
    return old


def facts(voucher: Voucher) -> dict[str, str | int | bool | None]:
    """Return the properties of a voucher for the audit log, without the code.

    `aiproject.ledger.verify` compares them with the vouchers that were created at the same time.
    """
    return {
        "made_at": voucher.created_at.astimezone(UTC).isoformat(timespec="microseconds"),
        "tokens": voucher.tokens,
        "pic_times": voucher.pic_times,
        "audience": voucher.audience,
        "is_available": voucher.is_available,
        "expires_at": None if voucher.expires_at is None else voucher.expires_at.isoformat(timespec="seconds"),
        "max_uses": voucher.max_uses,
    }
