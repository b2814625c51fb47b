"""What the audit log says of accounts, balances and vouchers; a part of `aiproject.ledger.verify`.

The facts lie in a temporary SQLite database, on disk as soon as there are many, so that memory stays the same however
long the log is. The log is read in the snapshot in which the ledger is looked at, and read on in each later one: an act
and its entry are one transaction, so that each snapshot has both or neither.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.accounts.api_keys.store import KeyState
from aiproject.audit.model import AuditEntry, AuditFilter, seal
from aiproject.audit.store import oldest
from aiproject.ledger.findings import Difference, Findings
from aiproject.ledger.model import Kind, Meter

__all__ = ["PREFIX", "AuditFacts", "masked"]

PAGE = 1000
"""Entries of the log in memory."""

TABLES = """
PRAGMA journal_mode = OFF;
CREATE TABLE act (account INTEGER, seq INTEGER, capability TEXT, kind TEXT, reference TEXT, attempt INTEGER,
                  amount INTEGER, PRIMARY KEY (account, seq, capability)) WITHOUT ROWID;
CREATE TABLE entered (account INTEGER, seq INTEGER, capability TEXT, kind TEXT, reference TEXT, attempt INTEGER,
                      amount INTEGER, created_at INTEGER, PRIMARY KEY (account, seq)) WITHOUT ROWID;
