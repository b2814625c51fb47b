"""Balances and what calls take of them: holds, a ledger of entries, and the proof that they agree."""

from aiproject.quotas.model import Capability, Hold, KeyLost, Kind, Outcome, Stage
from aiproject.quotas.service import LeaseTimes, Quotas

__all__ = ["Capability", "Hold", "KeyLost", "Kind", "LeaseTimes", "Outcome", "Quotas", "Stage"]
