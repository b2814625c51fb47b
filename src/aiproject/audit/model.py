"""The types of the audit log, and its chain of hashes; no I/O."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from aiproject.meters import Meter

__all__ = [
    "CHANGED",
    "MAX_ACTION_LENGTH",
    "MAX_ADDRESS_LENGTH",
    "MAX_NAME_LENGTH",
    "MAX_REQUEST_ID_LENGTH",
    "MAX_TARGET_LENGTH",
    "Actor",
    "ActorKind",
    "AuditContext",
    "AuditEntry",
    "AuditFilter",
    "Fact",
    "account_origin",
    "facts_json",
    "seal",
    "server_origin",
]

MAX_NAME_LENGTH = 100
MAX_TARGET_LENGTH = 200
MAX_ADDRESS_LENGTH = 64
MAX_REQUEST_ID_LENGTH = 64
MAX_ACTION_LENGTH = 64
"""The lengths of the columns, in characters."""

MAX_FACT_LENGTH = 300
"""The longest text in ``before`` or ``after``, in characters."""

FIELDS = frozenset(
    {
        "account",  # its number
        "call",  # the X-Request-Id of a call that was charged
        "attempt",  # the attempt at it
        "username",
        "email",
        "academy",
        *map(str, Meter),  # balances, in the units that operators grant
        "is_disabled",
        "password",  # only ever "changed", see `Fact`
        "uuid",  # only ever "changed"
        "uuid_sha256",  # its fingerprint, which reveals a uuid that was swapped
        "sessions",  # their number, or "ended"
        "admin",
        "name",
        "role",
        "code",  # of a voucher: masked
        "made_at",  # of a voucher: identifies those that were created together, without their codes
        "count",
        "audience",
        "is_available",
        "expires_at",
        "max_uses",
        "uses",
        "key",  # an API key's public prefix
        "key_id",  # its number
        "key_sha256",  # fingerprint of its terms and caps
        "capabilities",
        "models",
        "addresses",
        "daily_tokens",
        "total_tokens",
        "requests_per_minute",
        "concurrent_calls",
        "tokens_per_minute",
        "outcome",
        "limit",
        "top_k",
        "temperature",
        "entries",
        "format",
    }
)
"""The names that ``before`` and ``after`` may contain. Any other field is refused, so that no secret is recorded by
accident. Adding one here is a deliberate decision."""

SECRET_FIELDS = frozenset({"password", "uuid"})
"""Fields that are named when they changed; their only value is ``CHANGED``."""

CHANGED = "changed"

Fact = str | int | float | bool | None


class ActorKind(StrEnum):
    """The kind of actor."""

    ADMINISTRATOR = "administrator"
    COMMAND_LINE = "command line"
    ACCOUNT = "account"  # its owner
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of an act.

    Attributes:
        name: the administrator's name at that time, or the name of the operating system's user; the number of an
            account.
    """

    kind: ActorKind
    name: str


@dataclass(frozen=True, slots=True)
class AuditContext:
    """The author and the source of an act, which all entries of one request or command share.

    Attributes:
        address: the caller's address; empty on the command line.
        request_id: the id of the HTTP request, or of the command's run.
    """

    actor: Actor
    address: str
    request_id: str


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """A selection of entries; ``None`` matches any value. Texts are compared exactly.

    Attributes:
        action: an action such as ``user.grant``, or its noun and a dot (``user.``) for all actions of the noun.
        since: milliseconds since 1970, inclusive.
        until: milliseconds since 1970, exclusive.
        before_seq: only entries with smaller numbers.
    """

    actor: str | None = None
    action: str | None = None
    target: str | None = None
    request_id: str | None = None
    since: int | None = None
    until: int | None = None
    before_seq: int | None = None


def server_origin() -> AuditContext:
    """Return the context of an act that the server performs on its own."""
    return AuditContext(Actor(ActorKind.SERVER, "server"), "", secrets.token_hex(12))


def account_origin(account_id: int) -> AuditContext:
    """Return the context of an act of an account's owner. It names the number, because the log outlives the account."""
    return AuditContext(Actor(ActorKind.ACCOUNT, str(account_id)), "", secrets.token_hex(12))


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One immutable entry of the log.

    Attributes:
        seq: 1, 2, 3 … without a gap.
        at: milliseconds since 1970, UTC, by the clock of the node that wrote it.
        before: a JSON object of the state before the act; ``after``: of the state after it.
        hash: the hash of this entry and of the previous entry's hash, see `seal`.
    """

    seq: int
    at: int
    actor_kind: str
    actor: str
    action: str
    target: str
    before: str
    after: str
    address: str
    request_id: str
    hash: str


def facts_json(facts: Mapping[str, Fact]) -> str:
    """Return facts in the form of an entry: JSON in ASCII with sorted keys.

    Raises:
        ValueError: a field that is not among `FIELDS`, or a secret one with a value. Both are defects of the caller.
    """
    for name, value in facts.items():
        if name not in FIELDS:
            raise ValueError(f"the audit log has no field {name}")
        if name in SECRET_FIELDS and value != CHANGED:
            raise ValueError(f"the audit log never holds a {name}")
    short = {name: value[:MAX_FACT_LENGTH] if isinstance(value, str) else value for name, value in facts.items()}
    return json.dumps(short, sort_keys=True, separators=(",", ":"))


def seal(
    previous: str,
    *,
    seq: int,
    at: int,
    actor_kind: str,
    actor: str,
    action: str,
    target: str,
    before: str,
    after: str,
    address: str,
    request_id: str,
) -> str:
    """Return the hash of an entry: SHA-256, in hexadecimal, of a JSON array of the previous hash and every field.

    The array is in ASCII, in the order of the arguments, without spaces.

    Args:
        previous: the hash of the previous entry; empty for the first.
    """
    fields = [previous, seq, at, actor_kind, actor, action, target, before, after, address, request_id]
    # Values are bytes where someone has written them into SQLite's text columns. They must give a different hash.
    return hashlib.sha256(json.dumps(fields, separators=(",", ":"), default=str).encode("ascii")).hexdigest()
