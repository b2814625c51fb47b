"""Who somebody is: accounts, registration, login and the identity of a call."""

from aiproject.accounts.keys import ApiKeys
from aiproject.accounts.model import Account, NewAccount
from aiproject.accounts.service import Accounts

__all__ = ["Account", "Accounts", "ApiKeys", "NewAccount"]
