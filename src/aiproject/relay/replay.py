"""``Idempotency-Key``: the same key with the same body gives the stored answer and one charge.

A key is claimed in the database before anything is held, so that all nodes agree on whose turn it is. The answer is
stored in the transaction that charges for it, and only while the claim still stands: there is never an answer without
its charge, nor a second charge for a key. A failed call gives its key up: nothing was charged, and the next try may
succeed.

A claim has a lease, renewed while its call runs, so that the key of a dead process is free again soon. A process that
only seemed dead finds its key in other hands when it comes to settle; then it charges nothing and its caller gets no
answer (`aiproject.quotas.KeyLost`).
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.asgi import Scope, note, request_id
from aiproject.adapters.database import CommitInDoubt, Database, UniqueViolation, retry_transient
from aiproject.adapters.fault_points import reach
from aiproject.adapters.log import get_logger
from aiproject.adapters.schema import stored_answer
from aiproject.errors import AiProjectError, InvalidInput, TooManyRequests
from aiproject.quotas.store import database_now

__all__ = ["Claim", "Replay"]

log = get_logger("relay")

MAX_KEY_LENGTH = 255
"""Characters of a key, as in the IETF draft's examples and the practice of payment services."""

MAX_STORED_BYTES = 4 * 1024 * 1024
"""Bytes of an answer that is kept; a full answer of 8192 tokens in single frames has under two million. A longer one
is not kept, and its key is given up: a repeated call is a new one, and charged."""

MAX_KEYS_PER_ACCOUNT = 10_000
"""Answers that are kept of one account; somewhat later than at this number, its oldest are forgotten. More than an app
calls in a day, and a bound on what somebody with free calls can make us keep."""

KEPT_MS = 24 * 3600 * 1000
"""Milliseconds that an answer is kept."""

WAIT_SECONDS = 20.0
"""How long a repeated call waits for the first one before it is told to come back."""

POLL_SECONDS = 0.25

EXPIRED_AT_ONCE = 10
"""Rows that a new key clears away; more than one, so that the table shrinks after a busy day."""

TRIM_ODDS = 0.01
"""Share of new keys that also look whether their account has too many: the look reads all of them."""

_row = stored_answer.c


class Claim:
    """One call's hold on its key.

    Attributes:
        answer: the stored answer of an earlier call; ``None``: this call must find its own.
        is_wanted: the caller gave a key, so the answer is to be stored.
        is_settled: the answer went into the books; the key is no longer this call's to give up.
    """

    def __init__(self, scope_name: str = "", key_hash: str = "", answer: bytes | None = None) -> None:
        self.answer = answer
        self._scope_name = scope_name
        self._key_hash = key_hash
        self.is_settled = False

    @property
    def is_wanted(self) -> bool:
        return bool(self._key_hash) and self.answer is None

    def stored(self, answer: bytes) -> tuple[str, str, bytes] | None:
        """Return what the settlement stores; ``None`` where no key was given or the answer is too long."""
        if not self.is_wanted or len(answer) > MAX_STORED_BYTES:
            return None
        self.is_settled = True
        return (self._scope_name, self._key_hash, answer)


class Replay:
    """Keys and their answers, in the database.

    Args:
        lease_ms: milliseconds after which the claim of a dead process may be taken over.
    """

    def __init__(self, database: Database, *, lease_ms: int) -> None:
        self._database = database
        self._lease_ms = lease_ms

    async def forget(self, connection: AsyncConnection, account_id: int) -> None:
        """Delete an account's stored answers, which hold what its person asked for, in a transaction of the caller's.

        A key that is claimed stays its running call's: it is forgotten when it expires.
        """
        is_meant = _row.scope == _scope_name(account_id), _row.state == "done"
        await connection.execute(delete(stored_answer).where(*is_meant))

    @asynccontextmanager
    async def claim(self, scope: Scope, account_id: int | None, body: bytes) -> AsyncIterator[Claim]:
        """Claim the request's key for one call; without a key, do nothing.

        Args:
            account_id: whose key it is; ``None`` for anonymous callers, whose keys mean nothing.
            body: what was asked.

        Raises:
            InvalidInput: the key is malformed, or was used with another body.
            TooManyRequests: the first call still runs.
            Unavailable: the database is away.
        """
        key = None if account_id is None else _key(scope)
        if key is None:
            yield Claim()
            return
        mine = _Mine(
            self._database,
            name=_scope_name(account_id),
            key_hash=hashlib.sha256(key).hexdigest(),
            body_hash=hashlib.sha256(scope["path"].encode() + b"\n" + scope["query_string"] + b"\n" + body).hexdigest(),
            identity=request_id(scope),
            lease_ms=self._lease_ms,
        )
        answer = await mine.await_turn()
        claim = Claim(mine.name, mine.key_hash, answer)
        if answer is not None:
            note(scope, outcome="repeated", replayed=True)
            yield claim
            return
        reach("after claim")
        mine.keep(claim)
        try:
            yield claim
        finally:
            mine.let_go()
            if not claim.is_settled:
                await mine.give_up()


