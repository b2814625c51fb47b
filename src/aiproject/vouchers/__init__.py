"""Vouchers (令牌): codes that add tokens and picture times to an account, once each."""
