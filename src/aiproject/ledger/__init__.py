"""Balances and what calls take of them: holds, a ledger of entries, and the proof that they agree."""

from aiproject.ledger.model import Capability, Hold, Key, KeyLost, KeyTurn, Kind, Outcome, Stage
from aiproject.ledger.service import LeaseTimes, Quotas

__all__ = ["Capability", "Hold", "Key", "KeyLost", "KeyTurn", "Kind", "LeaseTimes", "Outcome", "Quotas", "Stage"]
