"""``Idempotency-Key``: the same key with the same body gives the stored answer and one charge.

A key is claimed in the database before anything is held, so that all nodes agree on which call runs. Claims go through
the ledger's batches and share their transactions (`aiproject.ledger.idempotency`). The answer is stored in the
transaction that charges for it, and only while the claim is valid: there is never an answer without its charge, nor a
second charge for a key. A failed call releases its key, because nothing was charged and the next attempt may succeed.

A claim has a lease, renewed while its call runs, so that the key of a dead process becomes available soon. A process
that was only presumed dead finds its key claimed by another call when it settles. It then charges nothing, and its
caller gets no answer (`aiproject.ledger.model.KeyLost`).
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
"""Characters of a key, as in the examples of the IETF draft and the practice of payment services."""

MAX_STORED_BYTES = 4 * 1024 * 1024
"""The largest answer in bytes that is stored; a full answer of 8192 tokens in single frames has under two million. A
longer one is not stored and its key is released: a repeated call is then a new one, and charged."""

WAIT_SECONDS = 20.0
"""Seconds that a repeated call waits for the first one before it is refused with ``Retry-After``."""

POLL_SECONDS = 0.25


class IdempotencyClaim:
    """The claim of one call on its key.

    Attributes:
        answer: the stored answer of an earlier call; ``None``: this call must produce its own.
        is_wanted: whether the caller sent a key, so that the answer must be stored.
        is_settled: whether the answer was handed to the ledger; this call must no longer release the key then.
    """

    def __init__(self, key: Key | None = None, answer: bytes | None = None) -> None:
        self.answer = answer
        self._key = key
        self.is_settled = False

    @property
    def is_wanted(self) -> bool:
        return self._key is not None and self.answer is None

    def stored(self, answer: bytes) -> tuple[str, str, bytes] | None:
        """Return what the settlement stores; ``None`` if there is no key or the answer is too long."""
        if self._key is None or self.answer is not None or len(answer) > MAX_STORED_BYTES:
            return None
        # Set before the settlement is known to succeed: if its outcome is in doubt, releasing the key could charge a
        # repeated call a second time. The lease releases it in that case.
        self.is_settled = True
        return (*self._key, answer)


class IdempotencyStore:
    """Keys and their answers, in the database.

    Args:
        quotas: the service in whose transactions keys are claimed and answers stored.
    """

    def __init__(self, database: Database, quotas: Quotas) -> None:
        self._database = database
        self._quotas = quotas

    async def forget(self, connection: Connection, account_id: int) -> None:
        """Delete an account's stored answers, which contain its owner's content, in a transaction of the caller.

        A claimed key stays with its running call; it is deleted when it expires.
        """
        await store.delete_answers(connection, _scope_name(account_id))

    def has_key(self, scope: Scope) -> bool:
        """Whether the request has a key, valid or not."""
        return any(name == b"idempotency-key" for name, _ in scope["headers"])

    def claim(self, scope: Scope, account_id: int | None, body: bytes) -> AbstractAsyncContextManager[IdempotencyClaim]:
        """Return the context manager that a call runs inside of; it claims the request's key, if there is one.

        Args:
            account_id: the owner of the key; ``None`` for anonymous callers, whose keys are ignored.
            body: the request's body.

        Raises:
            InvalidInput: the key is malformed; on entering: it was used with another body.
            TooManyRequests: on entering: the first call is still running.
            Unavailable: on entering: the database is unavailable.
        """
        value = None if account_id is None else _key(scope)
        return nullcontext(IdempotencyClaim()) if value is None else self._claimed(scope, account_id, value, body)

    @asynccontextmanager
    async def _claimed(
        self, scope: Scope, account_id: int | None, value: bytes, body: bytes
    ) -> AsyncIterator[IdempotencyClaim]:
        key = Key(_scope_name(account_id), hashlib.sha256(value).hexdigest())
        # The path and the query are part of what is compared: the same body on another address is another request.
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
                # Nothing was charged, so the next attempt may use the key.
                await self._quotas.give_key_up(key, identity)

    async def _claim_or_wait(self, key: Key, body_hash: str, identity: str) -> bytes | None:
        """Return the stored answer, or ``None`` once this call owns the key."""
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
        """Return the stored answer; ``None`` if it expired between the claim and this read."""
        async with self._database.connect() as connection:
            return await store.stored_body(connection, key, body_hash)

    async def _await_change(self, key: Key, give_up_at: float) -> None:
        """Return when another claim may succeed. It only reads, because many calls may wait for one key."""
        loop = asyncio.get_running_loop()
        while loop.time() <= give_up_at:
            # Polled in the database, because the first call may run on another node.
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
