"""Use cases of API keys; each opens and commits its own transaction."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from aiproject.accounts.api_keys import store as key_store
from aiproject.accounts.api_keys.model import (
    MAX_KEYS,
    PREFIX_LENGTH,
    ApiKey,
    KeyTerms,
    NewKey,
    SpendCap,
    StoredKey,
    check_caps,
    check_terms,
    draw_key,
    hash_of,
    prefix_of,
)
from aiproject.accounts.core.model import Account
from aiproject.adapters.db.engine import Connection, Database
from aiproject.adapters.db.errors import UniqueViolation
from aiproject.adapters.db.schema import new_account_id
from aiproject.adapters.log import get_logger
from aiproject.audit.model import AuditContext, Fact, account_origin
from aiproject.audit.store import record
from aiproject.codes import Detail
from aiproject.errors import AccountUnknown, AiProjectError, InvalidInput, NotAllowed, NotFound, NotSignedIn
from aiproject.meters import Meter

__all__ = ["ApiKeys"]

log = get_logger("accounts")

DRAWS = 5
"""Maximum attempts to draw a unique number and text for a new key, see `new_account_id`."""

KEPT_REVOKED = MAX_KEYS
"""Revoked keys that an account's list still shows; older ones are deleted when a new key is created."""

USE_INTERVAL = timedelta(minutes=1)
"""Minimum time between two updates of a key's last use."""

GATHER_SECONDS = 2.0
"""Seconds for which uses of keys are collected before they are written together."""

MAX_ADDRESS_LENGTH = 64


