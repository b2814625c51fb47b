"""Balances and what calls take of them: holds, a ledger of entries, and the proof that they agree."""

from aiproject.ledger.model import ClaimResult, Hold, Key, KeyLost, Kind, Meter, Outcome, Stage
from aiproject.ledger.service import LeaseTimes, Quotas

__all__ = ["ClaimResult", "Hold", "Key", "KeyLost", "Kind", "LeaseTimes", "Meter", "Outcome", "Quotas", "Stage"]
