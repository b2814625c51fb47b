"""Vouchers (令牌): codes that add tokens and picture times to an account, once each."""

from aiproject.vouchers.model import Voucher
from aiproject.vouchers.service import Vouchers

__all__ = ["Voucher", "Vouchers"]
