"""The authenticated caller, and the credential it used."""

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
    """The kind of credential that a caller presented."""

    UUID = "uuid"  # the documented pair of uuid and username
    API_KEY = "api key"
    SESSION = "session"  # a browser's cookie


@dataclass(frozen=True, slots=True)
class Principal:
    """An account, and the credential with which the caller was authenticated.

    Attributes:
        key: the API key with its terms; ``None`` for other credentials.
        session_id: the browser session's public identifier; ``None`` for other credentials.
        unconfirmed: uuid and name that were valid at a recent check; the hold's transaction must check them again.
            ``None``: they were checked against the database.
    """

    account: Account
    credential: Credential
    key: ApiKey | None = None
    session_id: str | None = None
    unconfirmed: Pair | None = None

    @property
    def key_id(self) -> int | None:
        """The API key's number, as the ledger uses it; ``None`` for other credentials."""
        return None if self.key is None else self.key.key_id

    def require(self, capability: Meter, model: str | None = None) -> None:
        """Check that the credential permits a call.

        Args:
            capability: the meter that the call consumes.
            model: the text model that it uses; ``None``: none.

        Raises:
            NotAllowed: the API key is restricted to other meters or models.
        """
        if self.key is not None and not self.key.allows(capability, model):
            raise NotAllowed(Detail.API_KEY_NOT_FOR_THIS)
