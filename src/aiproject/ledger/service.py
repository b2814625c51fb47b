"""Hold before a call, settle after it, whatever happened; and everything else that changes a balance."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import partial

from msgspec.structs import replace

from aiproject.accounts.core.model import Account
from aiproject.adapters.db.engine import Connection, Database
from aiproject.adapters.log import get_logger
from aiproject.audit.model import AuditContext, server_origin
from aiproject.errors import AiProjectError
from aiproject.ledger.account_store import read_balances
from aiproject.ledger.batch import Result
from aiproject.ledger.batcher import LedgerBatcher, SettlementDeferred
from aiproject.ledger.grants import apply_grants, apply_refund, by_meter, grants_of
from aiproject.ledger.model import (
    MAX_UNITS,
    ClaimKey,
    ClaimResult,
    ExtendHold,
    GiveKeyUp,
    Hold,
    Key,
    KeyLost,
    Kind,
    Meter,
    OpenHold,
    Outcome,
    Refund,
    Refunded,
    Renew,
    Settle,
    Settled,
    Stage,
    Unpaid,
    snapshot,
)
from aiproject.ledger.rules import CHARGES, RULE_VERSION, Basis, charge, is_billable
from aiproject.ledger.settled import SEALED
from aiproject.ledger.sweeper import SWEEP_LIMIT, close_expired
from aiproject.ledger.waiting import HoldQueue, Watch

__all__ = ["LeaseTimes", "Quotas"]

log = get_logger("quotas")


RENEW_LIMIT = 200
"""Leases renewed in one transaction."""

MAX_SID_LENGTH = 64
"""Characters of a vendor's session id that are kept; theirs have about forty."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """When holds of the dead are closed.

    Attributes:
        lease: seconds without a renewal after which anybody may close a hold.
    """

    lease: float

    @property
    def renew_every(self) -> float:
        return self.lease / 3

    @property
    def sweep_every(self) -> float:
        return self.lease / 2


class Quotas:
    """The quota engine of one process. Make it with `running`."""

    def __init__(
        self,
        database: Database,
        leases: LeaseTimes,
        batcher: LedgerBatcher | None = None,
        *,
        zone: tzinfo = UTC,
        unpaid_per_day: int = 0,
        wait: float = 0.0,
    ) -> None:
        """For commands, which grant and add; a server uses `running`, which also renews leases and sweeps.

        Args:
            zone: in which the days begin that daily caps and the bound of unpaid usage count.
            unpaid_per_day: tokens of failed calls that an account need not pay in a day.
            wait: seconds that a call waits at most for quota which other calls of its account hold; 0: not at all.
        """
        self._database = database
        self._leases = leases
        self._zone = zone
        self._unpaid_per_day = unpaid_per_day
        self._batcher = LedgerBatcher(database) if batcher is None else batcher
        self._queue = HoldQueue(self._batcher.submit, partial(read_balances, database), wait)
        # Names this process among all that ever used the database.
        self._owner = f"{socket.gethostname()[:30]}:{os.getpid()}:{secrets.token_hex(8)}"
        self._open: dict[tuple[str, int], Stage] = {}
        self._keys: dict[Key, str] = {}  # with the request ids of their calls

    @classmethod
    @asynccontextmanager
    async def running(
        cls, database: Database, leases: LeaseTimes, *, zone: tzinfo = UTC, unpaid_per_day: int = 0, wait: float = 0.0
    ) -> AsyncIterator[Quotas]:
        """Open an engine; while inside, renew its leases and close the holds of dead processes."""
        quotas = cls(database, leases, zone=zone, unpaid_per_day=unpaid_per_day, wait=wait)
        tasks = [asyncio.create_task(quotas._keep_leases()), asyncio.create_task(quotas._keep_sweeping())]
        try:
            yield quotas
        finally:
            quotas.stop_waiting()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await quotas._batcher.close()

    @property
    def _lease_ms(self) -> int:
        return int(self._leases.lease * 1000)

    # -- calls ----------------------------------------------------------------------------------------------------

    async def hold(
        self,
        account: Account,
        capability: Meter,
        amount: int,
        *,
        request_id: str,
        attempt: int = 1,
        need: int | None = None,
        key_id: int | None = None,
        pair: tuple[str, str] | None = None,
        watch: Watch | None = None,
        **facts: int | str,
    ) -> Hold:
        """Set quota aside before anything is sent upstream; return once that is committed.

        If the account has enough and other running calls of it hold too much of that, the call waits for them, in the
        order of arrival and at most as long as this engine's ``wait``: see `aiproject.ledger.waiting`. It does so only
        if less than ``need`` is free; a call that a small rest serves takes the rest.

        Args:
            amount: the most that the call can consume: tokens, pictures or milliseconds.
            need: less than this is of no use to the call; ``None``: all of ``amount``.
            key_id: the API key that the call is made with; what it may spend counts as well.
            pair: see `OpenHold.pair`.
            watch: opens what cancels this task when the caller hangs up; entered only while the call waits.
            facts: what the rule was worked out from, kept with the hold (estimates, limits).

        Raises:
            QuotaExhausted: the account has less than ``need``.
            QuotaBusy: it has enough, but less was free during all of the wait.
            SpendLimitReached: the key may spend less than ``need``.
            AccountUnknown: the account was deleted meanwhile, or ``pair`` is no longer its owner's.
            NotSignedIn: the key was.
            Unavailable: the database is away, or the server stopped during the wait; nothing was held.

        Settle the hold exactly once. If this process dies, the sweeper of any node does when the lease has run out.
        """
        hold = await self._queue.hold(
            OpenHold(
                account_id=account.account_id,
                capability=capability,
                want=amount,
                need=amount if need is None else need,
                request_id=request_id,
                attempt=attempt,
                owner=self._owner,
                lease_ms=self._lease_ms,
                rule=snapshot(rule=RULE_VERSION, **SEALED, **facts),
                key_id=key_id,
                zone=self._zone,
                pair=pair,
            ),
            watch,
        )
        self._open[hold.request_id, hold.attempt] = Stage.HELD
        return hold

    def stop_waiting(self) -> None:
        """Refuse the calls that wait for quota, and let no new one wait: the server is stopping."""
        self._queue.stop()

    async def extend(self, hold: Hold, units: int) -> Hold:
        """Set up to ``units`` more aside for a running call; return the hold with its new amount, once committed.

        For a call whose length nobody knows beforehand: it holds a slice, asks for the next one in time, and ends where
        it gets none. The amount grows by what is free and what the API key may still spend, which may be less than
        asked or nothing; it does not grow any more once the hold was closed or the account disabled. There is no
        waiting for what other calls hold: two calls that hold and wait for each other would both wait in vain.

        Settle the hold that this returns. Asking again with the same ``hold`` returns what was granted for it before,
        so that a call may repeat the question after an error.

        Args:
            hold: as `hold` or the last `extend` returned it; a call that nobody pays is granted everything.
            units: at least 0; tokens, pictures or milliseconds.

        Raises:
            Unavailable: the database is away. What may have been granted all the same ends with the settlement.
        """
        if units < 0:
            raise ValueError("a hold is never extended by less than nothing")
        if hold.account_id is None:
            return replace(hold, amount=hold.amount + units)
        return await self._batcher.submit(ExtendHold(hold, units, self._zone))

    def note(self, hold: Hold, stage: Stage) -> None:
        """Note how far the call has got; written with the next renewal of the lease."""
        key = (hold.request_id, hold.attempt)
        if key in self._open:
            self._open[key] = stage

    async def settle(
        self,
        hold: Hold,
        outcome: Outcome,
        stage: Stage,
        *,
        reported: int | None = None,
        estimated: int = 0,
        seen: int = 0,
        sid: str | None = None,
        answer: tuple[str, str, bytes] | None = None,
    ) -> int:
        """Close the hold by the table of `aiproject.ledger.rules`; return what the caller is charged.

        Args:
            reported: units that upstream reported; ``None``: it said nothing.
            estimated: our estimate of the units.
            seen: our estimate of the prompt and of what was passed on to the caller, which counts if the call is free
                up to a bound.
            answer: ``(scope, key_hash, bytes)`` to store in the same transaction, see `aiproject.calls.idempotency`.

        Idempotent by (request id, attempt). While the database is away it waits a little and then returns what will be
        charged; the settlement is kept and tried again.

        Raises:
            KeyLost: ``answer`` is not stored, at least not yet, and must not be given.
        """
        if hold.account_id is None:
            return 0
        amount = charge(outcome, stage, reported=reported, estimated=estimated)
        command = Settle(
            hold=hold,
            charge=amount,
            outcome=outcome,
            stage=stage,
            reported=None if reported is None else min(max(reported, 0), MAX_UNITS),
            sid=None if sid is None else _storable(sid),
            answer=answer,
            unpaid=self._unpaid(hold, outcome, stage, used=estimated if reported is None else reported, seen=seen),
        )
        try:
            result = await self._batcher.submit(command, then=partial(self._settled, command))
        except AiProjectError:
            result = None  # `_settled` has logged it
        if isinstance(result, Settled):
            if result.is_key_lost:
                log.warning("an answer was late: its key is in other hands", request_id=hold.request_id)
                raise KeyLost("the key was taken over while its call ran")
            return result.charged
        if isinstance(result, SettlementDeferred):
            log.warning("settlement kept until the database is back", request_id=hold.request_id)
        if answer is not None:
            # Its caller can come back for it. Given now, and were this process killed, it would be free.
            raise KeyLost("the charge of a keyed call is not committed yet")
        return min(amount, hold.amount)

    def _unpaid(self, hold: Hold, outcome: Outcome, stage: Stage, *, used: int, seen: int) -> Unpaid | None:
        """Return what a call consumed that the table does not charge, or not within the bound; ``None``: nothing."""
        basis = CHARGES[outcome][stage]
        if basis is Basis.REPORTED or basis is Basis.ESTIMATED or not is_billable(outcome, stage):
            return None
        counts = basis is Basis.BOUNDED and hold.capability.spec.is_gradual
        seen = min(max(seen, 0), MAX_UNITS) if counts else 0
        return Unpaid(min(max(used, seen), MAX_UNITS), seen, self._unpaid_per_day, self._zone)

    def _settled(self, command: Settle, result: Result) -> None:
        hold = command.hold
        # Until now the lease was renewed: a settlement that waits for the database is not an orphan.
        self._open.pop((hold.request_id, hold.attempt), None)
        if not isinstance(result, Settled):
            log.error("a settlement failed", request_id=hold.request_id, error=type(result).__name__)
            return
        self._queue.freed(hold.account_id, hold.capability)
        if result.lost and command.unpaid is None:
            log.warning(
                "more was consumed than held; the rest is the operator's loss",
                account=hold.account_id,
                request_id=hold.request_id,
                charged=result.charged,
                lost=result.lost,
            )

    # -- idempotency keys -----------------------------------------------------------------------------------------

    async def claim_key(self, key: Key, *, body_hash: str, request_id: str) -> ClaimResult:
        """Claim a key for a call, and keep it, until `give_key_up` or `let_key_go`, by renewing its lease.

        Args:
            body_hash: see `ClaimKey`.
            request_id: of the call; its answer is stored by `settle` only while this claim stands.

        Raises:
            Unavailable: the database is away; if it went in this moment, the key may be claimed until its lease ends.
        """
        turn = await self._batcher.submit(ClaimKey(key, body_hash, request_id, self._lease_ms))
        if turn is ClaimResult.OURS:
            self._keys[key] = request_id
        return turn

    def let_key_go(self, key: Key, request_id: str) -> None:
        """Renew the lease of a key no more: its call is over."""
        if self._keys.get(key) == request_id:
            del self._keys[key]

    async def give_key_up(self, key: Key, request_id: str) -> None:
        """Free the key of a call that failed, for the next try. If the database is away its lease does, a bit later."""
        self.let_key_go(key, request_id)
        try:
            await self._batcher.submit(GiveKeyUp(key, request_id))
        except AiProjectError as error:
            # The call's own end is what its caller must hear of, perhaps has heard of already.
            log.warning("a key is left to its lease", request_id=request_id, error=str(error))

    # -- grants ---------------------------------------------------------------------------------------------------

    async def grant(self, account: Account, *, origin: AuditContext | None = None, **amounts: int) -> None:
        """Add to the balances in one transaction; negative numbers take away what is not held, never below zero.

        Args:
            origin: whose act it is: an entry of the audit log, with the balances before and after, which the ledger's
                entries name; ``None``: the server's own.
            amounts: by the meters' names, in what operators grant: ``tokens=500, voice_seconds=60``.

        Raises:
            AccountUnknown: there is no such account.
            InvalidInput: a balance would grow too large.
        """
        by = server_origin() if origin is None else origin
        named = by_meter({str(meter): meter for meter in Meter}, amounts)
        units = {meter: meter.stored(amount) for meter, amount in named.items() if amount}
        grants = grants_of(account.account_id, units, Kind.GRANT, by.request_id)
        if not grants:
            return
        await self._database.transact(apply_grants, grants, dialect=self._database.dialect, origin=by)
        for each in grants:
            self._queue.freed(each.account_id, each.capability)
        log.info("quota granted", account=account.account_id, **amounts)

    async def refund(
        self, account: Account, request_id: str, *, attempt: int | None = None, origin: AuditContext | None = None
    ) -> Refunded:
        """Give back what one call was charged, once, in one transaction with its entry of the audit log.

        Args:
            attempt: which try of the call; ``None``: the one that was charged.
            origin: who refunds; ``None``: the server itself.

        Raises:
            AccountUnknown: there is no such account.
            InvalidInput: it was charged nothing for such a call, or that was given back already.
            CommitInDoubt: it may be done; a second attempt finds out.
        """
        refund = Refund(account.account_id, request_id, attempt)
        by = server_origin() if origin is None else origin
        result = await self._database.transact(apply_refund, refund, dialect=self._database.dialect, origin=by)
        self._queue.freed(account.account_id, result.capability)
        log.info("charge refunded", account=account.account_id, request_id=request_id, amount=result.amount)
        return result

    async def grant_opening(self, connection: Connection, account_id: int, **balances: int | None) -> None:
        """Give a new account what it starts with, inside the transaction that opens it.

        Args:
            balances: units by the meters' fields: ``tokens=500, voice_ms=60_000``; ``None`` or not named: unmetered
                where a balance can be, else 0.

        Raises:
            InvalidInput: it is more than a balance may hold.
        """
        units = by_meter({meter.spec.field: meter for meter in Meter}, balances)
        grants = grants_of(account_id, units, Kind.SIGNUP, "signup")
        if grants:
            await apply_grants(connection, grants, dialect=self._database.dialect)

    # -- housekeeping ---------------------------------------------------------------------------------------------

    async def sweep(self) -> int:
        """Close holds whose owners are dead, by the table of charges; return how many, at most `SWEEP_LIMIT`."""
        closed = await close_expired(self._database)
        for hold in closed:
            self._queue.freed(hold.account_id, hold.capability)
        if closed:
            log.warning("holds of dead processes closed", count=len(closed))
        return len(closed)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._leases.renew_every)
            await self.renew()

    async def renew(self) -> None:
        """Prolong the leases of the holds that are not settled yet, and note how far their calls have got; and those of
        the keys whose calls run."""
        running, keys = list(self._open.items()), list(self._keys.items())
        for start in range(0, max(len(running), len(keys)), RENEW_LIMIT):
            some = slice(start, start + RENEW_LIMIT)
            try:
                await self._batcher.submit(Renew(dict(running[some]), self._lease_ms, dict(keys[some])))
            except AiProjectError as error:
                log.warning("leases not renewed", error=str(error))

    async def _keep_sweeping(self) -> None:
        while True:
            # Drawn at random, so that nodes that start together do not sweep together.
            await asyncio.sleep(self._leases.sweep_every * random.uniform(0.7, 1.3))  # noqa: S311
            try:
                while await self.sweep() >= SWEEP_LIMIT:
                    continue
            except AiProjectError as error:
                log.warning("not swept", error=str(error))
            except Exception as error:  # noqa: BLE001 - a bug in one round must not end the sweeping
                log.error("not swept", error=type(error).__name__)


def _storable(sid: str) -> str:
    """Upstream says what its session is called; nothing that it could say may keep a settlement from being written."""
    if len(sid) <= MAX_SID_LENGTH and sid.isascii() and sid.isprintable():
        return sid
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in sid[:MAX_SID_LENGTH])
