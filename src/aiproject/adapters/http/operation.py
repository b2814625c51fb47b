"""Declarations of HTTP operations: route, validation of the body and OpenAPI description from one source.

An operation is declared next to its handler. `routes_of` makes routes from pairs of both, `BodyOperation.read`
validates a body, and `aiproject.web.openapi` generates ``/openapi.json`` from the declarations.
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
    """A success response, given as an example.

    Attributes:
        message: the message that accompanies ``code`` 0.
        params: values for the placeholders of ``message`` in the example.
        body: an example of the members besides ``code`` and ``msg``; its type is the response's type. ``None``: there
            are none.
        has_envelope: whether ``code`` and ``msg`` precede the body's members.
        status: the HTTP status.
        headers: the response's header fields: names with a description of the value.
        media_types: text types in which the response may be sent besides JSON, or instead of it if there is no body in
            JSON.
        description: replaces ``message`` in the OpenAPI description.
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
    """The credentials that an operation requires, and the responses to callers without them.

    Attributes:
        description: the requirement in words.
        parameters: headers that may carry a credential, as OpenAPI parameters.
        security: alternatives, as OpenAPI security requirements.
        failures: error codes by status.
        bodies: responses that are not of the form ``{code, msg}``, by status: the meaning and an example of each.
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
        name: unique; generated clients use it as the method name.
        path: the address, with its parameters in braces.
        summary: one line, in Chinese like all texts of the description.
        answers: success responses, the usual one first.
        access: the credentials that the operation requires.
        failures: error codes by status, in addition to those of ``access`` and those of every operation. With status
            200, as on the legacy addresses, a client distinguishes them from success by the type of ``code``.
        messages: messages of error codes for which this operation differs from the code's own message.
        models: types that ``answers`` refer to only by name.
        has_faults: whether limits and the server's state can cause refusals as well.
        query: the query parameters, as the fields of a Struct.
        path_parameters: descriptions of the parameters of ``path``.
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
        examples: example bodies by name; each works unchanged.
        is_required: whether a request without a body is refused; otherwise it counts as an empty object.
        body: JSON Schema keywords for the body as a whole, such as ``minProperties``.
    """

    request: type[In]
    examples: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_required: bool = True
    body: Schema = field(default_factory=dict)

    async def read(self, request: Request) -> In:
        """Return the body, regardless of its content type (curl's default is that of a form).

        Raises:
            InvalidInput: the body is not a JSON object, or one of its fields is missing, unknown or of another type.
            BodyTooLarge: the body is over 64 KiB.
        """
        if not self.is_required and not has_body(request):
            return read_fields_as(self.request, {})
        return read_fields_as(self.request, await read_fields(request))


@dataclass(frozen=True, kw_only=True)
class UploadOperation(Operation):
    """An operation with a file as its body, bare or as the field ``file`` of a form.

    Attributes:
        media_types: the content types of a bare file.
        upload: a description of the required file.
    """

    media_types: tuple[str, ...]
    upload: str


def has_body(request: Request) -> bool:
    """Return whether a request announces a body."""
    headers = request.headers
    return headers.get("content-length", "0").strip() != "0" or "transfer-encoding" in headers


def members(answer: msgspec.Struct) -> dict[str, Any]:
    """Return the JSON members of a response in the order of declaration; ``UNSET`` members are left out."""
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
    """Return a success response; below ``/v1``, in the language that the request prefers.

    Args:
        request: the request that is answered.
        message: the message that accompanies ``code`` 0.
        body: further members; ``None``: there are none.
        params: values for the placeholders of ``message``.
        status: the HTTP status.
        headers: additional header fields.
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
    """Return the members of a success response: ``code``, ``msg`` and those of ``body``. Arguments: see `succeed`."""
    msg = format_message(message, language, **(params or {}))
    return {"code": 0, "msg": msg, **({} if body is None else members(body))}


def route_of(operation: Operation, endpoint: Any) -> Route:
    """Return the route of an operation.

    Args:
        operation: the declaration.
        endpoint: a function that takes a request, or an ASGI application; it handles its own errors.
    """
    return Route(operation.path, endpoint, methods=[operation.method])


def routes_of(pairs: Iterable[tuple[Operation, Handler]]) -> list[Route]:
    """Return the routes of operations under ``/v1``: one for each address (see `v1_route`)."""
    by_path: dict[str, dict[str, Handler]] = {}
    for operation, handler in pairs:
        by_path.setdefault(operation.path, {})[operation.method] = handler
    return [v1_route(path, handlers) for path, handlers in by_path.items()]