class ApiKeys:
    """Creates, lists, changes, revokes and authenticates API keys.

    Args:
        database: the database.
        clock: returns the current time, aware.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._clock = clock
        self._noted: dict[int, datetime] = {}
        self._uses: dict[int, tuple[datetime, str]] = {}
        self._writer: asyncio.Task[None] | None = None

    # -- for their owner ------------------------------------------------------------------------------------------

    async def create(
        self,
        account_id: int,
        terms: KeyTerms,
        caps: Mapping[Meter, SpendCap] | None = None,
        *,
        origin: AuditContext | None = None,
    ) -> NewKey:
        """Create a key. Its text is in the result and is stored nowhere.

        Args:
            caps: what it may spend; of a missing meter, everything that its account has.
            origin: who acts, for the audit log; ``None``: the key's owner.

        Raises:
            InvalidInput: see `check_terms`, or the account has too many keys.
            AccountUnknown: there is no such account.
        """
        caps = caps or {}
        now = self._clock()
        terms = check_terms(terms, now=now)
        check_caps(caps)
        for draw in range(1, DRAWS + 1):
            try:
                new = await self._database.transact(_insert, account_id, terms, caps, now, origin)
                break
            except UniqueViolation:
                if draw == DRAWS:
                    raise
        log.info("api key made", account=account_id, key=new.key.prefix)
        return new

    async def list(self, account_id: int) -> list[StoredKey]:
        """Return the account's keys, oldest first, including recently revoked ones."""
        async with self._database.connect() as connection:
            keys = await key_store.of_account(connection, account_id)
            limits = await key_store.limits_of(connection, [key.key_id for key in keys])
        return [StoredKey(key, limits[key.key_id]) for key in keys]

    async def get(self, account_id: int, prefix: str) -> StoredKey:
        """Return one key of the account.

        Raises:
            NotFound: it has no key with this prefix.
        """
        async with self._database.connect() as connection:
            key = await _owned(connection, account_id, prefix)
            limits = await key_store.limits_of(connection, [key.key_id])
        return StoredKey(key, limits[key.key_id])

    async def change(
        self,
        account_id: int,
        prefix: str,
        alter: Callable[[KeyTerms], KeyTerms] = lambda terms: terms,
        caps: Mapping[Meter, SpendCap] | None = None,
    ) -> StoredKey:
        """Change a key.

        Args:
            alter: returns the new terms for the present ones; simultaneous changes are made one after the other.
            caps: the new caps; a missing meter keeps its cap. If a cap is below what is spent already, nothing more can
                be spent.

        Raises:
            InvalidInput: see `check_terms`.
            NotFound: the account has no such key, or it is revoked.
        """
        caps = caps or {}
        check_caps(caps)
        stored = await self._database.transact(self._change, account_id, prefix, alter, caps)
        log.info("api key changed", account=account_id, key=prefix)
        return stored

    async def _change(
        self,
        connection: Connection,
        account_id: int,
        prefix: str,
        alter: Callable[[KeyTerms], KeyTerms],
        caps: Mapping[Meter, SpendCap],
    ) -> StoredKey:
        await key_store.lock_account(connection, account_id)
        key = await _owned(connection, account_id, prefix)
        if key.revoked_at is not None:
            raise NotFound
        terms = alter(key.terms)
        if terms != key.terms:
            # An expiry date that has passed meanwhile is only checked when it is what changes.
            changes_expiry = terms.expires_at != key.terms.expires_at
            now = self._clock() if changes_expiry else datetime.min.replace(tzinfo=UTC)
            await key_store.set_terms(connection, key.key_id, check_terms(terms, now=now))
        await key_store.set_caps(connection, key.key_id, caps)
        await _record(connection, None, "key.change", key)
        key = await _owned(connection, account_id, prefix)
        limits = await key_store.limits_of(connection, [key.key_id])
        return StoredKey(key, limits[key.key_id])

    async def revoke(self, account_id: int, prefix: str, *, origin: AuditContext | None = None) -> None:
        """Revoke a key permanently; every node refuses its next call. Revoking it again does nothing.

        Args:
            origin: who acts, for the audit log; ``None``: the key's owner.

        Raises:
            NotFound: the account has no such key.
        """
        await self._database.transact(_revoke, account_id, prefix, self._clock(), origin)
        log.info("api key revoked", account=account_id, key=prefix)

    async def revoke_all(self, account_id: int, connection: Connection) -> int:
        """Revoke every key of an account within the caller's transaction, and return their number."""
        return await key_store.revoke(connection, account_id, None, self._clock())

    async def with_prefix(self, prefix: str) -> ApiKey:
        """Return the key with this prefix, whichever account owns it; for the operator.

        Raises:
            NotFound: there is no such key.
        """
        key = None
        if _is_prefix(prefix):
            async with self._database.connect() as connection:
                key = await key_store.of_prefix(connection, prefix)
        if key is None:
            raise NotFound
        return key

    # -- for calls ------------------------------------------------------------------------------------------------

    async def recognise(self, presented: str, address: str) -> tuple[Account, ApiKey]:
        """Authenticate a presented key; return its account and the key.

        Each call makes one database query and caches nothing: a key that is revoked on one node is refused by all nodes
        at once.

        Args:
            presented: the text of the key.
            address: the caller's.

        Raises:
            NotSignedIn: the key is unknown, wrong, expired or revoked, or its account is disabled; never says which.
            NotAllowed: the key may not be used from this address.
            Unavailable: the database is unavailable.
        """
        prefix = prefix_of(presented)
        if prefix is None:
            raise NotSignedIn
        shown = hash_of(presented)
        async with self._database.connect() as connection:
            found = await key_store.by_secret(connection, prefix, shown)
        if found is None:
            raise NotSignedIn
        account, key, stored = found
        now = self._clock()
        # Compared again, in constant time: a database's collation may treat different texts as equal.
        if not hmac.compare_digest(stored, shown) or account.is_disabled or not key.is_usable(now):
            raise NotSignedIn
        if not key.allows_address(address):
            raise NotAllowed(Detail.API_KEY_NOT_FROM_HERE)
        self._note_use(key, now, address)
        return account, key

    # -- last use -------------------------------------------------------------------------------------------------

    def _note_use(self, key: ApiKey, now: datetime, address: str) -> None:
        known = self._noted.get(key.key_id) or key.last_used_at
        if known is not None and now - known < USE_INTERVAL:
            return
        self._noted[key.key_id] = now
        self._uses[key.key_id] = (now, address[:MAX_ADDRESS_LENGTH])
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_soon())

    async def _write_soon(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        self._writer = None
        await self._write_uses()

    async def _write_uses(self) -> None:
        uses, self._uses = self._uses, {}
        long_ago = self._clock() - USE_INTERVAL
        self._noted = {key_id: at for key_id, at in self._noted.items() if at > long_ago}
        if not uses:
            return
        try:
            await self._database.transact(key_store.note_uses, uses, interval=USE_INTERVAL)
        except AiProjectError as error:
            log.warning("the last use of keys is not noted", keys=len(uses), error=str(error))

    async def close(self) -> None:
        """Write the uses that are not written yet."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
            self._writer = None
        await self._write_uses()


async def _insert(
    connection: Connection,
    account_id: int,
    terms: KeyTerms,
    caps: Mapping[Meter, SpendCap],
    now: datetime,
    origin: AuditContext | None,
) -> NewKey:
    """Insert a key. Its number and text are drawn here, so that a repeated attempt draws new ones."""
    text = draw_key()
    key = ApiKey(new_account_id(now), account_id, text[:PREFIX_LENGTH], terms, now)
    if not await key_store.lock_account(connection, account_id):
        raise AccountUnknown
    await _make_room(connection, account_id)
    await key_store.add(connection, key, hash_of(text), caps)
    await _record(connection, origin, "key.add", key)
    return NewKey(key, text)


async def _make_room(connection: Connection, account_id: int) -> None:
    """Refuse a key beyond `MAX_KEYS`, and delete the keys that were revoked long ago."""
    keys = await key_store.of_account(connection, account_id)
    if sum(key.revoked_at is None for key in keys) >= MAX_KEYS:
        raise InvalidInput(Detail.TOO_MANY_KEYS, limit=MAX_KEYS)
    revoked = [(key.revoked_at, key.key_id) for key in keys if key.revoked_at is not None]
    old = [key_id for _, key_id in sorted(revoked)[: max(0, len(revoked) - KEPT_REVOKED + 1)]]
    if old:
        limits = await key_store.limits_of(connection, old)
        # A key whose calls still run is deleted later: their settlement needs its row.
        if idle := [key_id for key_id in old if not any(limit.held for limit in limits[key_id].values())]:
            await key_store.forget(connection, idle)


async def _revoke(
    connection: Connection, account_id: int, prefix: str, now: datetime, origin: AuditContext | None
) -> None:
    key = await _owned(connection, account_id, prefix)
    await key_store.revoke(connection, account_id, key.key_id, now)
    await _record(connection, origin, "key.revoke", key)


async def _owned(connection: Connection, account_id: int, prefix: str) -> ApiKey:
    key = await key_store.of_prefix(connection, prefix) if _is_prefix(prefix) else None
    if key is None or key.account_id != account_id:
        raise NotFound
    return key


def _is_prefix(text: str) -> bool:
    return len(text) == PREFIX_LENGTH and text.isascii() and text.isprintable()


async def _record(connection: Connection, origin: AuditContext | None, action: str, key: ApiKey) -> None:
    """Append an action on a key to the audit log, with a fingerprint of what the key may do from now on.

    The key's name is recorded only if someone other than the owner acts, since it may identify the owner.
    """
    (state,) = await key_store.states(connection, key_id=key.key_id)
    after: dict[str, Fact] = {
        "account": key.account_id,
        "key": key.prefix,
        "key_id": key.key_id,
        "key_sha256": state.fingerprint,
    }
    if origin is not None:
        after["name"] = key.name
    await record(connection, origin or account_origin(key.account_id), action, str(key.account_id), after=after)
