"""All SQL on API keys, and the conversion between rows and `ApiKey`.

Of ``spend_limit`` only the caps are written here; the spent and held amounts are changed by `aiproject.ledger` only. A
key has one row there for each meter from its creation on, with a cap or without, so that every hold is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, bindparam, delete, insert, or_, select, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.accounts.api_keys.model import ApiKey, KeyTerms, SpendCap, SpendLimit, networks_of
from aiproject.accounts.core.fingerprints import key_fingerprint
from aiproject.accounts.core.model import Account
from aiproject.accounts.core.store import COLUMNS as ACCOUNT_COLUMNS
from aiproject.adapters.db.schema import EditedDateTime, UtcDateTime, api_key, spend_limit
from aiproject.adapters.db.schema import user as users
from aiproject.meters import Meter

__all__ = [
    "KeyState",
    "add",
    "by_secret",
    "erase_all",
    "forget",
    "limits_of",
    "lock_account",
    "note_uses",
    "of_account",
    "of_prefix",
    "revoke",
    "set_caps",
    "set_terms",
    "states",
]

TERMS = (
    api_key.c.name,
    api_key.c.expires_at,
    api_key.c.requests_per_minute,
    api_key.c.concurrent_calls,
    api_key.c.tokens_per_minute,
    api_key.c.capabilities,
    api_key.c.models,
    api_key.c.addresses,
)
COLUMNS = (
    api_key.c.key_id,
    api_key.c.account_id,
    api_key.c.prefix,
    api_key.c.created_at,
    api_key.c.revoked_at,
    api_key.c.last_used_at,
    api_key.c.last_used_address,
    *TERMS,
)


def _key(row: Sequence[Any]) -> ApiKey:
    key_id, account_id, prefix, created_at, revoked_at, last_used_at, last_used_address = row[:7]
    name, expires_at, requests, calls, tokens, capabilities, models, addresses = row[7 : len(COLUMNS)]
    terms = KeyTerms(
        name,
        expires_at,
        requests,
        calls,
        tokens,
        None if capabilities is None else frozenset(map(Meter, capabilities.split())),
        None if models is None else frozenset(models.split()),
        None if addresses is None else networks_of(addresses.split()),
    )
    return ApiKey(key_id, account_id, prefix, terms, created_at, revoked_at, last_used_at, last_used_address)


def _columns(terms: KeyTerms) -> dict[str, Any]:
    return {
        "name": terms.name,
        "expires_at": terms.expires_at,
        "requests_per_minute": terms.requests_per_minute,
        "concurrent_calls": terms.concurrent_calls,
        "tokens_per_minute": terms.tokens_per_minute,
        "capabilities": None if terms.capabilities is None else " ".join(sorted(terms.capabilities)),
        "models": None if terms.models is None else " ".join(sorted(terms.models)),
        "addresses": None if terms.addresses is None else " ".join(map(str, terms.addresses)),
    }


# -- reading -----------------------------------------------------------------------------------------------------------


async def by_secret(connection: AsyncConnection, prefix: str, secret_hash: str) -> tuple[Account, ApiKey, str] | None:
    """Return the key with this prefix and hash, its account, and the stored hash.

    Both are part of the condition, so an unknown prefix and a wrong secret both find nothing.
    """
    statement = (
        select(*ACCOUNT_COLUMNS, *COLUMNS, api_key.c.secret_hash)
        .join(users, users.c.AccountId == api_key.c.account_id)
        .where(api_key.c.prefix == prefix, api_key.c.secret_hash == secret_hash)
    )
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        return None
    return Account(*row[: len(ACCOUNT_COLUMNS)]), _key(row[len(ACCOUNT_COLUMNS) : -1]), row[-1]


async def of_account(connection: AsyncConnection, account_id: int) -> list[ApiKey]:
    """Return the account's keys, oldest first, including revoked ones."""
    rows = await connection.execute(
        select(*COLUMNS).where(api_key.c.account_id == account_id).order_by(api_key.c.created_at, api_key.c.key_id)
    )
    return [_key(row) for row in rows]


async def of_prefix(connection: AsyncConnection, prefix: str) -> ApiKey | None:
    """Return the key with this prefix."""
    row = (await connection.execute(select(*COLUMNS).where(api_key.c.prefix == prefix))).one_or_none()
    return None if row is None else _key(row)


async def limits_of(connection: AsyncConnection, key_ids: Sequence[int]) -> dict[int, dict[Meter, SpendLimit]]:
    """Return the spending limits and amounts of keys, by key and meter."""
    columns = (spend_limit.c[name] for name in SpendLimit._fields)
    found: dict[int, dict[Meter, SpendLimit]] = {key_id: {} for key_id in key_ids}
    rows = await connection.execute(
        select(spend_limit.c.key_id, spend_limit.c.capability, *columns).where(spend_limit.c.key_id.in_(key_ids))
    )
    for row in rows:
        found[row[0]][Meter(row[1])] = SpendLimit(*row[2:])
    return found


class KeyState(NamedTuple):
    """The properties of a key that are compared with the audit log."""

    key_id: int
    account_id: int
    created_at: datetime | str  # text: the value was edited by hand
    revoked_at: datetime | str | None
    fingerprint: str


