"""Idempotency keys in a batch of commands: claimed, given up, and answered together with the charge.

A claimed key's row is made before anything is worked out, if there is none, and then read under a lock: so there always
is a row to lock, and nodes that claim a new key in the same moment meet at it instead of failing one another's batches.
An answer is never read here: it may have megabytes, and a batch many of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aiproject.adapters.db.runner import Statement, Steps
from aiproject.adapters.db.schema import stored_answer
from aiproject.ledger.model import ClaimKey, ClaimResult, GiveKeyUp, Key
from aiproject.ledger.sql import delete_rows, insert_missing_rows, select_in_order, select_rows, update_rows

__all__ = ["IdempotencyKeys"]

KEPT_MS = 24 * 3600 * 1000
"""Milliseconds that an answer is kept."""

MAX_KEYS_PER_ACCOUNT = 10_000
"""Answers that are kept of one account; somewhat later than at this number, its oldest are forgotten. More than an app
calls in a day, and a bound on what somebody with free calls can make us keep."""

EXPIRED_AT_ONCE = 10
"""Rows that a new key clears away; more than one, so that the table shrinks after a busy day."""

MAX_EXPIRED = 500
"""Rows that a batch clears away; still more than it adds."""

TRIM_ODDS = 0.01
"""Share of new keys that also look whether their account has too many: the look reads all of them."""

MAX_STATEMENT_BYTES = 1024 * 1024
"""Bytes of the answers that are written together; a longer one goes alone. MariaDB takes statements of 16 MiB."""

KEY = Key._fields
READ = (*KEY, "body_hash", "request_id", "state", "lease_until", "expires_at")
CLAIMED = ("body_hash", "request_id", "state", "lease_until", "expires_at", "answer")

RUNNING, DONE, FREE = "running", "done", "free"


@dataclass(slots=True)
class _Row:
    """A key's row, without its answer; ``free`` is none that is stored."""

    body_hash: str
    request_id: str
    state: str
    lease_until: int
    expires_at: int


