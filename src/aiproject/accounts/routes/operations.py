"""What the operations of an account's owner have in common in their declarations."""

from __future__ import annotations

from typing import Any, Final

from aiproject.accounts.principal.permissions import NEEDS, Action, Requirement
from aiproject.accounts.principal.principal import Credential
from aiproject.accounts.sessions.cookies import CSRF_HEADER
from aiproject.adapters.http.operation import Access
from aiproject.codes import Code
from aiproject.errors import AiProjectError, InvalidInput, LoginFailed, NotAllowed, NotSignedIn, SpendLimitReached
from aiproject.protocols.v1 import failure_of

__all__ = [
    "NOBODY",
    "TAG",
    "caller",
    "failures",
    "owner",
]

TAG: Final = "账号自助"

REQUIREMENTS: Final = {
    Requirement.NOTHING: "可以",
    Requirement.REAUTHENTICATION: "需要密码",
    Requirement.REFUSED: "不可以",
}
CREDENTIALS: Final = {
    Credential.UUID: "uuid 与 username",
    Credential.SESSION: "浏览器会话",
    Credential.API_KEY: "API 密钥",
}
SECURITY: Final[dict[Credential, dict[str, list[str]]]] = {
    Credential.UUID: {"uuid": [], "username": []},
    Credential.SESSION: {"session": []},
}
"""The security requirement of each credential that may manage an account at all."""


def failures(*errors: AiProjectError) -> dict[int, tuple[Code, ...]]:
    """Return the codes, by status, with which ``/v1`` answers these errors."""
    found: dict[int, tuple[Code, ...]] = {}
    for failure in map(failure_of, errors):
        found[failure.status] = (*found.get(failure.status, ()), failure.code)
    return found


def identity_headers(*, is_needed: bool) -> tuple[dict[str, Any], ...]:
    """Return the headers that name an account.

    Args:
        is_needed: whether callers without another credential have to send them. No header is required of everybody.
    """
    when = "；不使用 API 密钥时必填" if is_needed else ""
    schema = {"type": "string"}
    return (
        {"name": "uuid", "in": "header", "required": False, "schema": schema, "description": f"用户唯一id标识{when}"},
        {
            "name": "username",
            "in": "header",
            "required": False,
            "schema": schema,
            "description": f"用户名{when}；中文可用 UTF-8 原始字节或百分号编码",
        },
    )


CSRF_PARAMETER: Final = {
    "name": CSRF_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "用 Cookie 发起修改时必填",
}

NOBODY: Final = Access(failures=failures(InvalidInput()))
"""For operations that need no credential."""


def owner(action: Action, *, changes: bool = True) -> Access:
    """Return what an action of an account's owner needs, as `NEEDS` has it.

    Args:
        changes: whether a browser has to prove that one of our own pages sends the request.
    """
    needs = {credential: NEEDS[action, credential] for credential in CREDENTIALS}
    refusals: list[AiProjectError] = [InvalidInput(), NotSignedIn(), NotAllowed()]
    if Requirement.REAUTHENTICATION in needs.values():
        refusals.append(LoginFailed())
    said = "；".join(f"{CREDENTIALS[each]}：{REQUIREMENTS[need]}" for each, need in needs.items())
    return Access(
        description=f"凭证：{said}。",
        parameters=(*identity_headers(is_needed=False), *((CSRF_PARAMETER,) if changes else ())),
        security=tuple(SECURITY[each] for each in SECURITY if needs[each] is not Requirement.REFUSED),
        failures=failures(*refusals),
    )


def caller(*, in_headers: bool, is_needed: bool = True, spends: bool = True) -> Access:
    """Return what an operation needs that an API key is good for.

    Args:
        in_headers: whether uuid and name are headers; else they are fields of the body.
        is_needed: whether somebody without any credential is refused.
        spends: whether the operation uses what a key's spend limits count.
    """
    pairs: list[dict[str, list[str]]] = [{"uuid": [], "username": []}] if in_headers else []
    without: list[dict[str, list[str]]] = [] if in_headers and is_needed else [{}]
    refusals = [NotSignedIn(), NotAllowed(), *([SpendLimitReached("tokens")] if spends else [])]
    return Access(
        parameters=identity_headers(is_needed=is_needed) if in_headers else (),
        security=({"apiKey": []}, *pairs, {"session": []}, *without),
        failures=failures(*refusals),
    )
