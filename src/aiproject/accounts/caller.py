"""Who calls, and by which credential."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from aiproject.accounts.model import Account

__all__ = ["Caller", "Credential", "LimitedKey"]


class Credential(StrEnum):
    """What a caller showed."""

    UUID = "uuid"  # the documented pair of uuid and username
    API_KEY = "api key"
    SESSION = "session"  # a browser's cookie


class LimitedKey(Protocol):
    """What limits ask of an API key; ``None`` is no limit of its own."""

    @property
    def key_id(self) -> int: ...
    @property
    def requests_per_minute(self) -> int | None: ...
    @property
    def concurrent_calls(self) -> int | None: ...
    @property
    def tokens_per_minute(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """An account, and the credential that speaks for it.

    Attributes:
        key_id: the API key's number; ``None`` for the other credentials.
        session_id: the browser session's public name; ``None`` for the other credentials.
        key: the API key's own limits; ``None`` for the other credentials.
    """

    account: Account
    credential: Credential
    key_id: int | None = None
    session_id: str | None = None
    key: LimitedKey | None = None
