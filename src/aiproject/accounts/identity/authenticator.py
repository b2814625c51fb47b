"""Who calls: the one place where a request's credentials become a `Principal`."""

from __future__ import annotations

import time
from collections.abc import Sequence

from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.service import Accounts
from aiproject.accounts.identity.cookie import CookieIdentity
from aiproject.accounts.principal.principal import Credential, Principal
from aiproject.accounts.principal.recent import Pair, RecentPairs
from aiproject.adapters.http.asgi import Scope, client_address, note
from aiproject.adapters.http.bodies import header_candidates

__all__ = ["Authenticator", "bearer_of"]


class Authenticator:
    """Recognises callers; used by every endpoint that acts for an account.

    ``Authorization: Bearer sk-…`` says everything: with it, neither ``uuid`` nor ``username`` is looked at, wherever
    they stand, and a key that is not good is never made up for by them. A browser's cookie is looked at last, and only
    where no ``uuid`` is named.

    Args:
        cookies: ``None``: no cookie is accepted.
    """

    def __init__(self, accounts: Accounts, keys: ApiKeys, cookies: CookieIdentity | None = None) -> None:
        self._accounts = accounts
        self._keys = keys
        self._cookies = cookies
        self._recent = RecentPairs(time.monotonic)

    def has_cookie(self, scope: Scope) -> bool:
        """Whether the request has a session's cookie, good or not."""
        return self._cookies is not None and self._cookies.is_there(scope)

    async def of_headers(self, scope: Scope, *, is_confirmed_later: bool = False) -> Principal:
        """Return who calls an endpoint whose credentials stand in headers: an API key, ``uuid`` and ``username``, or
        a session's cookie.

        Args:
            is_confirmed_later: the caller of this method has `Principal.unconfirmed` confirmed before it acts.

        Raises:
            AccountUnknown: uuid and name do not belong together, or the account is disabled.
            NotSignedIn: the API key or the session is not good; never says why.
            NotAllowed: the API key may not be used from this address, or another site sent the cookie.
            TooManyRequests: uuid and name do not belong together either, and others before them did not.
        """
        if (shown := bearer_of(scope)) is not None:
            return await self._of_key(scope, shown)
        headers = scope["headers"]
        uuids = header_candidates(headers, b"uuid")
        if not uuids and (principal := await self._of_cookie(scope)) is not None:
            return principal
        names = header_candidates(headers, b"username")
        return await self._of_pair(scope, uuids[0] if uuids else "", names, is_confirmed_later)

    async def of_fields(
        self, scope: Scope, uuid: str | None, username: str | None, *, is_confirmed_later: bool = False
    ) -> Principal:
        """Return who calls an endpoint whose body names ``uuid`` and ``username``, if no API key is shown; or,
        where it names no ``uuid``, whose cookie there is.

        Args:
            is_confirmed_later: as in `of_headers`.

        Raises:
            AccountUnknown, NotSignedIn, NotAllowed: as in `of_headers`.
        """
        if (shown := bearer_of(scope)) is not None:
            return await self._of_key(scope, shown)
        if not uuid and (principal := await self._of_cookie(scope)) is not None:
            return principal
        return await self._of_pair(scope, uuid or "", [username or ""], is_confirmed_later)

    async def _of_pair(self, scope: Scope, uuid: str, names: Sequence[str], is_confirmed_later: bool) -> Principal:
        spelling = names[0] if names else ""
        if is_confirmed_later and (found := self._recent.find(uuid, spelling)) is not None:
            account, pair = found
            note(scope, account=account.account_id)
            return Principal(account, Credential.UUID, unconfirmed=pair)
        account = await self._accounts.identify(uuid, names, address=client_address(scope))
        note(scope, account=account.account_id)
        self._recent.remember(uuid, spelling, account, Pair(account.uuid, account.name_key))
        return Principal(account, Credential.UUID)

    async def _of_key(self, scope: Scope, shown: str) -> Principal:
        account, key = await self._keys.recognise(shown, client_address(scope))
        note(scope, account=account.account_id, key=key.prefix)
        return Principal(account, Credential.API_KEY, key=key)

    async def _of_cookie(self, scope: Scope) -> Principal | None:
        return None if self._cookies is None else await self._cookies.principal(scope)


def bearer_of(scope: Scope) -> str | None:
    """Return what stands behind ``Authorization: Bearer``; ``None``: no such header.

    Two of them are as good as a wrong one. Other schemes are somebody else's, for example a proxy's in front of us.

    Source: RFC 6750, section 2.1; the scheme's case does not matter, RFC 9110, section 11.1.
    """
    found = []
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                found.append(token.strip().decode("latin-1"))
    if not found:
        return None
    return found[0] if len(found) == 1 else ""
