"""The one gate of ``/v1/account``: who calls, whether that credential may, and the password where it is needed."""

from __future__ import annotations

from starlette.requests import Request

from aiproject.accounts.core.service import Accounts
from aiproject.accounts.identity.authenticator import Authenticator
from aiproject.accounts.principal.permissions import NEEDS, Action, Requirement
from aiproject.accounts.principal.principal import Credential, Principal
from aiproject.adapters.http.asgi import client_address
from aiproject.codes import Detail
from aiproject.errors import LoginFailed, NotAllowed

__all__ = ["Authorizer"]

REFUSALS = {
    Credential.API_KEY: Detail.API_KEY_CANNOT_MANAGE,
    Credential.SESSION: Detail.SESSION_CANNOT_DO_THIS,
    Credential.UUID: Detail.BROWSER_SESSION_NEEDED,
}


class Authorizer:
    """Lets callers through, or not."""

    def __init__(self, authenticator: Authenticator, accounts: Accounts) -> None:
        self._authenticator = authenticator
        self._accounts = accounts

    async def enter(self, request: Request, act: Action) -> Principal:
        """Return who calls, if the credential may do this at all.

        Raises:
            AccountUnknown, NotSignedIn: nobody that we know.
            NotAllowed: the credential is not for this, or another site sent the request.
        """
        principal = await self._authenticator.of_headers(request.scope)
        if _need(principal, act) is Requirement.REFUSED:
            raise NotAllowed(REFUSALS[principal.credential])
        return principal

    async def confirm(self, request: Request, principal: Principal, act: Action, shown: str | None) -> None:
        """Check the password ``shown``, where the credential needs it for this.

        Raises:
            NotAllowed: it is needed and not there.
            LoginFailed: it is wrong.
            TooManyRequests: it was wrong too often, here or at the login.
        """
        if (password := self.password(principal, act, shown)) is None:
            return
        account = principal.account
        try:
            found = await self._accounts.login(account.username, password, address=client_address(request.scope))
        except LoginFailed:
            raise LoginFailed(Detail.PASSWORD_WRONG) from None
        if found.account_id != account.account_id:  # renamed at this moment, and the name taken by somebody else
            raise LoginFailed(Detail.PASSWORD_WRONG)

    @staticmethod
    def password(principal: Principal, act: Action, shown: str | None, *, name: str = "password") -> str | None:
        """Return the password that the credential needs for this, unchecked; ``None``: it needs none.

        Args:
            shown: the password in the body; ``None``: there is none.
            name: the body's field for it.

        Raises:
            NotAllowed: it is needed and not there.
        """
        need = _need(principal, act)
        if need is Requirement.NOTHING:
            return None
        if need is Requirement.REFUSED:
            raise NotAllowed(REFUSALS[principal.credential])
        if not shown:
            raise NotAllowed(Detail.PASSWORD_NEEDED, field=name)
        return shown


def _need(principal: Principal, act: Action) -> Requirement:
    return NEEDS.get((act, principal.credential), Requirement.REFUSED)
