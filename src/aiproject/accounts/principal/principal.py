"""Who calls, and by which credential."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from aiproject.accounts.api_keys.model import ApiKey
from aiproject.accounts.core.model import Account
from aiproject.accounts.principal.recent import Pair
from aiproject.codes import Detail
from aiproject.errors import NotAllowed
from aiproject.meters import Meter

__all__ = ["Credential", "Principal"]


class Credential(StrEnum):
    """What a caller showed."""

    UUID = "uuid"  # the documented pair of uuid and username
    API_KEY = "api key"
    SESSION = "session"  # a browser's cookie


@dataclass(frozen=True, slots=True)
class Principal:
    """An account, and the credential that speaks for it.

    Attributes:
        key: the API key, with what it may do; ``None`` for the other credentials.
        session_id: the browser session's public name; ``None`` for the other credentials.
        unconfirmed: uuid and name that were right a moment ago; the hold's transaction must look again. ``None``: the
            database was asked.
    """

    account: Account
    credential: Credential
    key: ApiKey | None = None
    session_id: str | None = None
    unconfirmed: Pair | None = None

    @property
    def key_id(self) -> int | None:
        """The API key's number, what the books name; ``None`` for the other credentials."""
        return None if self.key is None else self.key.key_id

    def require(self, capability: Meter, model: str | None = None) -> None:
        """Make sure that the credential is good for a call.

        Args:
            capability: what the call consumes.
            model: the text model that it asks; ``None``: none.

        Raises:
            NotAllowed: the API key is held to other capabilities or models.
        """
        if self.key is not None and not self.key.allows(capability, model):
            raise NotAllowed(Detail.API_KEY_NOT_FOR_THIS)
