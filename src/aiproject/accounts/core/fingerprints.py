"""Fingerprints of secrets, by which the audit log and the ledger notice that one was swapped; no I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime

__all__ = ["key_fingerprint", "uuid_fingerprint"]


def uuid_fingerprint(account_id: int, uuid: str) -> str:
    """Return SHA-256, in hexadecimal, of an account's number and its uuid.

    A uuid has 122 random bits or more, so nobody finds it from its fingerprint. With the number in it, the fingerprints
    of two accounts never match, whatever their uuids are.
    """
    return hashlib.sha256(f"{account_id}:{uuid}".encode("utf-8", "replace")).hexdigest()


def key_fingerprint(
    fields: Sequence[str | int | datetime | None], caps: Sequence[tuple[str, int | None, int | None]]
) -> str:
    """Return SHA-256, in hexadecimal, of what an API key is and may do.

    Args:
        fields: its prefix, the hash of its secret, and its terms as they are stored.
        caps: capability, total and daily cap, in the order of capabilities.
    """
    plain = [
        field.astimezone(UTC).isoformat(timespec="microseconds") if isinstance(field, datetime) else field
        for field in fields
    ]
    return hashlib.sha256(json.dumps([plain, caps], separators=(",", ":"), default=str).encode("ascii")).hexdigest()
