"""``/v1/account/keys``: an owner's API keys."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiproject.accounts.api_keys.model import KeyTerms
from aiproject.accounts.api_keys.schemas import caps_of, day_of, shown, terms_with
from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.identity.authorizer import Authorizer
from aiproject.accounts.principal.permissions import Action
from aiproject.adapters.http.account_dialect import read_optional_fields, v1_route
from aiproject.adapters.http.asgi import note
from aiproject.adapters.http.json import answer, read_fields, text_field
from aiproject.errors import AccountUnknown, NotSignedIn
from aiproject.protocols.legacy import success

__all__ = ["KeyRoutes"]


class KeyRoutes:
    """The endpoints; `aiproject.web` mounts `routes`.

    Args:
        clock: says when now is, in the time zone in which days begin.
    """

    def __init__(self, keys: ApiKeys, access: Authorizer, clock: Callable[[], datetime]) -> None:
        self._keys = keys
        self._access = access
        self._clock = clock

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            v1_route("/v1/account/keys", {"GET": self.list, "POST": self.create}),
            v1_route("/v1/account/keys/{key_id}", {"GET": self.show, "PATCH": self.edit, "DELETE": self.revoke}),
        ]

    async def list(self, request: Request) -> Response:
        """List the account's keys, those that were revoked lately included; never their secrets."""
        principal = await self._access.enter(request, Action.READ)
        found = await self._keys.list(principal.account.account_id)
        return answer(success("查询成功", keys=[shown(stored, today=self._today()) for stored in found]))

    async def show(self, request: Request) -> Response:
        """Tell about one key."""
        principal = await self._access.enter(request, Action.READ)
        stored = await self._keys.get(principal.account.account_id, request.path_params["key_id"])
        return answer(success("查询成功", key=shown(stored, today=self._today())))

    async def create(self, request: Request) -> Response:
        """Make a key; its ``secret`` is in this answer and nowhere else."""
        principal = await self._access.enter(request, Action.CREATE_KEY)
        fields = await read_fields(request)
        terms, caps = terms_with(KeyTerms(text_field(fields, "name")), fields), caps_of(fields)
        await self._access.confirm(request, principal, Action.CREATE_KEY, fields)
        try:
            new = await self._keys.create(principal.account.account_id, terms, caps)
        except AccountUnknown:
            raise NotSignedIn from None
        note(request.scope, key=new.key.prefix)
        stored = await self._keys.get(principal.account.account_id, new.key.prefix)
        body = success("密钥已创建，仅显示这一次", secret=new.text, key=shown(stored, today=self._today()))
        return answer(body, 201)

    async def edit(self, request: Request) -> Response:
        """Change what is there of a key's terms and limits."""
        principal = await self._access.enter(request, Action.EDIT_KEY)
        fields = await read_fields(request)
        terms_with(KeyTerms(""), fields)  # refused before the password is looked at
        caps = caps_of(fields)
        await self._access.confirm(request, principal, Action.EDIT_KEY, fields)
        stored = await self._keys.change(
            principal.account.account_id, request.path_params["key_id"], lambda terms: terms_with(terms, fields), caps
        )
        return answer(success("密钥已修改", key=shown(stored, today=self._today())))

    async def revoke(self, request: Request) -> Response:
        """Revoke a key for ever."""
        principal = await self._access.enter(request, Action.REVOKE_KEY)
        await self._access.confirm(request, principal, Action.REVOKE_KEY, await read_optional_fields(request))
        await self._keys.revoke(principal.account.account_id, request.path_params["key_id"])
        return answer(success("密钥已吊销"))

    def _today(self) -> int:
        return day_of(self._clock())
