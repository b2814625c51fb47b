"""``/v1/account/keys``: an owner's API keys."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiproject.accounts.api_keys.model import KeyTerms, StoredKey
from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.identity.authorizer import Authorizer
from aiproject.accounts.principal.permissions import Action
from aiproject.accounts.routes.field_types import Confirmation
from aiproject.accounts.routes.key_schemas import (
    LIMIT_NAMES,
    ApiKeyView,
    KeyFields,
    KeyName,
    LimitsView,
    LimitView,
    caps_of,
    day_of,
    shown,
    terms_with,
)
from aiproject.accounts.routes.operations import TAG, failures, owner
from aiproject.adapters.http.asgi import note
from aiproject.adapters.http.operation import Answer, BodyOperation, Operation, routes_of, succeed
from aiproject.codes import Success
from aiproject.errors import AccountUnknown, NotFound, NotSignedIn
from aiproject.meters import Meter

__all__ = ["OPERATIONS", "KeyRoutes"]


class EditKey(KeyFields, kw_only=True, forbid_unknown_fields=True):
    """Changes to a key; a field that is missing stays as it is, ``null`` lifts a restriction."""


class CreateKey(KeyFields, kw_only=True, forbid_unknown_fields=True):
    """The name and the restrictions of a new key."""

    name: KeyName


class KeyList(Struct, kw_only=True):
    """The keys of an account."""

    keys: list[ApiKeyView]


class OneKey(Struct, kw_only=True):
    """One key."""

    key: ApiKeyView


class CreatedKey(Struct, kw_only=True):
    """A new key with its secret, which no other answer contains."""

    secret: Annotated[str, Meta(description="密钥，仅显示这一次；请妥善保管")]
    key: ApiKeyView


KEY = ApiKeyView(
    id="sk-ab12cd34ef",
    name="笔记本",
    created_at="2026-03-01T12:30:45.123Z",
    expires_at=None,
    revoked_at=None,
    last_used_at=None,
    last_used_address=None,
    requests_per_minute=60,
    concurrent_calls=None,
    tokens_per_minute=None,
    capabilities=[Meter.TOKENS],
    models=None,
    addresses=None,
    limits=LimitsView(
        **{
            name: LimitView(
                total=100_000 if meter is Meter.TOKENS else None, daily=None, spent=0, held=0, spent_today=0
            )
            for name, meter in LIMIT_NAMES.items()
        }
    ),
)
ONE_KEY = {"key_id": "密钥的公开前缀，例如 sk-ab12cd34ef"}

LIST = Operation(
    name="listKeys",
    method="GET",
    path="/v1/account/keys",
    summary="API 密钥列表",
    tag=TAG,
    access=owner(Action.READ, changes=False),
    answers=(Answer(message=Success.FOUND, body=KeyList(keys=[KEY])),),
)
CREATE = BodyOperation(
    name="createKey",
    method="POST",
    path="/v1/account/keys",
    summary="创建 API 密钥；secret 只显示这一次",
    tag=TAG,
    access=owner(Action.CREATE_KEY),
    request=CreateKey,
    examples={"例": {"name": "笔记本", "limits": {"tokens": {"total": 100_000}}, "password": "correct horse"}},
    answers=(Answer(status=201, message=Success.KEY_CREATED, body=CreatedKey(secret="sk-ab12cd34ef…", key=KEY)),),  # noqa: S106 - an example
)
SHOW = Operation(
    name="showKey",
    method="GET",
    path="/v1/account/keys/{key_id}",
    summary="一个 API 密钥",
    tag=TAG,
    path_parameters=ONE_KEY,
    access=owner(Action.READ, changes=False),
    failures=failures(NotFound()),
    answers=(Answer(message=Success.FOUND, body=OneKey(key=KEY)),),
)
EDIT = BodyOperation(
    name="editKey",
    method="PATCH",
    path="/v1/account/keys/{key_id}",
    summary="修改 API 密钥",
    tag=TAG,
    path_parameters=ONE_KEY,
    access=owner(Action.EDIT_KEY),
    failures=failures(NotFound()),
    request=EditKey,
    examples={"例": {"name": "台式机", "password": "correct horse"}},
    answers=(Answer(message=Success.KEY_CHANGED, body=OneKey(key=KEY)),),
)
REVOKE = BodyOperation(
    name="revokeKey",
    method="DELETE",
    path="/v1/account/keys/{key_id}",
    summary="吊销 API 密钥",
    tag=TAG,
    path_parameters=ONE_KEY,
    access=owner(Action.REVOKE_KEY),
    failures=failures(NotFound()),
    request=Confirmation,
    is_required=False,
    examples={"例": {"password": "correct horse"}},
    answers=(Answer(message=Success.KEY_REVOKED),),
)

OPERATIONS = (LIST, CREATE, SHOW, EDIT, REVOKE)
"""For the description, see `aiproject.web.openapi`."""


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
        return routes_of(
            (
                (LIST, self.list),
                (CREATE, self.create),
                (SHOW, self.show),
                (EDIT, self.edit),
                (REVOKE, self.revoke),
            )
        )

    async def list(self, request: Request) -> Response:
        """List the account's keys, including recently revoked ones, without their secrets."""
        principal = await self._access.enter(request, Action.READ)
        found = await self._keys.list(principal.account.account_id)
        listed = KeyList(keys=[shown(stored, today=self._today()) for stored in found])
        return succeed(request, Success.FOUND, listed)

    async def show(self, request: Request) -> Response:
        """Return one key."""
        principal = await self._access.enter(request, Action.READ)
        stored = await self._keys.get(principal.account.account_id, request.path_params["key_id"])
        return succeed(request, Success.FOUND, self._one(stored))

    async def create(self, request: Request) -> Response:
        """Create a key; no other answer contains its ``secret``."""
        principal = await self._access.enter(request, Action.CREATE_KEY)
        wanted = await CREATE.read(request)
        terms, caps = terms_with(KeyTerms(wanted.name), wanted), caps_of(wanted)
        await self._access.confirm(request, principal, Action.CREATE_KEY, wanted.password)
        try:
            new = await self._keys.create(principal.account.account_id, terms, caps)
        except AccountUnknown:
            raise NotSignedIn from None
        note(request.scope, key=new.key.prefix)
        stored = await self._keys.get(principal.account.account_id, new.key.prefix)
        created = CreatedKey(secret=new.text, key=shown(stored, today=self._today()))
        return succeed(request, Success.KEY_CREATED, created, status=201)

    async def edit(self, request: Request) -> Response:
        """Change a key's restrictions and limits."""
        principal = await self._access.enter(request, Action.EDIT_KEY)
        wanted = await EDIT.read(request)
        terms_with(KeyTerms(""), wanted)  # refused before the password is looked at
        await self._access.confirm(request, principal, Action.EDIT_KEY, wanted.password)
        stored = await self._keys.change(
            principal.account.account_id,
            request.path_params["key_id"],
            lambda terms: terms_with(terms, wanted),
            caps_of(wanted),
        )
        return succeed(request, Success.KEY_CHANGED, self._one(stored))

    async def revoke(self, request: Request) -> Response:
        """Revoke a key; that cannot be undone."""
        principal = await self._access.enter(request, Action.REVOKE_KEY)
        await self._access.confirm(request, principal, Action.REVOKE_KEY, (await REVOKE.read(request)).password)
        await self._keys.revoke(principal.account.account_id, request.path_params["key_id"])
        return succeed(request, Success.KEY_REVOKED)

    def _one(self, stored: StoredKey) -> OneKey:
        return OneKey(key=shown(stored, today=self._today()))

    def _today(self) -> int:
        return day_of(self._clock())
