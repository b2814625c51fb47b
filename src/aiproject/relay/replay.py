"""``Idempotency-Key``: the same key with the same body gives the stored answer and one charge.

A key is claimed in the database before anything is held, so that two nodes agree; the answer is stored in the
transaction that charges for it, so that there is never one without the other. A failed call gives its key up: nothing
was charged, and the next try may succeed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.asgi import Scope, note, request_id
from aiproject.adapters.database import Database, UniqueViolation, retry_transient
from aiproject.adapters.schema import stored_answer
from aiproject.errors import InvalidInput, TooManyRequests
from aiproject.quotas.store import database_now

__all__ = ["Claim", "Replay"]

MAX_KEY_LENGTH = 255
"""Characters of a key, as in the IETF draft's examples and the practice of payment services."""

MAX_STORED_BYTES = 4 * 1024 * 1024
"""Bytes of an answer that is kept; a full answer of 8192 tokens in single frames has under two million. A longer one
is not kept, and its key is given up: a repeated call is a new one, and charged."""

KEPT_MS = 24 * 3600 * 1000
"""Milliseconds that an answer is kept."""

WAIT_SECONDS = 20.0
"""How long a repeated call waits for the first one before it is told to come back."""

POLL_SECONDS = 0.25


class Claim:
    """One call's hold on its key.

    Attributes:
        answer: the stored answer of an earlier call; ``None``: this call must find its own.
        is_wanted: the caller gave a key, so the answer is to be stored.
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
        lease_ms: milliseconds after which a claim of a dead process may be taken over; running ones are renewed with
            their holds' leases.
    """

    def __init__(self, database: Database, *, lease_ms: int) -> None:
        self._database = database
        self._lease_ms = lease_ms

    @asynccontextmanager
    async def claim(self, scope: Scope, account_id: int | None, body: bytes) -> AsyncIterator[Claim]:
        """Claim the request's key for one call; without a key, do nothing.

        Args:
            account_id: whose key it is; ``None`` for anonymous callers, whose keys mean nothing.
            body: what was asked.

        Raises:
            InvalidInput: the key is malformed, or was used with another body.
            TooManyRequests: the first call still runs.
        """
        key = _key(scope)
        if key is None or account_id is None:
            yield Claim()
            return
        name = f"account {account_id}"
        key_hash = hashlib.sha256(key).hexdigest()
        body_hash = hashlib.sha256(scope["path"].encode() + b"\n" + scope["query_string"] + b"\n" + body).hexdigest()
        identity = request_id(scope)
        answer = await self._await_turn(name, key_hash, body_hash, identity)
        claim = Claim(name, key_hash, answer)
        if answer is not None:
            note(scope, outcome="repeated", replayed=True)
        try:
            yield claim
        finally:
            if claim.is_wanted and not claim.is_settled:
                await self._give_up(name, key_hash, identity)

    async def _await_turn(self, name: str, key_hash: str, body_hash: str, identity: str) -> bytes | None:
        loop = asyncio.get_running_loop()
        until = loop.time() + WAIT_SECONDS
        while True:
            try:
                is_mine, answer = await retry_transient(lambda: self._look(name, key_hash, body_hash, identity))
            except UniqueViolation:
                continue  # somebody claimed it in this moment: look again
            if is_mine or answer is not None:
                return answer
            if loop.time() > until:
                raise TooManyRequests(5, "相同 Idempotency-Key 的请求仍在处理中，请稍后再试")
            await asyncio.sleep(POLL_SECONDS)

    async def _look(self, name: str, key_hash: str, body_hash: str, identity: str) -> tuple[bool, bytes | None]:
        dialect = self._database.dialect
        async with self._database.begin() as connection:
            now = database_now(dialect)
            row = (
                await connection.execute(
                    select(
                        stored_answer.c.body_hash,
                        stored_answer.c.state,
                        stored_answer.c.answer,
                        stored_answer.c.lease_until < now,
                        stored_answer.c.expires_at < now,
                    )
                    .where(stored_answer.c.scope == name, stored_answer.c.key_hash == key_hash)
                    .with_for_update()
                )
            ).one_or_none()
            if row is None:
                await self._expire(connection)
                await connection.execute(
                    insert(stored_answer).values(
                        scope=name,
                        key_hash=key_hash,
                        body_hash=body_hash,
                        request_id=identity,
                        state="running",
                        lease_until=now + self._lease_ms,
                        expires_at=now + KEPT_MS,
                    )
                )
                return True, None
            known_body, state, answer, is_orphan, is_expired = row
            if not is_expired and known_body != body_hash:
                raise InvalidInput("该 Idempotency-Key 已用于另一个请求")
            if not is_expired and state == "done":
                return False, bytes(answer or b"")
            if not is_expired and not is_orphan:
                return False, None
            await connection.execute(
                update(stored_answer)
                .where(stored_answer.c.scope == name, stored_answer.c.key_hash == key_hash)
                .values(
                    body_hash=body_hash,
                    request_id=identity,
                    state="running",
                    answer=None,
                    lease_until=now + self._lease_ms,
                    expires_at=now + KEPT_MS,
                )
            )
            return True, None

    async def _expire(self, connection: AsyncConnection) -> None:
        """Forget some answers that are a day old, a few with each new key, so that the table stays bounded."""
        old = (
            await connection.execute(
                select(stored_answer.c.scope, stored_answer.c.key_hash)
                .where(stored_answer.c.expires_at < database_now(self._database.dialect))
                .limit(10)
            )
        ).all()
        for scope_name, key_hash in old:
            await connection.execute(
                delete(stored_answer).where(stored_answer.c.scope == scope_name, stored_answer.c.key_hash == key_hash)
            )

    async def _give_up(self, name: str, key_hash: str, identity: str) -> None:
        async def once() -> None:
            async with self._database.begin() as connection:
                await connection.execute(
                    delete(stored_answer).where(
                        stored_answer.c.scope == name,
                        stored_answer.c.key_hash == key_hash,
                        stored_answer.c.request_id == identity,
                        stored_answer.c.state == "running",
                    )
                )

        await retry_transient(once)


def _key(scope: Scope) -> bytes | None:
    values = [value.strip() for name, value in scope["headers"] if name == b"idempotency-key"]
    if not values:
        return None
    if len(values) > 1 or not 0 < len(values[0]) <= MAX_KEY_LENGTH:
        raise InvalidInput(f"Idempotency-Key 应为 1 到 {MAX_KEY_LENGTH} 个字符，且只有一个")
    return bytes(values[0])