CREATE TABLE former (reference TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE named (account INTEGER PRIMARY KEY);
CREATE TABLE uuid (account INTEGER PRIMARY KEY, sha256 TEXT);
CREATE TABLE key (key_id INTEGER PRIMARY KEY, sha256 TEXT, is_revoked INTEGER);
CREATE TABLE made (made_at TEXT PRIMARY KEY, count INTEGER, tokens INTEGER, pic_times INTEGER, is_named INTEGER,
                   is_modified INTEGER) WITHOUT ROWID;
CREATE TABLE worth (reference TEXT PRIMARY KEY, tokens INTEGER, pic_times INTEGER) WITHOUT ROWID;
CREATE TABLE redemption (account INTEGER, reference TEXT, PRIMARY KEY (account, reference)) WITHOUT ROWID;
"""

UNEXPLAINED = """
SELECT account, capability, kind, reference, attempt, SUM(told), SUM(found), MAX(is_told), MAX(created_at) FROM (
    SELECT account, capability, kind, reference, attempt, amount AS told, 0 AS found, 1 AS is_told, 0 AS created_at
    FROM act WHERE account > ? AND account <= ?
    UNION ALL
    SELECT account, capability, kind, reference, attempt, 0, amount, 0, created_at
    FROM entered WHERE account > ? AND account <= ? AND kind <> 'voucher')
GROUP BY account, capability, kind, reference, attempt HAVING SUM(told) <> SUM(found) OR NOT MAX(is_told)
"""

VOUCHERS_PAID = """
SELECT account, entered.reference, capability, COUNT(*), SUM(amount),
       CASE capability WHEN 'tokens' THEN tokens WHEN 'pic_times' THEN pic_times END AS due
FROM entered LEFT JOIN worth ON worth.reference = entered.reference WHERE kind = 'voucher'
GROUP BY account, entered.reference, capability HAVING COUNT(*) > 1 OR SUM(amount) <> due
"""

GRANT, REFUND = str(Kind.GRANT), str(Kind.REFUND)

BALANCE_ACTS = {"user.grant": GRANT, "user.modify": GRANT, "ledger.refund": REFUND}
"""Acts that change balances, and the kind of entry that each leaves in the ledger."""

FORMER_REFERENCE = "cli"
"""What grants by command named as their cause in former releases; today they name the audit log's entry."""

PREFIX = "voucher:"
"""What the reference of a voucher's entry begins with; see `aiproject.vouchers.model`."""

NUMBERS = ("seq", "at")
"""Fields of an entry of the audit log that are no text."""

EVER = (1 << 63) - 1
"""Later than every moment, and above every account's number."""


class AuditFacts:
    """Collects facts of the log and entries of the ledger, and compares them. Close it at the end."""

    def __init__(self) -> None:
        self._facts = sqlite3.connect("", isolation_level=None)
        self._facts.executescript(TABLES)
        self._seq = 0
        self._hash = ""
        self._is_unreadable = False
        self._findings = Findings(None)
        # Records of former releases are not named by the log: they are older than its first entry that names such.
        self._balances_since = EVER
        self._vouchers_since = EVER
        self._keys_since = EVER

    def close(self) -> None:
        self._facts.close()

    # -- the log --------------------------------------------------------------------------------------------------

    async def read_on(self, connection: AsyncConnection) -> None:
        """Take in what the log has got since the last time, as the connection's snapshot sees it.

        It ends at an entry with values of another kind than their columns', as SQLite keeps them.
        """
        while not self._is_unreadable:
            page = await oldest(connection, AuditFilter(), after=self._seq, limit=PAGE)
            for entry in page:
                if not self._is_readable(entry):
                    self._is_unreadable = True
                    return
                self._check_chain(entry)
                self._take_in(entry)
                self._seq, self._hash = entry.seq, entry.hash
            if len(page) < PAGE:
                return

    def log_differences(self) -> Iterator[Difference]:
        """Yield what is wrong with the log itself."""
        return self._findings.shown()

    def _is_readable(self, entry: AuditEntry) -> bool:
        checks = [
            self._findings.check_kind(f"{name} of entry {entry.seq} of the audit log", value, is_number=name in NUMBERS)
            for name, value in asdict(entry).items()
        ]
        return all(checks)

    def _check_chain(self, entry: AuditEntry) -> None:
        self._findings.check("number of an entry of the audit log", self._seq + 1, entry.seq)
        written = asdict(entry)
        stored = written.pop("hash")
        self._findings.check(f"hash of entry {entry.seq} of the audit log", seal(self._hash, **written), stored)

    def _take_in(self, entry: AuditEntry) -> None:
        before, after = self._facts_of(entry, "before"), self._facts_of(entry, "after")
        account = after.get("account", before.get("account"))
        if isinstance(account, int):
            self._facts.execute("INSERT OR IGNORE INTO named VALUES (?)", [account])
            if isinstance(fingerprint := after.get("uuid_sha256"), str):
                self._facts.execute("INSERT OR REPLACE INTO uuid VALUES (?, ?)", [account, fingerprint])
        if isinstance(key_id := after.get("key_id"), int):
            self._keys_since = min(self._keys_since, entry.at)
            state = (key_id, str(after.get("key_sha256")), entry.action == "key.revoke")
            self._facts.execute("INSERT OR REPLACE INTO key VALUES (?, ?, ?)", state)
        if entry.action in BALANCE_ACTS:
            self._take_in_balances(entry, account, before, after)
        elif entry.action.startswith("voucher.") and isinstance(made_at := {**before, **after}.get("made_at"), str):
            self._take_in_vouchers(entry, made_at, before, after)

    def _facts_of(self, entry: AuditEntry, side: str) -> dict[str, Any]:
        """Return the facts of an entry; nothing if they are none that this package writes, which is reported."""
        try:
            facts = json.loads(getattr(entry, side))
        except (ValueError, RecursionError):
            facts = None
        if isinstance(facts, dict) and all(map(_is_storable, facts.values())):
            return facts
        self._findings.check(f"facts {side} the act of entry {entry.seq} of the audit log", "facts", "others")
        return {}

    def _take_in_balances(
        self, entry: AuditEntry, account: Any, before: Mapping[str, Any], after: Mapping[str, Any]
    ) -> None:
        if not isinstance(account, int):
            self._facts.execute("INSERT OR IGNORE INTO former VALUES (?)", [entry.request_id])
            return
        kind = BALANCE_ACTS[entry.action]
        self._balances_since = min(self._balances_since, entry.at)
        reference, attempt = entry.request_id, 0
        if kind == REFUND:
            reference, attempt = str(after.get("call")), _number(after.get("attempt"))
        for capability in map(str, Meter):
            amount = _units(capability, after.get(capability)) - _units(capability, before.get(capability))
            if amount:
                row = (account, entry.seq, capability, kind, reference, attempt, amount)
                self._facts.execute("INSERT OR REPLACE INTO act VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def _take_in_vouchers(
        self, entry: AuditEntry, made_at: str, before: Mapping[str, Any], after: Mapping[str, Any]
    ) -> None:
        counts = {"voucher.add": _number(after.get("count")), "voucher.adopt": 1, "voucher.delete": -1}
        count = counts.get(entry.action, 0)
        worth = [
            (_number(after.get(name)) - _number(before.get(name))) * max(count, 1) for name in ("tokens", "pic_times")
        ]
        self._facts.execute("INSERT OR IGNORE INTO made VALUES (?, 0, 0, 0, 0, 0)", [made_at])
        self._facts.execute(
            "UPDATE made SET count = count + ?, tokens = tokens + ?, pic_times = pic_times + ?, "
            "is_named = MAX(is_named, ?), is_modified = MAX(is_modified, ?) WHERE made_at = ?",
            [count, *worth, count > 0, entry.action == "voucher.modify", made_at],
        )
        if count > 0:
            self._vouchers_since = min(self._vouchers_since, entry.at)

    # -- accounts -------------------------------------------------------------------------------------------------

    def fingerprint(self, account_id: int) -> str | None:
        """Return the fingerprint of the account's uuid, if the log has one."""
        row = self._facts.execute("SELECT sha256 FROM uuid WHERE account = ?", [account_id]).fetchone()
        return None if row is None else str(row[0])

    def missing_accounts(self, present: Iterable[int], after: int | None, upto: int | None) -> Iterator[Difference]:
        """Yield the accounts that the log names and that are not there."""
        known = set(present)
        for (account,) in self._facts.execute(
            "SELECT account FROM named WHERE account > ? AND account <= ? ORDER BY account", _range(after, upto)
        ):
            if account not in known:
                yield Difference(account, "account that the audit log names", "one", None)

    def key_differences(self, key: KeyState) -> Iterator[Difference]:
        """Yield what the log says otherwise of an API key; one that is revoked may have been emptied of words."""
        row = self._facts.execute("SELECT sha256, is_revoked FROM key WHERE key_id = ?", [key.key_id]).fetchone()
        what = f"API key {key.key_id}"
        for name, moment in (("created", key.created_at), ("revoked", key.revoked_at)):
            if isinstance(moment, str):
                yield Difference(key.account_id, f"when {what} was {name}", "a moment", moment[:100])
        if row is None:
            if isinstance(key.created_at, str) or key.created_at.timestamp() * 1000 >= self._keys_since:
                yield Difference(key.account_id, f"{what}: its act in the audit log", "one", None)
        elif row[1] and key.revoked_at is None:
            yield Difference(key.account_id, f"{what}, by the audit log", "revoked", "not revoked")
        elif key.revoked_at is None and row[0] != key.fingerprint:
            yield Difference(key.account_id, f"fingerprint of terms and caps of {what}", row[0], key.fingerprint)

    # -- entries of the ledger ------------------------------------------------------------------------------------

    def enter(self, row: Any) -> None:
        """Take in an entry of the ledger; the same one twice is as good as once."""
        if row.kind in (GRANT, REFUND, Kind.VOUCHER):
            self._facts.execute(
                "INSERT OR REPLACE INTO entered VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    row.account_id, row.seq, row.capability, row.kind, row.request_id, row.attempt, row.amount,
                    row.created_at,
                ],
            )  # fmt: skip

    def unexplained(self, after: int | None, upto: int | None) -> Iterator[Difference]:
        """Yield the grants and refunds of these accounts that the log does not name, and what it names in vain."""
        bounds = _range(after, upto)
        rows = self._facts.execute(UNEXPLAINED, [*bounds, *bounds]).fetchall()
        self._facts.execute("DELETE FROM entered WHERE account > ? AND account <= ? AND kind <> 'voucher'", bounds)
        for account, capability, kind, reference, attempt, told, found, is_told, created_at in rows:
            if is_told or not self._is_former(kind, reference, created_at):
                whose = f"request {reference}, attempt {attempt}" if kind == REFUND else f"reference {reference}"
                yield Difference(account, f"{kind} of {capability} for {whose}, by the audit log", told, found)

    def _is_former(self, kind: str, reference: str, created_at: int) -> bool:
        """Whether a release that did not name accounts in the log may have entered it."""
        if kind == GRANT and reference != FORMER_REFERENCE:
            row = self._facts.execute("SELECT 1 FROM former WHERE reference = ?", [reference]).fetchone()
            return row is not None
        return created_at < self._balances_since

    # -- vouchers -------------------------------------------------------------------------------------------------

    def redeem(self, account_id: int, reference: str) -> None:
        """Take in a redemption."""
        self._facts.execute("INSERT OR IGNORE INTO redemption VALUES (?, ?)", [account_id, reference])

    def entries_without_redemption(self) -> Iterator[Difference]:
        """Yield entries of vouchers that nobody redeemed."""
        rows = self._facts.execute(
            "SELECT account, seq FROM entered WHERE kind = 'voucher' AND NOT EXISTS (SELECT 1 FROM redemption "
            "WHERE redemption.account = entered.account AND redemption.reference = entered.reference)"
        )
        for account, seq in rows:
            yield Difference(account, f"entry {seq} of a voucher: its redemption", "one", None)

    def redemptions_without_entry(self) -> Iterator[tuple[int, str]]:
        """Yield accounts and references of redemptions of which no entry was taken in."""
        yield from self._facts.execute(
            "SELECT account, reference FROM redemption WHERE NOT EXISTS (SELECT 1 FROM entered WHERE kind = 'voucher' "
            "AND entered.account = redemption.account AND entered.reference = redemption.reference)"
        ).fetchall()

    def value(self, reference: str, made_at: str, tokens: int, pic_times: int) -> None:
        """Take in what a voucher is worth, if it has always been worth that, before `check_vouchers` of its moment."""
        self._facts.execute(
            "INSERT OR IGNORE INTO worth SELECT ?, ?, ? FROM made WHERE made_at = ? AND is_named AND NOT is_modified",
            [reference, tokens, pic_times, made_at],
        )

    def vouchers_paid_wrongly(self) -> Iterator[Difference]:
        """Yield what an account got for a voucher twice, or that is not the voucher's worth."""
        for account, reference, capability, count, amount, due in self._facts.execute(VOUCHERS_PAID):
            what = f"{capability} for the redemption of {masked(reference)}"
            if due is not None and amount != due:
                yield Difference(account, what, due, amount)
            else:
                yield Difference(account, f"entries of {what}", 1, count)

    def check_vouchers(
        self, made_at: str, made_ms: int, count: int, tokens: int, pic_times: int
    ) -> Iterator[Difference]:
        """Compare the vouchers that were made at one moment with the log; each moment once.

        Args:
            made_ms: the same moment in milliseconds since 1970.
            tokens, pic_times: what they are worth together.
        """
        row = self._facts.execute(
            "SELECT count, tokens, pic_times FROM made WHERE made_at = ? AND is_named", [made_at]
        ).fetchone()
        self._facts.execute("DELETE FROM made WHERE made_at = ?", [made_at])
        if row is None and made_ms < self._vouchers_since:
            return
        names = ("vouchers", "tokens of the vouchers", "picture times of the vouchers")
        for name, told, found in zip(names, row or (0, 0, 0), (count, tokens, pic_times), strict=True):
            if told != found:
                yield Difference(None, f"{name} made at {made_at}, by the audit log", told, found)

    def vouchers_gone(self) -> Iterator[Difference]:
        """Yield the vouchers of which the log knows and none was checked."""
        for made_at, count in self._facts.execute("SELECT made_at, count FROM made WHERE count > 0"):
            yield Difference(None, f"vouchers made at {made_at}, by the audit log", count, 0)


def _range(after: int | None, upto: int | None) -> tuple[int, int]:
    return -EVER if after is None else after, EVER if upto is None else upto


def masked(reference: str) -> str:
    """Return a voucher's reference without what is needed to redeem it."""
    return f"{reference[: len(PREFIX) + 4]}…"


def _is_storable(value: object) -> bool:
    """Whether a fact fits into a database: numbers of 64 bits, for milliseconds of them too, and whole characters."""
    match value:
        case int() | float():
            return abs(value) <= EVER // 1000  # neither infinite nor no number at all
        case str():
            return not any("\ud800" <= character <= "\udfff" for character in value)
        case _:
            return value is None


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _units(capability: str, value: object) -> int:
    """Return what the ledger counts of a balance as the log shows it: dictation stands there in seconds."""
    return Meter(capability).stored(value) if isinstance(value, int | float) else 0
