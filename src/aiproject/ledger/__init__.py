"""Balances and what calls take of them: holds, a ledger of entries, and the proof that they agree."""
