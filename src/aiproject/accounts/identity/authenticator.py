"""Authentication: the only module that turns a request's credentials into a `Principal`."""

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
    """Authenticates callers; used by every endpoint that acts for an account.

    ``Authorization: Bearer sk-…`` takes precedence: with it, ``uuid`` and ``username`` are ignored wherever they
    appear, and they never replace an invalid key. A browser's cookie is considered last, and only if there is no
    ``uuid``.

    Args:
        accounts: checks uuid and name.
        keys: checks API keys.
        cookies: checks session cookies; ``None``: no cookie is accepted.
    """

    def __init__(self, accounts: Accounts, keys: ApiKeys, cookies: CookieIdentity | None = None) -> None:
        self._accounts = accounts
        self._keys = keys
        self._cookies = cookies
        self._recent = RecentPairs(time.monotonic)

    def has_cookie(self, scope: Scope) -> bool:
        """Return whether the request has a session cookie, valid or not."""
        return self._cookies is not None and self._cookies.is_there(scope)

    async def of_headers(self, scope: Scope, *, is_confirmed_later: bool = False) -> Principal:
        """Authenticate a request with its credentials in headers.

        These are an API key, ``uuid`` and ``username``, or a session cookie.

        Args:
            scope: the request.
            is_confirmed_later: whether the calling code confirms `Principal.unconfirmed` before it acts.

        Raises:
            AccountUnknown: uuid and name do not match, or the account is disabled.
            NotSignedIn: the API key or the session is invalid; never says why.
            NotAllowed: the API key may not be used from this address, or another site sent the cookie.
            TooManyRequests: uuid and name do not match, and too many previous pairs did not match either.
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
        """Authenticate a request with ``uuid`` and ``username`` in its body.

        An API key takes precedence over them. Without a ``uuid``, a session cookie is considered.

        Args:
            scope: the request.
            uuid, username: from the body; ``None``: missing.
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
        # The cache is used only if the caller confirms the pair later: an entry may be outdated by then.
        spelling = names[0] if names else ""
        if is_confirmed_later and (found := self._recent.find(uuid, spelling)) is not None:
            account, pair = found
            note(scope, account=account.account_id)
            return Principal(account, Credential.UUID, unconfirmed=pair)
        account = await self._accounts.identify(uuid, names, address=client_address(scope))
        # Only valid pairs reach this point, so the cache never contains guesses.
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
    """Return the token of ``Authorization: Bearer``; ``None``: there is no such header.

    Two such headers count as an invalid token. Other schemes are ignored; they may be meant for a proxy, for example.

    Source: RFC 6750, section 2.1; the scheme is case-insensitive (RFC 9110, section 11.1).
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
