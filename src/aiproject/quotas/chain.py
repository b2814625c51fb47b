"""The hash chain of an account's ledger: every entry seals the one before, so that a later edit shows.

The chain shows edits, it does not stop them: who can write the table can also write a whole new chain. Compare the
newest hash with one that was exported earlier to notice that, too.
"""

from __future__ import annotations

import hashlib
import json

__all__ = ["seal"]


def seal(
    previous: str,
    *,
    account_id: int,
    seq: int,
    capability: str,
    amount: int,
    balance: int | None,
    kind: str,
    request_id: str,
    attempt: int,
    rule: str,
    created_at: int,
) -> str:
    """Return the hash of an entry: SHA-256, in hexadecimal, over a JSON array of the previous hash and every field.

    Args:
        previous: hash of the entry before; empty for the first.
    """
    fields = [
        previous, account_id, seq, capability, amount, balance, kind, request_id, attempt, rule, created_at,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(fields, separators=(",", ":")).encode("ascii")).hexdigest()
