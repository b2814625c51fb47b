"""Who calls, and by which credential."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from aiproject.accounts.model import Account

__all__ = ["Caller", "Credential"]


class Credential(StrEnum):
    """What a caller showed."""

    UUID = "uuid"  # the documented pair of uuid and username
    API_KEY = "api key"
    SESSION = "session"  # a browser's cookie


@dataclass(frozen=True, slots=True)
class Caller:
    """An account, and the credential that speaks for it.

    Attributes:
        key_id: the API key's number; ``None`` for the other credentials.
        session_id: the browser session's public name; ``None`` for the other credentials.
    """

    account: Account
    credential: Credential
    key_id: int | None = None
    session_id: str | None = None