class _Mine:
    """One request's dealings with its key.

    Args:
        identity: the request's id, which marks the claim as its own; the call's hold has the same.
    """

    def __init__(
        self, database: Database, *, name: str, key_hash: str, body_hash: str, identity: str, lease_ms: int
    ) -> None:
        self.name = name
        self.key_hash = key_hash
        self._database = database
        self._now = database_now(database.dialect)
        self._body_hash = body_hash
        self._identity = identity
        self._lease_ms = lease_ms
        self._key = and_(_row.scope == name, _row.key_hash == key_hash)
        self._own = and_(self._key, _row.request_id == identity, _row.state == "running")
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def await_turn(self) -> bytes | None:
        """Return the stored answer, or ``None`` once the key is ours."""
        loop = asyncio.get_running_loop()
        until = loop.time() + WAIT_SECONDS
        is_free = True  # as far as we know
        while True:
            if is_free:
                try:
                    is_mine, answer = await retry_transient(self._take)
                except (UniqueViolation, CommitInDoubt):
                    # Somebody claimed it in this moment, or perhaps we did: look again.
                    is_mine, answer = False, None
                if is_mine or answer is not None:
                    return answer
            if loop.time() > until:
                raise TooManyRequests(5, "相同 Idempotency-Key 的请求仍在处理中，请稍后再试")
            await asyncio.sleep(POLL_SECONDS)
            is_free = await self._has_changed()

    async def _take(self) -> tuple[bool, bytes | None]:
        """Claim the key if it is free; return whether it is ours now, else the answer if there is one."""
        async with self._database.begin() as connection:
            row = (
                await connection.execute(
                    select(
                        _row.body_hash,
                        _row.state,
                        _row.answer,
                        _row.request_id,
                        _row.lease_until < self._now,
                        _row.expires_at < self._now,
                    )
                    .where(self._key)
                    .with_for_update()
                )
            ).one_or_none()
            claimed = {
                "body_hash": self._body_hash,
                "request_id": self._identity,
                "state": "running",
                "lease_until": self._now + self._lease_ms,
                "expires_at": self._now + KEPT_MS,
                "answer": None,
            }
            if row is None:
                await self._forget_old(connection)
                await connection.execute(
                    insert(stored_answer).values(scope=self.name, key_hash=self.key_hash, **claimed)
                )
                return True, None
            body_hash, state, answer, identity, is_orphan, is_expired = row
            if not is_expired:
                if body_hash != self._body_hash:
                    raise InvalidInput("该 Idempotency-Key 已用于另一个请求")
                if state == "done":
                    return False, bytes(answer or b"")
                if not is_orphan and identity != self._identity:
                    return False, None
            await connection.execute(update(stored_answer).where(self._key).values(claimed))
            return True, None

    async def _has_changed(self) -> bool:
        """Whether it is worth trying to claim again; a mere read, since many may wait."""
        async with self._database.connect() as connection:
            row = (
                await connection.execute(
                    select(_row.state, _row.request_id, _row.lease_until < self._now).where(self._key)
                )
            ).one_or_none()
        return row is None or row[0] == "done" or row[1] == self._identity or bool(row[2])

    async def _forget_old(self, connection: AsyncConnection) -> None:
        """Clear away answers that nobody may ask for any more, some with each new key: the table stays bounded."""
        is_expired = _row.expires_at < self._now
        old = await connection.execute(select(_row.scope, _row.key_hash).where(is_expired).limit(EXPIRED_AT_ONCE))
        for name, key_hash in old.all():
            # Somebody else may be at the same row: claiming it anew, or clearing it away.
            await connection.execute(
                delete(stored_answer).where(_row.scope == name, _row.key_hash == key_hash, is_expired)
            )
        if random.random() < TRIM_ODDS:  # noqa: S311 - spreads work, hides nothing
            is_done = and_(_row.scope == self.name, _row.state == "done")
            oldest = await connection.execute(
                select(_row.key_hash)
                .where(is_done)
                .order_by(_row.expires_at.desc())
                .offset(MAX_KEYS_PER_ACCOUNT)
                .limit(int(2 / TRIM_ODDS))
            )
            for (key_hash,) in oldest.all():
                await connection.execute(delete(stored_answer).where(is_done, _row.key_hash == key_hash))

    # -- while the call runs --------------------------------------------------------------------------------------

    def keep(self, claim: Claim) -> None:
        """Renew the claim's lease until `let_go`. Most calls are over before the first time."""
        loop = asyncio.get_running_loop()

        def begin() -> None:
            self._renewal = asyncio.create_task(self._renew(claim))

        self._timer = loop.call_later(self._lease_ms / 3000, begin)

    def let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._renewal is not None:
            self._renewal.cancel()

    async def _renew(self, claim: Claim) -> None:
        while True:
            try:
                async with self._database.begin() as connection:
                    renewed = await connection.execute(
                        update(stored_answer).where(self._own).values(lease_until=self._now + self._lease_ms)
                    )
                if not renewed.rowcount:
                    if not claim.is_settled:
                        log.warning("a key was taken over while its call ran", request_id=self._identity)
                    return
            except AiProjectError as error:
                log.warning("the lease of a key is not renewed", request_id=self._identity, error=str(error))
            await asyncio.sleep(self._lease_ms / 3000)

    async def give_up(self) -> None:
        """Free the key for the next try. If the database is away its lease does, a little later."""

        async def once() -> None:
            async with self._database.begin() as connection:
                await connection.execute(delete(stored_answer).where(self._own))

        try:
            await retry_transient(once)
        except AiProjectError as error:
            # The call's own end is what its caller must hear of, perhaps has heard of already.
            log.warning("a key is left to its lease", request_id=self._identity, error=str(error))


def _scope_name(account_id: int | None) -> str:
    return f"account {account_id}"


def _key(scope: Scope) -> bytes | None:
    values = [value.strip() for name, value in scope["headers"] if name == b"idempotency-key"]
    if not values:
        return None
    if len(values) > 1 or not 0 < len(values[0]) <= MAX_KEY_LENGTH:
        raise InvalidInput(f"Idempotency-Key 应为 1 到 {MAX_KEY_LENGTH} 个字符，且只有一个")
    return bytes(values[0])
