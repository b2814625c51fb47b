"""A call as an API hands it in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from aiproject.accounts.principal.principal import Principal
from aiproject.adapters.http.asgi import Receive, Scope

__all__ = ["IncomingCall"]

P = TypeVar("P", bound=Principal | None)


@dataclass(frozen=True, slots=True)
class IncomingCall(Generic[P]):
    """Who calls, and over what.

    Attributes:
        scope: of the request; carries its id, its log record and its extensions.
        receive: of the request, whose body has been read; tells when the client hangs up.
        principal: who pays; ``None`` where the API serves callers without an account.
        body: what was sent, byte for byte. Two calls with the same ``Idempotency-Key`` must have the same.
    """

    scope: Scope
    receive: Receive
    principal: P
    body: bytes
