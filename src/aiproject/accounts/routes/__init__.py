"""The HTTP routes of accounts: the legacy addresses and ``/v1``."""
