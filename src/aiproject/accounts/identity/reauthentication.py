"""Ways in which the owner of an account shows once more that it is them, before an action that needs it.

The password is the only one so far. An account that signs in by OIDC or by a passkey gets another class here and an
entry in `aiproject.wiring`; neither the table of requirements nor the endpoints know which ways there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request

from aiproject.accounts.core.service import Accounts
from aiproject.accounts.principal.principal import Principal
from aiproject.adapters.http.asgi import client_address
from aiproject.codes import Detail
from aiproject.errors import LoginFailed, NotAllowed

__all__ = ["Evidence", "PasswordReauthentication", "Reauthentication"]


@dataclass(frozen=True, slots=True, repr=False)
class Evidence:
    """What a request brings along.

    Attributes:
        request: for ways that read a header, or the session. Its body has been read.
        principal: whose account it is, and the credential that asks.
        password: of the body; ``None`` or empty: it names none.
    """

    request: Request
    principal: Principal
    password: str | None


class Reauthentication(Protocol):
    """One way."""

    async def confirm(self, evidence: Evidence) -> bool:
        """Check what the request brings for this way.

        Returns:
            ``True``: the owner is there. ``False``: the request brings nothing for this way; another one may do.

        Raises:
            LoginFailed: what it brings is wrong.
            TooManyRequests: it was wrong too often.
        """

    def missing(self, field: str) -> NotAllowed:
        """Return the refusal that says what a request without any evidence should bring.

        Args:
            field: of the body, in which a password stands.
        """


class PasswordReauthentication:
    """By the account's password, in the body."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def confirm(self, evidence: Evidence) -> bool:
        """See `Reauthentication.confirm`. A wrong password counts as a failed login."""
        if not evidence.password:
            return False
        account, address = evidence.principal.account, client_address(evidence.request.scope)
        try:
            found = await self._accounts.login(account.username, evidence.password, address=address)
        except LoginFailed:
            raise LoginFailed(Detail.PASSWORD_WRONG) from None
        # The account was renamed at this moment, and another one took its name.
        if found.account_id != account.account_id:
            raise LoginFailed(Detail.PASSWORD_WRONG)
        return True

    def missing(self, field: str) -> NotAllowed:
        """See `Reauthentication.missing`."""
        return NotAllowed(Detail.PASSWORD_NEEDED, field=field)
