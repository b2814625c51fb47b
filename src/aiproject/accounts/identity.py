"""Who calls: the one place where a request's credentials become a `Caller`."""

from __future__ import annotations

from aiproject.accounts.caller import Caller, Credential
from aiproject.accounts.service import Accounts
from aiproject.adapters.asgi import Scope, client_address, note
from aiproject.adapters.uploads import header_candidates

__all__ = ["Identities"]


class Identities:
    """Recognises callers; used by every endpoint that acts for an account."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def of_headers(self, scope: Scope) -> Caller:
        """Return who calls an endpoint whose credentials stand in headers (``uuid`` and ``username``).

        Raises:
            AccountUnknown: they do not belong together, or the account is disabled.
            TooManyRequests: they do not belong together either, and others before them did not.
        """
        headers = scope["headers"]
        uuids = header_candidates(headers, b"uuid")
        account = await self._accounts.identify(
            uuids[0] if uuids else "", header_candidates(headers, b"username"), address=client_address(scope)
        )
        note(scope, account=account.account_id)
        return Caller(account, Credential.UUID)

    async def of_fields(self, scope: Scope, uuid: str | None, username: str | None) -> Caller:
        """Return who calls an endpoint whose body names ``uuid`` and ``username``.

        Raises:
            AccountUnknown: as in `of_headers`.
        """
        account = await self._accounts.identify(uuid or "", [username or ""], address=client_address(scope))
        note(scope, account=account.account_id)
        return Caller(account, Credential.UUID)
