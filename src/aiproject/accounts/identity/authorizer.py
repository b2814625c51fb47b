"""Authorization of ``/v1/account``: the permissions of the credential, and a reauthentication where required."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request

from aiproject.accounts.identity.authenticator import Authenticator
from aiproject.accounts.identity.reauthentication import Evidence, Reauthentication
from aiproject.accounts.principal.permissions import NEEDS, Action, Requirement
from aiproject.accounts.principal.principal import Credential, Principal
from aiproject.codes import Detail
from aiproject.errors import NotAllowed

__all__ = ["Authorizer"]

REFUSALS = {
    Credential.API_KEY: Detail.API_KEY_CANNOT_MANAGE,
    Credential.SESSION: Detail.SESSION_CANNOT_DO_THIS,
    Credential.UUID: Detail.BROWSER_SESSION_NEEDED,
}


class Authorizer:
    """Decides which actions callers may perform on their account.

    Args:
        authenticator: authenticates the request.
        methods: methods of reauthentication, at least one. A request without evidence for any of them is refused with
            the error of the first one.
    """

    def __init__(self, authenticator: Authenticator, methods: Sequence[Reauthentication]) -> None:
        self._authenticator = authenticator
        self._methods = tuple(methods)

    async def enter(self, request: Request, action: Action) -> Principal:
        """Authenticate the caller and check that the credential may perform the action at all.

        Raises:
            AccountUnknown, NotSignedIn: the credential is invalid.
            NotAllowed: the credential does not permit the action, or another site sent the request.
        """
        principal = await self._authenticator.of_headers(request.scope)
        if _need(principal, action) is Requirement.REFUSED:
            raise NotAllowed(REFUSALS[principal.credential])
        return principal

    async def confirm(
        self, request: Request, principal: Principal, action: Action, password: str | None, *, field: str = "password"
    ) -> None:
        """Require a reauthentication if the credential needs one for this action.

        Args:
            password: from the body; ``None``: missing.
            field: the name of the password's field in the body.

        Raises:
            NotAllowed: a reauthentication is required, and the request contains none.
            LoginFailed: the evidence is wrong.
            TooManyRequests: it was wrong too often, here or at login.
        """
        need = _need(principal, action)
        if need is Requirement.NOTHING:
            return
        if need is Requirement.REFUSED:
            raise NotAllowed(REFUSALS[principal.credential])
        evidence = Evidence(request, principal, password)
        for method in self._methods:
            if await method.confirm(evidence):
                return
        raise self._methods[0].missing(field)


def _need(principal: Principal, action: Action) -> Requirement:
    return NEEDS.get((action, principal.credential), Requirement.REFUSED)
