"""Balances, holds and ledger entries: what the commands of one batch make of the rows that it read.

`steps` yields the statements of a batch and does no I/O itself; `apply` runs them inside a transaction of the caller's.

Order of locks: account rows first, in the order of their numbers, then everything else. Whoever changes a hold, counts
what an API key spends or appends an entry holds the account's row, so that two batches meet there and nowhere else. (A
renewal changes no more than the lease and the stage of holds that are its own.)
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.accounts.core.fingerprints import uuid_fingerprint
from aiproject.adapters.db.errors import PRIMARY, UniqueViolation
from aiproject.adapters.db.runner import Steps, take_steps
from aiproject.codes import Detail
from aiproject.errors import AccountUnknown, AiProjectError, InvalidInput, QuotaBusy, QuotaExhausted, Unavailable
from aiproject.ledger.batch_rows import (
    BALANCE_AT,
    CAPTURED,
    CHARGE,
    DISABLED,
    HELD_AT,
    OPEN,
    REFUND,
    RELEASED,
    SERVER_KILLED,
    USED_AT,
    UUID,
    AccountRow,
    BatchRows,
    HoldRow,
)
from aiproject.ledger.model import (
    MAX_UNITS,
    ClaimKey,
    ClaimResult,
    Command,
    ExtendHold,
    GiveKeyUp,
    Grant,
    Hold,
    HoldState,
    Key,
    Kind,
    LossReason,
    Meter,
    OpenHold,
    Outcome,
    Refund,
    Refunded,
    Renew,
    Settle,
    Settled,
    Unpaid,
    snapshot,
)
from aiproject.ledger.settled import settled_rule

__all__ = ["Result", "apply", "steps"]

Result = Hold | Settled | Refunded | ClaimResult | int | AiProjectError | None


async def apply(
    connection: AsyncConnection, commands: Sequence[Command], *, dialect: str, may_be_done: bool = False
) -> list[Result]:
    """Carry out ``commands`` in their order; return a result for each, an error of the tree where one is refused.

    Args:
        connection: in a transaction, which the caller commits; nothing is done until then.
        may_be_done: an earlier commit of the same commands is in doubt, so look whether their holds exist already.
    """
    return await take_steps(connection, steps(commands, dialect=dialect, may_be_done=may_be_done))


def steps(commands: Sequence[Command], *, dialect: str, may_be_done: bool = False) -> Steps[list[Result]]:
    """The same as a transaction of `aiproject.adapters.db.runner`. Without commands it asks for a sign of life."""
    batch = _Batch(dialect)
    yield from batch.load(commands, may_be_done)
    results = [batch.do(command) for command in commands]
    yield from batch.write()
    return results


class _Batch(BatchRows):
    """One batch: a method for each command, which changes rows in memory and refuses by returning an error.

    A refusal is returned rather than raised, since the other commands of the batch are committed all the same; so each
    method checks everything before its first change.
    """

    def do(self, command: Command) -> Result:
        match command:
            case OpenHold():
                return self._open(command)
            case Settle():
                return self._settle(command)
            case ExtendHold():
                return self._extend(command)
            case Grant():
                return self._grant(command)
            case Refund():
                return self._refund(command)
            case ClaimKey():
                return self.keys.claim(command, self.now)
            case GiveKeyUp():
                self.keys.give_up(command)
                return None
            case Renew():
                self._renew(command)
                return None

    def _renew(self, command: Renew) -> None:
        lease_until = self.now + command.lease_ms
        for key, stage in command.stages.items():
            self.update_lease(key, stage, lease_until)
        for idempotency_key, request_id in command.keys.items():
            self.keys.renew(idempotency_key, request_id, lease_until)

    # -- holds ----------------------------------------------------------------------------------------------------

    def _open(self, command: OpenHold) -> Result:
        known = self.holds.get((command.request_id, command.attempt))
        if known is not None:
            return self._recognise(command, known)
        account = self.accounts.get(command.account_id)
        if account is None or not self._is_still(command):
            return AccountUnknown()
        capability = command.capability
        held_at = HELD_AT[capability]
        amount = command.want
        balance = account[BALANCE_AT[capability]]
        if balance is not None:
            free = balance - account[held_at]
            if free < command.least:
                # Enough, only held by others: that is worth waiting for.
                return QuotaBusy(capability) if balance >= command.least else QuotaExhausted(capability)
            amount = min(amount, free)
        key_day = None
        if command.key_id is not None:
            # After the balance: an account that has too little is told so, whatever its key may spend.
            found = self.spending.open(command, command.key_id, amount, self.now)
            if isinstance(found, AiProjectError):
                return found
            amount, key_day = found.amount, found.day
        account[held_at] += amount
        self.changed[command.account_id] = account
        self.insert_hold(command, amount, key_day)
        return Hold(command.account_id, capability, amount, command.request_id, command.attempt)

    def _is_still(self, command: OpenHold) -> bool:
        """Whether the caller's credential, remembered from a moment ago, is still good."""
        if command.pair is None:
            return True
        uuid, name_key, disabled_at = self.owners[command.account_id]
        # The uuid is a secret, so that the comparison must not take longer the more of it is right.
        is_right = hmac.compare_digest(str(uuid).encode(), command.pair[0].encode("utf-8", "replace"))
        return is_right and name_key == command.pair[1] and disabled_at is None

    def _recognise(self, command: OpenHold, known: HoldRow) -> Result:
        """There is such a hold: of an earlier try of this command, whose commit was in doubt, or of another call."""
        if known.is_new or known.owner != command.owner or known.account_id != command.account_id:
            return UniqueViolation(PRIMARY)
        if known.state != OPEN:
            return Unavailable("a hold that was committed late is closed already", retry_after=1)
        return Hold(command.account_id, command.capability, known.amount, command.request_id, command.attempt)

    def _extend(self, command: ExtendHold) -> Result:
        hold = command.hold
        key = (hold.request_id, hold.attempt)
        row = self.holds.get(key)
        account = None if row is None else self.accounts.get(row.account_id)
        if row is None or account is None or row.state != OPEN:
            return hold  # the sweeper took its process for dead, or the account is gone: the call ends where it is
        if row.amount <= hold.amount and self.owners[row.account_id][DISABLED] is None:
            self._raise_hold(key, row, account, command)
        # More than the caller knew: extended just now, or by a try of this command whose commit was in doubt.
        return replace(hold, amount=row.amount)

    def _raise_hold(self, key: tuple[str, int], row: HoldRow, account: AccountRow, command: ExtendHold) -> None:
        """Take as much of the extension as the account has free and the API key may still spend."""
        balance, held_at = account[BALANCE_AT[row.capability]], HELD_AT[row.capability]
        free = MAX_UNITS if balance is None else balance - account[held_at]
        # A hold that was opened while the account was unmetered may be larger than the balance that came later.
        units = max(0, min(command.units, free, MAX_UNITS - row.amount))
        if units and (of_key := row.of_key) is not None:
            extended = self.spending.extend(of_key, units, self.now, command.zone)
            units, row.key_day = extended.amount - row.amount, extended.day
        if not units:
            return
        row.amount += units
        account[held_at] += units
        self.changed[row.account_id] = account
        self.update_amount(key, row)

    # -- settlements ----------------------------------------------------------------------------------------------

    def _settle(self, command: Settle) -> Result:
        hold = command.hold
        key = (hold.request_id, hold.attempt)
        row = self.holds.get(key)
        is_key_lost = command.key is not None and not self.keys.is_claimed_by(command.key, hold.request_id)
        if row is None:
            # Its opening was never committed: nothing is held.
            return Settled(0, 0, HoldState.RELEASED, is_key_lost=is_key_lost)
        if command.expired_only and (row.state != OPEN or row.lease_until > self.now):
            return None
        is_late = False
        if row.state == CAPTURED:
            return Settled(row.charged or 0, 0, HoldState.CAPTURED)
        if row.state == RELEASED:
            # The sweeper took us for dead and gave the hold back. An answer that was delivered is charged all the same.
            is_late = row.outcome == SERVER_KILLED and command.charge > 0
            if not is_late or is_key_lost:
                return Settled(0, 0, HoldState.RELEASED, is_key_lost=is_key_lost)
        if is_key_lost:
            # Another call has the key and is charged for it. One key, one charge: this answer does not go out.
            lost_with_key = Unpaid(command.charge if command.unpaid is None else command.unpaid.used)
            command = replace(command, charge=0, outcome=Outcome.SERVER_FAILED, answer=None, unpaid=lost_with_key)
        return self._close(key, row, command, is_late=is_late, is_key_lost=is_key_lost)

    def _close(
        self, key: tuple[str, int], row: HoldRow, command: Settle, *, is_late: bool, is_key_lost: bool
    ) -> Settled:
        """Close an open hold, or charge one late that the sweeper released."""
        charged, counted = 0, None
        of_key = row.of_key
        if of_key is not None and not is_late:
            # Before the charge, which may take of the key's limit what the hold had set aside.
            self.spending.release(of_key)
        account = self.accounts.get(row.account_id)
        if account is not None:
            if command.unpaid is not None and command.unpaid.seen:
                # What is within the day's bound stays free; the rest is charged like a call that ended well.
                counted = self.unpaid.count(row.account_id, command.unpaid)
                command = replace(command, charge=command.unpaid.seen - counted.units)
            charged = self._capture(account, row, command, is_late=is_late)
        state = HoldState.CAPTURED if command.charge > 0 else HoldState.RELEASED
        row.state, row.outcome, row.charged = str(state), str(command.outcome), charged
        self.update_closed(key, row, command)
        if is_late:
            self.delete_loss(key)  # the sweeper's, which took all of it for lost
        lost = max(command.charge, 0 if command.unpaid is None else command.unpaid.used) - charged
        if lost > 0:
            reason = (
                LossReason.ACCOUNT_GONE if account is None
                else LossReason.LATE if is_late
                else LossReason.KEY_LOST if is_key_lost
                else LossReason.OVER_HOLD if command.unpaid is None
                else command.outcome
            )  # fmt: skip
            self.insert_loss(key, row, lost, reason, counted)
        if command.answer is not None:
            self.keys.answer(Key(*command.answer[:2]), command.answer[2])
        return Settled(charged, lost, state, is_key_lost=is_key_lost)

    def _capture(self, account: AccountRow, row: HoldRow, command: Settle, *, is_late: bool) -> int:
        """Give the hold back and take the charge instead, never more than was held; return what was taken."""
        held_at, balance_at = HELD_AT[row.capability], BALANCE_AT[row.capability]
        units = min(command.charge, row.amount)
        of_key = row.of_key
        if is_late and of_key is not None:
            units = int(min(units, self.spending.room_of_late(of_key)))
        balance = account[balance_at]
        if not is_late:
            account[held_at] -= row.amount
            self.changed[row.account_id] = account
            if balance is not None:
                # Less than was held only if the account became metered, with less, while the call ran.
                units = min(units, balance)
        elif balance is not None:
            # Nothing is held for it any more; what is held for others stays theirs.
            units = max(0, min(units, balance - account[held_at]))
        if not units:
            return 0
        if balance is not None:
            account[balance_at] = balance - units
        if of_key is not None:
            self.spending.spend(of_key, units)
        if (used_at := USED_AT.get(row.capability)) is not None:
            account[used_at] += units
        rule = settled_rule(
            row.rule, amount=row.amount, outcome=str(command.outcome), stage=str(command.stage),
            reported=command.reported,
        )  # fmt: skip
        self.append_entry(account, row.capability, -units, CHARGE, command.hold.request_id, command.hold.attempt, rule)
        return units

    # -- grants and refunds ---------------------------------------------------------------------------------------

    def _grant(self, command: Grant) -> Result:
        account = self.accounts.get(command.account_id)
        if account is None:
            return AccountUnknown()
        at = BALANCE_AT[command.capability]
        balance = account[at] or 0  # granting to an unmetered account makes it metered
        free = max(0, balance - account[HELD_AT[command.capability]])
        amount: int = max(command.amount, -free)
        if balance + amount > MAX_UNITS:
            return InvalidInput(Detail.BALANCE_TOO_LARGE, limit=MAX_UNITS)
        account[at] = balance + amount
        self.changed[command.account_id] = account
        if amount:
            rule = "{}"
            if command.kind is Kind.SIGNUP:
                # Sealed with the first entry, so that `ledger verify` notices a uuid that is swapped in the database.
                uuid = str(self.owners[command.account_id][UUID])
                rule = snapshot(uuid_sha256=uuid_fingerprint(command.account_id, uuid))
            self.append_entry(account, str(command.capability), amount, str(command.kind), command.reference, 0, rule)
        return amount

    def _refund(self, command: Refund) -> Result:
        account = self.accounts.get(command.account_id)
        if account is None:
            return AccountUnknown()
        calls = {
            key: row
            for key, row in self.holds.items()
            if key[0] == command.request_id
            and row.account_id == command.account_id
            and (row.charged if command.attempt is None else key[1] == command.attempt)
        }
        if len(calls) > 1:
            return InvalidInput(Detail.REFUND_ATTEMPT_AMBIGUOUS)
        for (_, attempt), row in calls.items():
            if row.charged:
                return self._give_back(account, row, command.request_id, attempt, row.charged)
        return InvalidInput(Detail.REFUND_NOTHING_CHARGED)

    def _give_back(self, account: AccountRow, row: HoldRow, request_id: str, attempt: int, charged: int) -> Result:
        """Refund one charge, unless the entries say that it was refunded already or never took anything."""
        entered = self.entered.setdefault((row.account_id, request_id), [])
        at = BALANCE_AT[row.capability]
        if any(kind == REFUND and of_attempt == attempt for kind, of_attempt, _ in entered):
            return InvalidInput(Detail.REFUND_REPEATED)
        if account[at] is None or (CHARGE, attempt, None) in entered:
            return InvalidInput(Detail.REFUND_NOT_METERED)
        if account[at] + charged > MAX_UNITS:
            return InvalidInput(Detail.BALANCE_TOO_LARGE, limit=MAX_UNITS)
        account[at] += charged
        self.append_entry(account, row.capability, charged, REFUND, request_id, attempt, row.rule)
        # For a second refund of the same call in this batch.
        entered.append((REFUND, attempt, account[at]))
        return Refunded(Meter(row.capability), charged, attempt)
