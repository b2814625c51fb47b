"""Authorization of ``/v1/account``: who calls, whether the credential may, and a reauthentication where needed."""

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
    """Decides what callers may do to their account.

    Args:
        methods: ways of reauthentication, at least one; a request that brings nothing for any of them is refused with
            what the first one asks for.
    """

    def __init__(self, authenticator: Authenticator, methods: Sequence[Reauthentication]) -> None:
        self._authenticator = authenticator
        self._methods = tuple(methods)

    async def enter(self, request: Request, action: Action) -> Principal:
        """Return who calls, if the credential may do this at all.

        Raises:
            AccountUnknown, NotSignedIn: the credential is nobody's.
            NotAllowed: the credential is not for this, or another site sent the request.
        """
        principal = await self._authenticator.of_headers(request.scope)
        if _need(principal, action) is Requirement.REFUSED:
            raise NotAllowed(REFUSALS[principal.credential])
        return principal

    async def confirm(
        self, request: Request, principal: Principal, action: Action, password: str | None, *, field: str = "password"
    ) -> None:
        """Have the owner reauthenticate, where the credential needs it for this action.

        Args:
            password: of the body; ``None``: it names none.
            field: where it stands in the body.

        Raises:
            NotAllowed: a reauthentication is needed, and the request brings none.
            LoginFailed: what it brings is wrong.
            TooManyRequests: it was wrong too often, here or at the login.
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
