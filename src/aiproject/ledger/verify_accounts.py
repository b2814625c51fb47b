"""One account's row, against what its entries and holds make of it; a part of `aiproject.ledger.verify`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from aiproject.accounts.core.fingerprints import uuid_fingerprint
from aiproject.ledger.account_store import BALANCE, HELD, USED
from aiproject.ledger.chain import seal
from aiproject.ledger.findings import Findings
from aiproject.ledger.model import HoldState, Kind, Meter, Outcome, Stage
from aiproject.ledger.receipts import rule_facts
from aiproject.ledger.rules import CHARGES, RULE_VERSION, Basis
from aiproject.ledger.settled import settled_rule
from aiproject.ledger.verify_key_limits import Limit
from aiproject.ledger.verify_unpaid import check_unpaid, is_unpaid

__all__ = ["AccountAudit", "CallSettlement", "charge_of_entry", "charge_of_hold"]

CAPABILITIES = frozenset(map(str, Meter))
UNMETERED = frozenset(str(meter) for meter, column in BALANCE.items() if column.nullable)
"""Meters of which an account may have no balance, and as much as it likes."""
KINDS = frozenset(map(str, Kind))
OUTCOMES = frozenset(map(str, Outcome))
STAGES = frozenset(map(str, Stage))

FIRST_KINDS = {str(Kind.OPENING): "migration 0002", str(Kind.SIGNUP): "signup"}
"""Kinds that only the first entries of an account have, with what they name as their cause."""


class CallSettlement(NamedTuple):
    """What an entry and its hold must agree on."""

    request_id: str
    attempt: int
    capability: str
    amount: int
    rule: str


@dataclass(slots=True)
class _Charges:
    """Many charges, in constant memory: equal if they are the same in any order, each as often."""

    count: int = 0
    sum: int = 0

    def add(self, charge: CallSettlement) -> None:
        self.count += 1
        digest = hashlib.sha256("\0".join(map(str, charge)).encode()).digest()
        self.sum = (self.sum + int.from_bytes(digest, "big")) % (1 << 256)


class AccountAudit:
    """An account's row, and what its entries and holds make of it."""

    def __init__(
        self,
        account_id: int,
        *,
        balances: Mapping[Meter, int | None],
        held: Mapping[Meter, int],
        used: Mapping[Meter, int],
        newest_seq: int,
        newest_hash: str,
        uuid: str,
        is_deleted: bool,
    ) -> None:
        self.account_id = account_id
        self.findings = Findings(account_id)
        self.charges = _Charges()
        self.captures = _Charges()
        self._balances = balances
        self._held = held
        self._used = used
        self._newest_seq = newest_seq
        self._newest_hash = newest_hash
        self._uuid = uuid
        self._is_deleted = is_deleted
        # From the entries.
        self._seq = 0
        self._hash = ""
        self._sums: Counter[str] = Counter()
        self._running: dict[str, int] = {}
        self._charged: Counter[str] = Counter()
        self._metered_at: dict[str, int] = {}
        self._refunded: tuple[str, int] | None = None  # the call of the last refund
        self._first_kind: str | None = ""  # of all entries until now; ``None``: another kind has come
        self._first_capabilities: set[tuple[str, bool]] = set()
        self._uuid_at_signup: str | None = None
        # From the holds.
        self._open: Counter[str] = Counter()
        self._open_unmetered: Counter[str] = Counter()
        self._limits: dict[tuple[int, str], Limit] = {}

    def limit(self, limit: Limit) -> None:
        """Take in what one of the account's API keys may spend and has spent; before the holds."""
        self._limits[limit.key_id, limit.capability] = limit

    def enter(self, row: Any) -> None:
        """Take in the next entry, in the order of their numbers."""
        check = self.findings.check
        check("number of a ledger entry", self._seq + 1, row.seq)
        what = f"of entry {row.seq}"
        sealed = seal(
            self._hash,
            account_id=row.account_id,
            seq=row.seq,
            capability=row.capability,
            amount=row.amount,
            balance=row.balance,
            kind=row.kind,
            request_id=row.request_id,
            attempt=row.attempt,
            rule=row.rule,
            created_at=row.created_at,
        )
        check(f"hash {what}", sealed, row.hash)
        # Go on from what is stored: one edit is one difference.
        self._seq, self._hash = row.seq, row.hash
        self._check_kind(row, what)
        if not self.findings.check_known(f"capability {what}", row.capability, CAPABILITIES):
            return
        if row.balance is None:
            # Unmetered, where a balance can be: until the first grant.
            if row.capability not in UNMETERED or row.capability in self._running:
                check(f"balance {what}", self._running.get(row.capability, 0) + row.amount, None)
        else:
            self._metered_at.setdefault(row.capability, row.created_at)
            self._sums[row.capability] += row.amount
            check(f"balance {what}", self._running.get(row.capability, 0) + row.amount, row.balance)
            self._running[row.capability] = row.balance
            if row.balance < 0:
                check(f"balance {what}", "0 or more", row.balance)
        if row.kind == Kind.CHARGE:
            self.charges.add(charge_of_entry(row))
        if row.kind == Kind.CHARGE or (row.kind == Kind.OPENING and row.balance is None):
            self._charged[row.capability] -= row.amount

    def _check_kind(self, row: Any, what: str) -> None:
        """Whether an entry of this kind can stand here; other records that it must have are compared elsewhere."""
        if not self.findings.check_known(f"kind {what}", row.kind, KINDS):
            return
        if row.kind not in FIRST_KINDS:
            self._first_kind = None
            if row.kind in (Kind.CHARGE, Kind.REFUND, Kind.VOUCHER) and (row.amount < 0) != (row.kind == Kind.CHARGE):
                self.findings.check(f"sign of the {row.kind} {what}", -row.amount, row.amount)
            return
        self.findings.check(f"cause {what}", FIRST_KINDS[row.kind], row.request_id)
        place = (row.capability, row.balance is None)
        if self._first_kind not in ("", row.kind) or place in self._first_capabilities:
            self.findings.check(f"kind {what}", "one that may come this late", row.kind)
        self._first_kind = row.kind if self._first_kind is not None else None
        self._first_capabilities.add(place)
        if row.kind == Kind.SIGNUP:
            sealed = rule_facts(row.rule).get("uuid_sha256")
            self._uuid_at_signup = sealed if isinstance(sealed, str) else None

    def refund(self, row: Any) -> None:
        """Take in a refund beside the hold of its call, in the order of the calls."""
        call = (row.request_id, row.attempt)
        what = f"refund of request {row.request_id}, attempt {row.attempt}"
        if call == self._refunded:
            self.findings.check(f"second {what}", None, row.amount)
        elif row.hold_account_id != row.account_id or row.hold_capability != row.capability or not row.charged:
            self.findings.check(f"{what}: its charge", row.amount, None)
        else:
            self.findings.check(what, row.charged, row.amount)
        self._refunded = call

    def hold(self, row: Any, overdue_before: int) -> None:
        """Take in a hold and its loss, in any order; ``overdue_before``: a lease that ran out earlier is over."""
        check = self.findings.check
        what = f"of request {row.request_id}, attempt {row.attempt}"
        if not self.findings.check_known(f"capability {what}", row.capability, CAPABILITIES):
            return
        if row.amount < 0:
            check(f"hold {what}", "0 or more", row.amount)
        if row.state != HoldState.OPEN:
            self.findings.check_known(f"outcome {what}", row.outcome, OUTCOMES)
            self.findings.check_known(f"stage {what}", row.stage, STAGES)
        charged, lost = row.charged or 0, row.lost or 0
        if row.key_id is not None:
            self._hold_of_key(row, what)
        match row.state:
            case HoldState.OPEN:
                self._open[row.capability] += row.amount
                metered_at = self._metered_at.get(row.capability)
                if row.capability in UNMETERED and (metered_at is None or row.opened_at <= metered_at):
                    # It was held when there was no balance that it could have exceeded.
                    self._open_unmetered[row.capability] += row.amount
                if row.lease_until < overdue_before:
                    check(f"open hold {what}: lease until", f"{overdue_before} or later", row.lease_until)
                check(f"charge of the open hold {what}", 0, charged)
            case HoldState.CAPTURED:
                if charged:
                    self.captures.add(charge_of_hold(row))
                if not 0 <= charged <= row.amount:
                    check(f"charge {what}", f"0 to {row.amount}", charged)
            case HoldState.RELEASED:
                check(f"charge of the released hold {what}", 0, charged)
            case _:
                self.findings.check_known(f"state of the hold {what}", row.state, frozenset())
        if row.lost is None:
            check(f"charge {what}", charged if (owed := _owed(row)) is None else owed, charged)
            return
        check(f"account of the loss {what}", row.account_id, row.loss_account_id)
        check(f"capability of the loss {what}", row.capability, row.loss_capability)
        if lost <= 0:
            check(f"loss {what}", "more than 0", lost)
        if is_unpaid(row):
            check_unpaid(row, what, check)
        elif row.state != HoldState.CAPTURED:
            check(f"loss of the {row.state} hold {what}", 0, lost)
        elif (owed := _owed(row)) is not None:
            check(f"loss {what}", owed - charged, lost)

    def _hold_of_key(self, row: Any, what: str) -> None:
        limit = self._limits.get((row.key_id, row.capability))
        if limit is not None:
            limit.count(row)
        elif row.state == HoldState.OPEN:
            # A key that was revoked is forgotten one day, but not while its calls run.
            self.findings.check(f"API key of the open hold {what}", "one of the account", row.key_id)

    def close(self, uuid_sha256: str | None) -> None:
        """Compare the row with what its entries and holds came to.

        Args:
            uuid_sha256: fingerprint of the uuid by the audit log; ``None``: it has none, and the sign-up's counts.
        """
        check = self.findings.check
        sealed = uuid_sha256 or self._uuid_at_signup
        if sealed is not None and not self._is_deleted:
            check("fingerprint of the uuid", sealed, uuid_fingerprint(self.account_id, self._uuid))
        check("number of the newest entry", self._seq, self._newest_seq)
        check("hash of the newest entry", self._hash, self._newest_hash)
        for capability, balance in self._balances.items():
            column, held = BALANCE[capability].name, HELD[capability].name
            if balance is None:
                if capability in self._running:
                    check(column, self._sums[capability], None)
            else:
                check(column, self._sums[capability], balance)
                if isinstance(balance, int) and balance < 0:
                    check(column, "0 or more", balance)
            check(held, self._open[capability], self._held[capability])
            if not (isinstance(balance, int) and isinstance(self._held[capability], int)):
                continue  # unmetered, or reported above
            if self._held[capability] - self._open_unmetered[capability] > balance:
                check(held, f"at most {balance}", self._held[capability])
        for capability, used in USED.items():
            check(used.name, self._charged[capability], self._used[capability])
        for limit in self._limits.values():
            limit.close(check)


def _owed(row: Any) -> int | None:
    """Return what the written table says a closed hold's call consumed; ``None``: that depends on an estimate, which
    is not kept, or on the table of another release."""
    if row.state == HoldState.OPEN:
        return 0
    if rule_facts(row.rule).get("rule") != RULE_VERSION:
        return None
    try:
        basis = CHARGES[Outcome(row.outcome)][Stage(row.stage)]
    except ValueError:
        return None
    if basis is Basis.NOTHING:
        return 0
    return int(row.reported) if basis is Basis.REPORTED and row.reported is not None else None


def charge_of_entry(row: Any) -> CallSettlement:
    """Return the charge that an entry of the ledger is."""
    return CallSettlement(row.request_id, row.attempt, row.capability, -row.amount, row.rule)


def charge_of_hold(row: Any) -> CallSettlement:
    """Return the charge that a captured hold must have left in the ledger."""
    rule = settled_rule(
        row.rule, amount=row.amount, outcome=row.outcome or "", stage=row.stage, reported=row.reported
    )  # fmt: skip
    return CallSettlement(row.request_id, row.attempt, row.capability, row.charged, rule)