def _as_it_is(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column in a form that can also read a damaged timestamp."""
    return type_coerce(column, EditedDateTime) if isinstance(column.type, UtcDateTime) else column


async def states(
    connection: AsyncConnection, *conditions: ColumnElement[bool], key_id: int | None = None
) -> list[KeyState]:
    """Return the states of keys, in the order of their numbers.

    Args:
        conditions: SQL conditions, all of which must hold; for other modules with SQL.
        key_id: restricts the result to this key.
    """
    if key_id is not None:
        conditions = (*conditions, api_key.c.key_id == key_id)
    state = (api_key.c.key_id, api_key.c.account_id, *map(_as_it_is, (api_key.c.created_at, api_key.c.revoked_at)))
    fields = (api_key.c.prefix, api_key.c.secret_hash, *map(_as_it_is, TERMS))
    caps = (spend_limit.c.capability, spend_limit.c.total, spend_limit.c.daily)
    rows = await connection.execute(
        select(*state, *fields, *caps)
        .select_from(api_key.outerjoin(spend_limit, spend_limit.c.key_id == api_key.c.key_id))
        .where(*conditions)
        .order_by(api_key.c.key_id, spend_limit.c.capability)
    )
    end = len(state) + len(fields)
    found = []
    for head, of_key in groupby(rows, lambda row: tuple(row[:end])):
        limits = [(row[end], row[end + 1], row[end + 2]) for row in of_key]
        fingerprint = key_fingerprint(head[len(state) :], limits)
        found.append(KeyState(head[0], head[1], head[2], head[3], fingerprint))
    return found


# -- writing -----------------------------------------------------------------------------------------------------------


async def lock_account(connection: AsyncConnection, account_id: int) -> bool:
    """Lock an account's row, and with it its ledger and keys; ``False``: the account does not exist or is deleted."""
    locked = (
        select(users.c.AccountId).where(users.c.AccountId == account_id, users.c.DeletedAt.is_(None)).with_for_update()
    )
    return (await connection.execute(locked)).one_or_none() is not None


async def add(connection: AsyncConnection, key: ApiKey, secret_hash: str, caps: Mapping[Meter, SpendCap]) -> None:
    """Insert a key that has spent nothing.

    Raises:
        UniqueViolation: its number or its prefix exists already.
    """
    await connection.execute(
        insert(api_key).values(
            key_id=key.key_id,
            account_id=key.account_id,
            prefix=key.prefix,
            secret_hash=secret_hash,
            created_at=key.created_at,
            **_columns(key.terms),
        )
    )
    rows = [
        {"key_id": key.key_id, "capability": str(capability), **caps.get(capability, SpendCap())._asdict()}
        for capability in Meter
    ]
    await connection.execute(insert(spend_limit), rows)


async def set_terms(connection: AsyncConnection, key_id: int, terms: KeyTerms) -> None:
    """Change the terms of a key."""
    await connection.execute(update(api_key).where(api_key.c.key_id == key_id).values(_columns(terms)))


async def set_caps(connection: AsyncConnection, key_id: int, caps: Mapping[Meter, SpendCap]) -> None:
    """Change the caps of a key; the spent amounts stay."""
    for capability in sorted(caps):
        await connection.execute(
            update(spend_limit)
            .where(spend_limit.c.key_id == key_id, spend_limit.c.capability == str(capability))
            .values(**caps[capability]._asdict())
        )


async def revoke(connection: AsyncConnection, account_id: int, key_id: int | None, now: datetime) -> int:
    """Revoke one key of the account (``None``: all keys); return how many were not revoked before."""
    one = () if key_id is None else (api_key.c.key_id == key_id,)
    result = await connection.execute(
        update(api_key)
        .where(api_key.c.account_id == account_id, api_key.c.revoked_at.is_(None), *one)
        .values(revoked_at=now)
    )
    return result.rowcount


async def forget(connection: AsyncConnection, key_ids: Sequence[int]) -> None:
    """Delete keys; holds keep their numbers."""
    await connection.execute(delete(spend_limit).where(spend_limit.c.key_id.in_(key_ids)))
    await connection.execute(delete(api_key).where(api_key.c.key_id.in_(key_ids)))


async def note_uses(
    connection: AsyncConnection, uses: Mapping[int, tuple[datetime, str]], *, interval: timedelta
) -> None:
    """Write when and from where keys were last used, unless that was written less than ``interval`` ago."""
    statement = (
        update(api_key)
        .where(
            api_key.c.key_id == bindparam("key"),
            or_(api_key.c.last_used_at.is_(None), api_key.c.last_used_at <= bindparam("before")),
        )
        .values(last_used_at=bindparam("at"), last_used_address=bindparam("address"))
    )
    rows = [
        {"key": key_id, "at": uses[key_id][0], "address": uses[key_id][1], "before": uses[key_id][0] - interval}
        for key_id in sorted(uses)
    ]
    await connection.execute(statement, rows)


async def erase_all(connection: AsyncConnection, account_id: int, now: datetime) -> None:
    """Delete the keys of an account that is being deleted.

    A key with running calls is revoked and stripped of personal data instead, since those calls settle against its row
    of ``spend_limit``. Its number, prefix and hash do not identify the owner.
    """
    keys = [key.key_id for key in await of_account(connection, account_id)]
    limits = await limits_of(connection, keys)
    busy = [key_id for key_id in keys if any(limit.held for limit in limits[key_id].values())]
    if idle := [key_id for key_id in keys if key_id not in busy]:
        await forget(connection, idle)
    if busy:
        nothing = {"name": "-", "addresses": None, "last_used_at": None, "last_used_address": None, "revoked_at": now}
        await connection.execute(update(api_key).where(api_key.c.key_id.in_(busy)).values(nothing))
