"""A call in the form in which an API submits it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from aiproject.accounts.principal.principal import Principal
from aiproject.adapters.http.asgi import Receive, Scope

__all__ = ["IncomingCall"]

P = TypeVar("P", bound=Principal | None)


@dataclass(frozen=True, slots=True)
class IncomingCall(Generic[P]):
    """The caller of a call and its request.

    Attributes:
        scope: of the request; carries its id, its log record and its extensions.
        receive: of the request, whose body has been read; reports when the client disconnects.
        principal: the caller that pays; ``None`` where the API serves callers without an account.
        body: the request's body, byte for byte. Two calls with the same ``Idempotency-Key`` must have the same body.
    """

    scope: Scope
    receive: Receive
    principal: P
    body: bytes
