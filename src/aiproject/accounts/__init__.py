"""Who somebody is: accounts, registration, login and the identity of a call."""

from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.model import Account, NewAccount
from aiproject.accounts.core.service import Accounts

__all__ = ["Account", "Accounts", "ApiKeys", "NewAccount"]
