"""Balances and what calls take of them: holds, a ledger of entries, and the proof that they agree."""

from aiproject.quotas.model import Capability, Hold, Key, KeyLost, KeyTurn, Kind, Outcome, Stage
from aiproject.quotas.service import LeaseTimes, Quotas

__all__ = ["Capability", "Hold", "Key", "KeyLost", "KeyTurn", "Kind", "LeaseTimes", "Outcome", "Quotas", "Stage"]
