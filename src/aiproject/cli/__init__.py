"""The command line: ``aiproject serve``, ``sandbox``, ``db``, ``user``, ``voucher``, ``ledger``,
``admin``, ``audit``, ``doctor``."""

from aiproject.cli.main import main

__all__ = ["main"]
