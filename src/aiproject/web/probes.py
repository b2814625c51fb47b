"""``/health`` and ``/ready``: whether the process is alive, and whether it can serve requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from aiproject import __version__
from aiproject.adapters.http.json import answer
from aiproject.adapters.http.operation import Access, Answer, Operation, members, succeed
from aiproject.codes import Code, Success
from aiproject.messages.formatting import Language, format_message

__all__ = ["HEALTH", "OPERATIONS", "READY", "Probes", "Readiness"]

TAG = "运维"

Condition = Annotated[str, Meta(description="ok，或给运维人员看的一句话", examples=["ok"])]


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of this process and of each of its parts, for the operator.

    Attributes:
        parts: the fields of `Ready` except ``status``.
    """

    is_ready: bool
    parts: dict[str, Any]


class Health(Struct, kw_only=True):
    """The process lives."""

    status: Annotated[Literal["ok"], Meta(description="进程存活")] = "ok"
    version: Annotated[str, Meta(description="版本", examples=[__version__])]
    upstream: Annotated[Literal["sandbox", "iflytek"], Meta(description="由谁应答：内置沙盒或讯飞平台")]


class Ready(Struct, kw_only=True):
    """The process can serve."""

    status: Annotated[Literal["ready"], Meta(description="可以提供服务")] = "ready"
    database: Condition
    migrations: Condition
    server: Condition
    log: Condition


class NotReady(Struct, kw_only=True):
    """The process cannot serve now."""

    code: Literal["SERVICE_UNAVAILABLE"] = "SERVICE_UNAVAILABLE"
    msg: Annotated[str, Meta(description="给用户看的一句话")]
    database: Condition
    migrations: Condition
    server: Condition
    log: Condition


HEALTH = Operation(
    name="health",
    method="GET",
    path="/health",
    summary="进程存活",
    tag=TAG,
    answers=(Answer(message=Success.OK, body=Health(version=__version__, upstream="iflytek")),),
    has_faults=False,
)
READY = Operation(
    name="ready",
    method="GET",
    path="/ready",
    summary="数据库与表结构就绪",
    tag=TAG,
    access=Access(
        bodies={
            503: (
                "暂时不能提供服务",
                NotReady(
                    msg=format_message(Code.SERVICE_UNAVAILABLE, Language.ZH),
                    database="away",
                    migrations="unknown",
                    server="ok",
                    log="ok",
                ),
            )
        }
    ),
    answers=(Answer(message=Success.OK, body=Ready(database="ok", migrations="ok", server="ok", log="ok")),),
    failures={429: (Code.TOO_MANY_REQUESTS,)},
    has_faults=False,
)

OPERATIONS = (HEALTH, READY)
"""The operations for the OpenAPI description, see `aiproject.web.openapi`."""


class Probes:
    """The two endpoints; `aiproject.web.app` mounts their methods.

    Args:
        readiness: called by ``/ready``.
        is_sandbox: whether the sandbox answers in place of the platform.
    """

    def __init__(self, readiness: Callable[[], Awaitable[Readiness]], *, is_sandbox: bool) -> None:
        self._readiness = readiness
        self._health = Health(version=__version__, upstream="sandbox" if is_sandbox else "iflytek")

    async def health(self, request: Request) -> Response:
        """Respond as long as the process is alive."""
        return succeed(request, Success.OK, self._health)

    async def ready(self, request: Request) -> Response:
        """Check each part; respond with 503 if one does not work."""
        state = await self._readiness()
        if state.is_ready:
            return succeed(request, Success.OK, Ready(**state.parts))
        body = NotReady(msg=format_message(Code.SERVICE_UNAVAILABLE, Language.ZH), **state.parts)
        return answer(members(body), 503, {"Retry-After": "5"})
