"""``Idempotency-Key``: the same key with the same body gives the stored answer and one charge.

A key is claimed in the database before anything is held, so that all nodes agree on whose turn it is; claims go through
the books, and share their transactions (`aiproject.ledger.idempotency`). The answer is stored in the transaction that
charges for it, and only while the claim still stands: there is never an answer without its charge, nor a second charge
for a key. A failed call gives its key up: nothing was charged, and the next try may succeed.

A claim has a lease, renewed while its call runs, so that the key of a dead process is free again soon. A process that
only seemed dead finds its key in other hands when it comes to settle; then it charges nothing and its caller gets no
answer (`aiproject.ledger.model.KeyLost`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from aiproject.adapters.db.engine import Connection, Database
from aiproject.adapters.fault_points import fault_point
from aiproject.adapters.http.asgi import Scope, note, request_id
from aiproject.calls import idempotency_store as store
from aiproject.codes import Detail
from aiproject.errors import InvalidInput, TooManyRequests
from aiproject.ledger.model import ClaimResult, Key
from aiproject.ledger.service import Quotas

__all__ = ["IdempotencyClaim", "IdempotencyStore"]

MAX_KEY_LENGTH = 255
"""Characters of a key, as in the IETF draft's examples and the practice of payment services."""

MAX_STORED_BYTES = 4 * 1024 * 1024
"""Bytes of an answer that is kept; a full answer of 8192 tokens in single frames has under two million. A longer one
is not kept, and its key is given up: a repeated call is a new one, and charged."""

WAIT_SECONDS = 20.0
"""How long a repeated call waits for the first one before it is told to come back."""

POLL_SECONDS = 0.25


class IdempotencyClaim:
    """One call's hold on its key.

    Attributes:
        answer: the stored answer of an earlier call; ``None``: this call must find its own.
        is_wanted: the caller gave a key, so the answer is to be stored.
        is_settled: the answer went into the books; the key is no longer this call's to give up.
    """

    def __init__(self, key: Key | None = None, answer: bytes | None = None) -> None:
        self.answer = answer
        self._key = key
        self.is_settled = False

    @property
    def is_wanted(self) -> bool:
        return self._key is not None and self.answer is None

    def stored(self, answer: bytes) -> tuple[str, str, bytes] | None:
        """Return what the settlement stores; ``None`` where no key was given or the answer is too long."""
        if self._key is None or self.answer is not None or len(answer) > MAX_STORED_BYTES:
            return None
        self.is_settled = True
        return (*self._key, answer)


class IdempotencyStore:
    """Keys and their answers, in the database.

    Args:
        quotas: in whose transactions keys are claimed and answers stored.
    """

    def __init__(self, database: Database, quotas: Quotas) -> None:
        self._database = database
        self._quotas = quotas

    async def forget(self, connection: Connection, account_id: int) -> None:
        """Delete an account's stored answers, which hold what its person asked for, in a transaction of the caller's.

        A key that is claimed stays its running call's: it is forgotten when it expires.
        """
        await store.delete_answers(connection, _scope_name(account_id))

    def has_key(self, scope: Scope) -> bool:
        """Whether the request has a key, good or not."""
        return any(name == b"idempotency-key" for name, _ in scope["headers"])

    def claim(self, scope: Scope, account_id: int | None, body: bytes) -> AbstractAsyncContextManager[IdempotencyClaim]:
        """Return what a call runs inside of: it claims the request's key, and does nothing where there is none.

        Args:
            account_id: whose key it is; ``None`` for anonymous callers, whose keys mean nothing.
            body: what was asked.

        Raises:
            InvalidInput: the key is malformed; on entering: it was used with another body.
            TooManyRequests: on entering: the first call still runs.
            Unavailable: on entering: the database is away.
        """
        value = None if account_id is None else _key(scope)
        return nullcontext(IdempotencyClaim()) if value is None else self._claimed(scope, account_id, value, body)

    @asynccontextmanager
    async def _claimed(
        self, scope: Scope, account_id: int | None, value: bytes, body: bytes
    ) -> AsyncIterator[IdempotencyClaim]:
        key = Key(_scope_name(account_id), hashlib.sha256(value).hexdigest())
        body_hash = hashlib.sha256(scope["path"].encode() + b"\n" + scope["query_string"] + b"\n" + body).hexdigest()
        identity = request_id(scope)
        answer = await self._claim_or_wait(key, body_hash, identity)
        claim = IdempotencyClaim(key, answer)
        if answer is not None:
            note(scope, outcome="repeated", replayed=True)
            yield claim
            return
        fault_point("after claim")
        try:
            yield claim
        finally:
            if claim.is_settled:
                self._quotas.let_key_go(key, identity)
            else:
                await self._quotas.give_key_up(key, identity)

    async def _claim_or_wait(self, key: Key, body_hash: str, identity: str) -> bytes | None:
        """Return the stored answer, or ``None`` once the key is ours."""
        give_up_at = asyncio.get_running_loop().time() + WAIT_SECONDS
        while True:
            match await self._quotas.claim_key(key, body_hash=body_hash, request_id=identity):
                case ClaimResult.OURS:
                    return None
                case ClaimResult.OTHER_BODY:
                    raise InvalidInput(Detail.IDEMPOTENCY_KEY_REUSED)
                case ClaimResult.ANSWERED:
                    answer = await self._answer(key, body_hash)
                    if answer is not None:
                        return answer
            await self._await_change(key, give_up_at)

    async def _answer(self, key: Key, body_hash: str) -> bytes | None:
        """Return the stored answer; ``None``: it is a day old in this moment, and forgotten."""
        async with self._database.connect() as connection:
            return await store.stored_body(connection, key, body_hash)

    async def _await_change(self, key: Key, give_up_at: float) -> None:
        """Return when it is worth claiming again; mere reads, since many may wait."""
        loop = asyncio.get_running_loop()
        while loop.time() <= give_up_at:
            await asyncio.sleep(POLL_SECONDS)
            async with self._database.connect() as connection:
                found = await store.claim_state(connection, key, self._database.dialect)
            if found is None or found.is_answered or found.is_expired:
                return
        raise TooManyRequests(5, Detail.TOO_MANY_REQUESTS_WITH_KEY)


def _scope_name(account_id: int | None) -> str:
    return f"account {account_id}"


def _key(scope: Scope) -> bytes | None:
    values = [value.strip() for name, value in scope["headers"] if name == b"idempotency-key"]
    if not values:
        return None
    if len(values) > 1 or not 0 < len(values[0]) <= MAX_KEY_LENGTH:
        raise InvalidInput(Detail.IDEMPOTENCY_KEY_MALFORMED, limit=MAX_KEY_LENGTH)
    return bytes(values[0])
