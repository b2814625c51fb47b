"""An operation of the HTTP interface, declared once: its route, the check of its body and its description.

A declaration stands beside the handler. `routes_of` makes routes of pairs of both, `BodyOperation.read` checks a body,
and `aiproject.web.openapi` writes ``/openapi.json`` from the declarations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiproject.adapters.http.account_dialect import Handler, v1_route
from aiproject.adapters.http.fields import read_fields_as
from aiproject.adapters.http.json import answer, read_fields
from aiproject.adapters.http.languages import negotiated_language
from aiproject.codes import Code, Detail, Param, Success
from aiproject.messages.formatting import Language, format_message
from aiproject.protocols.v1 import language_headers

__all__ = [
    "Access",
    "Answer",
    "BodyOperation",
    "Operation",
    "Schema",
    "UploadOperation",
    "envelope",
    "members",
    "route_of",
    "routes_of",
    "succeed",
]

In = TypeVar("In", bound=msgspec.Struct)

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A success, as an example of it.

    Attributes:
        message: the sentence beside ``code`` 0.
        params: fill the placeholders of ``message`` in the example.
        body: what stands beside ``code`` and ``msg``, as an example; its type is the answer's. ``None``: nothing.
        has_envelope: whether ``code`` and ``msg`` stand before it.
        headers: of the answer, by their names, with what they hold.
        media_types: in which the answer may come as text beside JSON, or, where it is nothing in JSON, instead.
        description: in place of ``message``.
    """

    message: Success = Success.DONE
    params: Mapping[str, Param] = field(default_factory=dict)
    body: msgspec.Struct | None = None
    has_envelope: bool = True
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    media_types: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a caller needs for an operation, and how whoever lacks it is refused.

    Attributes:
        description: the same in words.
        parameters: headers that may carry a credential, as OpenAPI's parameters.
        security: alternatives, as OpenAPI's security requirements.
        failures: codes by status.
        bodies: answers that are no ``{code, msg}``, by status, as an example of each with what it means.
    """

    description: str = ""
    parameters: tuple[Schema, ...] = ()
    security: tuple[dict[str, list[str]], ...] = ()
    failures: Mapping[int, tuple[Code, ...]] = field(default_factory=dict)
    bodies: Mapping[int, tuple[str, msgspec.Struct]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An operation without a body.

    Attributes:
        name: unique; generated clients call their methods so.
        path: the address, with its parameters in braces.
        summary: one line, in Chinese as all texts of the description.
        answers: successes, the usual one first.
        access: what a caller needs.
        failures: codes by status, beside those of ``access`` and those that every operation has. With status 200,
            as on the legacy addresses, a client tells them from success by the type of ``code``.
        messages: of codes of which the operation says something else than the code's own message.
        models: types that ``answers`` refer to by name alone.
        has_faults: whether limits and the server's state can refuse it, too.
        query: the parameters of the query, as the fields of a Struct.
        path_parameters: what the parameters of ``path`` are.
    """

    name: str
    method: str
    path: str
    summary: str
    tag: str
    answers: tuple[Answer, ...]
    access: Access = Access()
    failures: Mapping[int, tuple[Code, ...]] = field(default_factory=dict)
    query: type[msgspec.Struct] | None = None
    path_parameters: Mapping[str, str] = field(default_factory=dict)
    messages: Mapping[Code, Code | Detail] = field(default_factory=dict)
    models: tuple[type[msgspec.Struct], ...] = ()
    has_faults: bool = True


@dataclass(frozen=True, kw_only=True)
class BodyOperation(Operation, Generic[In]):
    """An operation with a JSON object as its body.

    Attributes:
        request: the body's type.
        examples: bodies by a name for each; they work as they stand.
        is_required: whether no body at all is refused; else it is an empty object.
        body: keywords of JSON Schema that hold for the body as a whole, as ``minProperties``.
    """

    request: type[In]
    examples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_required: bool = True
    body: Schema = field(default_factory=dict)

    async def read(self, request: Request) -> In:
        """Return the body, whatever its content type says (curl's default is a form's).

        Raises:
            InvalidInput: it is no JSON object, or one of its fields is missing, unknown or of another type.
            BodyTooLarge: over 64 KiB.
        """
        if not self.is_required and not has_body(request):
            return read_fields_as(self.request, {})
        return read_fields_as(self.request, await read_fields(request))


@dataclass(frozen=True, kw_only=True)
class UploadOperation(Operation):
    """An operation with a file as its body, bare or as the field ``file`` of a form.

    Attributes:
        media_types: of a bare file.
        upload: what the file has to be.
    """

    media_types: tuple[str, ...]
    upload: str


def has_body(request: Request) -> bool:
    """Say whether a request announces a body."""
    headers = request.headers
    return headers.get("content-length", "0").strip() != "0" or "transfer-encoding" in headers


def members(answer: msgspec.Struct) -> dict[str, Any]:
    """Return what an answer holds, as JSON's members in the order of declaration; what is ``UNSET`` is left out."""
    found: dict[str, Any] = msgspec.to_builtins(answer)
    return found


def succeed(
    request: Request,
    message: Success,
    body: msgspec.Struct | None = None,
    *,
    params: Mapping[str, Param] | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the answer of a success; below ``/v1``, in the language that the request prefers.

    Args:
        request: whose answer it is.
        message: the sentence beside ``code`` 0.
        body: what stands beside both; ``None``: nothing.
        params: fill the placeholders of ``message``.
    """
    language = negotiated_language(request.scope)
    fields = {} if language is None else dict(language_headers(language))
    return answer(envelope(message, body, params, language or Language.ZH), status, {**fields, **(headers or {})})


def envelope(
    message: Success,
    body: msgspec.Struct | None = None,
    params: Mapping[str, Param] | None = None,
    language: Language = Language.ZH,
) -> dict[str, Any]:
    """Return the members of a success: ``code``, ``msg``, and those of ``body``. Arguments are those of `succeed`."""
    msg = format_message(message, language, **(params or {}))
    return {"code": 0, "msg": msg, **({} if body is None else members(body))}


def route_of(operation: Operation, endpoint: Any) -> Route:
    """Return the route of an operation.

    Args:
        endpoint: a function of a request, or an ASGI application; it answers its errors itself.
    """
    return Route(operation.path, endpoint, methods=[operation.method])


def routes_of(pairs: Iterable[tuple[Operation, Handler]]) -> list[Route]:
    """Return the routes of operations under ``/v1``: one for each address, see `v1_route`."""
    by_path: dict[str, dict[str, Handler]] = {}
    for operation, handler in pairs:
        by_path.setdefault(operation.path, {})[operation.method] = handler
    return [v1_route(path, handlers) for path, handlers in by_path.items()]
