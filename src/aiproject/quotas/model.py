"""The words of the quota engine; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Capability", "Hold"]


class Capability(StrEnum):
    """What an account has a balance of."""

    TOKENS = "tokens"  # of the model's own tokenizer
    PIC_TIMES = "pic_times"  # recognised pictures
    VOICE_SECONDS = "voice_seconds"  # kept and counted in milliseconds


@dataclass(frozen=True, slots=True)
class Hold:
    """The right to make one call, until it is captured or released.

    Attributes:
        account_id: whose quota it is; ``None`` for a call that nobody pays (anonymous dictation).
        capability: what the call consumes.
        amount: the most that will be taken: tokens, pictures or milliseconds.
        request_id: the call it belongs to.
    """

    account_id: int | None
    capability: Capability
    amount: int
    request_id: str
