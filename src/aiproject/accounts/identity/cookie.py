"""Authentication by session cookie, provided that the request comes from a page of this server."""

from __future__ import annotations

from aiproject.accounts.principal.principal import Credential, Principal
from aiproject.accounts.sessions.cookies import BrowserRules
from aiproject.accounts.sessions.service import Sessions
from aiproject.adapters.http.asgi import Scope, note

__all__ = ["CookieIdentity"]


class CookieIdentity:
    """Authenticates callers by their browser session."""

    def __init__(self, sessions: Sessions, rules: BrowserRules) -> None:
        self._sessions = sessions
        self._rules = rules

    def is_there(self, scope: Scope) -> bool:
        """Return whether the request has a session cookie, valid or not."""
        return self._rules.token(scope) is not None

    async def principal(self, scope: Scope) -> Principal | None:
        """Return the principal of the request's session cookie; ``None``: the request has none.

        Raises:
            NotAllowed: another site sent the request, or the CSRF token is missing or wrong.
            NotSignedIn: the session has ended or never existed.
        """
        token = self._rules.token(scope)
        if token is None:
            return None
        self._rules.check_proof(scope, token)
        account, session = await self._sessions.recognise(token)
        note(scope, account=account.account_id, session=session.session_id)
        return Principal(account, Credential.SESSION, session_id=session.session_id)