class IdempotencyKeys:
    """The keys of one batch, worked out in memory between `load` and `write`."""

    def __init__(self, dialect: str) -> None:
        self._dialect = dialect
        self._rows: dict[Key, _Row] = {}
        self._new: list[Key] = []
        # Keys whose rows are to be written, as they stand at the end.
        self._changed: set[Key] = set()
        self._answers: dict[Key, bytes] = {}
        self._renewed: dict[Key, tuple[Any, ...]] = {}

    def load(self, keys: Iterable[Key], claims: Iterable[ClaimKey], now: int) -> Steps[None]:
        """Read the rows of ``keys``, locked, so that nobody takes one over between this look and the commit.

        Args:
            claims: of some of the keys; where there is no row, the first of them makes it.
            now: milliseconds since 1970, by the database's clock.
        """
        wanted = sorted(set(keys))
        if not wanted:
            return
        firsts: dict[Key, ClaimKey] = {}
        for claim in claims:
            firsts.setdefault(claim.key, claim)
        if firsts:
            rows = [(*key, *_claimed(firsts[key], now)) for key in sorted(firsts)]
            yield insert_missing_rows(self._dialect, stored_answer, KEY, (*KEY, *CLAIMED), rows)
        found = yield select_rows(self._dialect, stored_answer, READ, KEY, wanted, is_locked=True)
        self._rows = {Key(row[0], row[1]): _Row(*row[2:-1]) for row in found}

    # -- commands ---------------------------------------------------------------------------------------------------

    def claim(self, command: ClaimKey, now: int) -> ClaimResult:
        row = self._rows.get(command.key)
        if row is None:
            # Another node gave the key up in this moment, after our row found its place taken. Ask again.
            return ClaimResult.BUSY
        if row.state != FREE and row.expires_at >= now:
            if row.body_hash != command.body_hash:
                return ClaimResult.OTHER_BODY
            if row.state == DONE:
                return ClaimResult.ANSWERED
            if row.request_id == command.request_id:
                # Made a moment ago, by this batch or by an earlier try whose commit was in doubt.
                self._new.append(command.key)
                return ClaimResult.OURS
            if row.lease_until >= now:
                return ClaimResult.BUSY
        self._rows[command.key] = _Row(*_claimed(command, now)[:-1])
        self._changed.add(command.key)
        self._answers.pop(command.key, None)
        return ClaimResult.OURS

    def give_up(self, command: GiveKeyUp) -> None:
        if self.is_claimed_by(command.key, command.request_id) and self._rows[command.key].state == RUNNING:
            self._rows[command.key].state = FREE
            self._changed.add(command.key)

    def is_claimed_by(self, key: Key, request_id: str) -> bool:
        row = self._rows.get(key)
        return row is not None and row.state != FREE and row.request_id == request_id

    def answer(self, key: Key, answer: bytes) -> None:
        self._rows[key].state = DONE
        self._answers[key] = answer

    def renew(self, key: Key, request_id: str, lease_until: int) -> None:
        self._renewed[key] = (lease_until, *key, request_id)

    # -- writing --------------------------------------------------------------------------------------------------

    def write(self, now: int) -> Steps[None]:
        dialect = self._dialect
        if self._renewed:
            rows = [self._renewed[key] for key in sorted(self._renewed)]
            keys = (*KEY, "request_id")
            yield update_rows(dialect, stored_answer, keys, ("lease_until",), rows, where=("state", RUNNING))
        changed = sorted(self._changed)
        if free := [key for key in changed if self._rows[key].state == FREE]:
            yield delete_rows(dialect, stored_answer, KEY, free)
        if taken := [(*_values(self._rows[key]), *key) for key in changed if self._rows[key].state != FREE]:
            yield update_rows(dialect, stored_answer, KEY, CLAIMED, taken)
        for rows in self._portions():
            yield update_rows(dialect, stored_answer, KEY, ("state", "answer"), rows)
        yield from self._forget_old(now)

    def _portions(self) -> Iterator[list[tuple[Any, ...]]]:
        portion: list[tuple[Any, ...]] = []
        size = 0
        for key, answer in self._answers.items():
            if portion and size + len(answer) > MAX_STATEMENT_BYTES:
                yield portion
                portion, size = [], 0
            portion.append((DONE, answer, *key))
            size += len(answer)
        if portion:
            yield portion

    def _forget_old(self, now: int) -> Steps[None]:
        """Clear away answers that nobody may ask for any more, some with each new key: the table stays bounded.

        Somebody else may be at the same row, claiming it anew or clearing it away: only as it was read does it go.
        """
        if not self._new:
            return
        columns = (*KEY, "expires_at")
        limit = min(EXPIRED_AT_ONCE * len(self._new), MAX_EXPIRED)
        old = yield select_in_order(self._dialect, stored_answer, columns, "expires_at", below=now, limit=limit)
        gone = {tuple(row) for row in old}
        for scope in {key.scope for key in self._new}:
            if random.random() < TRIM_ODDS:  # noqa: S311 - spreads work, hides nothing
                gone.update(map(tuple, (yield self._oldest_of(scope, columns))))
        if gone:
            yield delete_rows(self._dialect, stored_answer, columns, sorted(gone))

    def _oldest_of(self, scope: str, columns: tuple[str, ...]) -> Statement:
        return select_in_order(
            self._dialect,
            stored_answer,
            columns,
            "expires_at",
            same={"scope": scope, "state": DONE},
            is_descending=True,
            offset=MAX_KEYS_PER_ACCOUNT,
            limit=int(2 / TRIM_ODDS),
        )


def _claimed(command: ClaimKey, now: int) -> Sequence[Any]:
    """Return the values of `CLAIMED` for a claim that is new."""
    return command.body_hash, command.request_id, RUNNING, now + command.lease_ms, now + KEPT_MS, None


def _values(row: _Row) -> Sequence[Any]:
    return row.body_hash, row.request_id, row.state, row.lease_until, row.expires_at, None
