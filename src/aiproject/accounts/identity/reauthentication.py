"""Methods with which the owner of an account reauthenticates before an action that requires it.

The password is currently the only one. A further method, such as OIDC or a passkey, needs another class here and an
entry in `aiproject.wiring`; the table of requirements and the endpoints do not depend on the methods.
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
    """The evidence that a request contains.

    Attributes:
        request: for methods that read a header or the session. Its body has been read.
        principal: the account and the credential of the caller.
        password: from the body; ``None`` or empty: missing.
    """

    request: Request
    principal: Principal
    password: str | None


class Reauthentication(Protocol):
    """One method of reauthentication."""

    async def confirm(self, evidence: Evidence) -> bool:
        """Check the request's evidence for this method.

        Returns:
            ``True``: the owner is confirmed. ``False``: there is no evidence for this method; another one may apply.

        Raises:
            LoginFailed: the evidence is wrong.
            TooManyRequests: it was wrong too often.
        """

    def missing(self, field: str) -> NotAllowed:
        """Return the error for a request without any evidence, which says what is required.

        Args:
            field: the name of the password's field in the body.
        """


class PasswordReauthentication:
    """Reauthentication with the account's password, in the body."""

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
        # The account may have been renamed since it was read, and another account may have taken its name.
        if found.account_id != account.account_id:
            raise LoginFailed(Detail.PASSWORD_WRONG)
        return True

    def missing(self, field: str) -> NotAllowed:
        """See `Reauthentication.missing`."""
        return NotAllowed(Detail.PASSWORD_NEEDED, field=field)
