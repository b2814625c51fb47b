"""Balances and what calls take of them."""

from aiproject.quotas.model import Capability, Hold
from aiproject.quotas.service import Quotas

__all__ = ["Capability", "Hold", "Quotas"]
