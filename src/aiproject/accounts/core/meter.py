"""What an account has balances of; no I/O."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["MAX_UNITS", "Meter"]

MAX_UNITS = (1 << 53) - 1
"""Units that a balance, a limit, a charge or a report has at most: exact in JSON and JavaScript, and small enough to
add up."""


class Meter(StrEnum):
    """What an account has a balance of."""

    TOKENS = "tokens"  # of the model's own tokenizer
    PIC_TIMES = "pic_times"  # recognised pictures
    VOICE_SECONDS = "voice_seconds"  # kept and counted in milliseconds
