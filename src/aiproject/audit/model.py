"""The words of the audit log, and its chain of hashes; no I/O."""

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
"""Characters of the columns."""

MAX_FACT_LENGTH = 300
"""Characters of one text in ``before`` or ``after``."""

FIELDS = frozenset(
    {
        "account",  # its number
        "call",  # the X-Request-Id of a call that was charged
        "attempt",  # which try of it
        "username",
        "email",
        "academy",
        *map(str, Meter),  # balances, in what operators grant
        "is_disabled",
        "password",  # only ever "changed", see `Fact`
        "uuid",  # only ever "changed"
        "uuid_sha256",  # its fingerprint, by which one that was swapped is noticed
        "sessions",  # how many, or "ended"
        "admin",
        "name",
        "role",
        "code",  # of a voucher: masked
        "made_at",  # of a voucher: names those that were made at once, and no code
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
"""What ``before`` and ``after`` may name. A field that is not here is refused, so that no secret gets in by accident:
whoever needs a new one adds it here, and sees this sentence."""

SECRET_FIELDS = frozenset({"password", "uuid"})
"""Named where they were changed; the only value they may have is ``CHANGED``."""

CHANGED = "changed"

Fact = str | int | float | bool | None


class ActorKind(StrEnum):
    """What acts."""

    ADMINISTRATOR = "administrator"
    COMMAND_LINE = "command line"
    ACCOUNT = "account"  # its owner
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts.

    Attributes:
        name: of the administrator at that moment, or of the operating system's user; of an account, its number.
    """

    kind: ActorKind
    name: str


@dataclass(frozen=True, slots=True)
class AuditContext:
    """Who acts, and whence: what every entry of one request or command has in common.

    Attributes:
        address: of the caller; empty on the command line.
        request_id: of the HTTP request, or of the command's run.
    """

    actor: Actor
    address: str
    request_id: str


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are wanted; ``None``: any. Texts are compared exactly.

    Attributes:
        action: an action such as ``user.grant``, or its noun and a dot (``user.``) for all of them.
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
    """Return the origin of an act that nobody asked for: the server's own."""
    return AuditContext(Actor(ActorKind.SERVER, "server"), "", secrets.token_hex(12))


def account_origin(account_id: int) -> AuditContext:
    """Return the origin of what an account's owner does, named by the number: the person may leave, the log stays."""
    return AuditContext(Actor(ActorKind.ACCOUNT, str(account_id)), "", secrets.token_hex(12))


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One immutable line of the log.

    Attributes:
        seq: 1, 2, 3 … without a gap.
        at: milliseconds since 1970, UTC, by the clock of the node that wrote it.
        before: JSON object of what was so; ``after``: of what is so now.
        hash: over this entry and the hash of the one before, see `seal`.
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
    """Return facts as an entry keeps them: JSON in ASCII, keys in order.

    Raises:
        ValueError: a field that is not among `FIELDS`, or a secret one with a value: a bug of the caller.
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
    """Return the hash of an entry: SHA-256, in hexadecimal, over a JSON array of the previous hash and every field.

    The array is in the order of the arguments, without blanks, in ASCII.

    Args:
        previous: hash of the entry before; empty for the first.
    """
    fields = [previous, seq, at, actor_kind, actor, action, target, before, after, address, request_id]
    # Bytes stand where somebody has put them into SQLite's columns of text: they must end in another hash.
    return hashlib.sha256(json.dumps(fields, separators=(",", ":"), default=str).encode("ascii")).hexdigest()
