"""The hash chain of an account's ledger: every entry seals the one before, so that a later edit shows.

The chain shows edits, it does not stop them: who can write the table can also write a whole new chain. Compare it with
a checkpoint (`aiproject.ledger.checkpoints`) to notice that, too.
"""

from __future__ import annotations

import hashlib
from json.encoder import encode_basestring_ascii as quoted

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

    The array is in the order of the arguments, without blanks, in ASCII.

    Args:
        previous: hash of the entry before; empty for the first.
    """
    # What json.dumps would write, in a fifth of the time.
    text = (
        f"[{quoted(previous)},{account_id},{seq},{quoted(capability)},{amount},"
        f"{'null' if balance is None else balance},{quoted(kind)},{quoted(request_id)},{attempt},{quoted(rule)},"
        f"{created_at}]"
    )
    return hashlib.sha256(text.encode("ascii")).hexdigest()
