"""The command line: ``aiproject serve``, ``sandbox``, ``db``, ``user``, ``voucher``, ``ledger``, ``doctor``."""

from aiproject.cli.main import main

__all__ = ["main"]
