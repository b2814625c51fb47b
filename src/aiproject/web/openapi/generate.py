"""OpenAPI's entries, generated from the declarations of operations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import inspect

from aiproject.adapters.http.fields import SCHEMA
from aiproject.adapters.http.operation import (
    Answer,
    BodyOperation,
    Operation,
    Schema,
    UploadOperation,
    envelope,
    members,
)
from aiproject.codes import Code
from aiproject.messages.formatting import Language, format_message
from aiproject.protocols.legacy import LIMITS_WITH_STATUS_200

__all__ = ["paths_of", "schemas_of"]

REFERENCE: Final = "#/components/schemas/{name}"

ENVELOPE: Final[dict[str, Schema]] = {
    "code": {"type": "integer", "const": 0},
    "msg": {"type": "string", "description": "给用户看的一句话"},
}
"""What every answer of a success begins with."""

NOTHING_ELSE: Final = "Done"
"""The name of the schema of an answer that is its envelope alone."""

FAULTS: Final[Mapping[int, tuple[Code, ...]]] = {
    408: (Code.REQUEST_TIMEOUT,),
    413: (Code.REQUEST_TOO_LARGE,),
    415: (Code.UNSUPPORTED_ENCODING,),
    429: (Code.TOO_MANY_REQUESTS,),
    500: (Code.APP_INTERNAL_ERROR,),
    503: (Code.SERVICE_UNAVAILABLE,),
}
"""What can happen to every request, whatever it asks."""

RETRY_AFTER: Final[dict[str, Any]] = {
    "Retry-After": {"schema": {"type": "integer", "x-unit": "second"}, "description": "seconds"}
}
LIMIT_HEADERS: Final[dict[str, Any]] = {
    **RETRY_AFTER,
    "RateLimit-Policy": {"schema": {"type": "string"}, "example": '"address";q=1200;w=60'},
    "RateLimit": {"schema": {"type": "string"}, "example": '"address";r=0;t=7'},
}

JSON_TYPES: Final = {str: "string", bool: "boolean", int: "integer"}


def schemas_of(operations: Iterable[Operation]) -> dict[str, Schema]:
    """Return the schemas of all requests and answers, by their names."""
    operations = tuple(operations)
    requests = [each.request for each in operations if isinstance(each, BodyOperation)]
    enveloped = {
        type(answer.body) for answer in _answers(operations) if answer.has_envelope and answer.body is not None
    }
    answers = {*enveloped, *_plain_answers(operations)}
    _, generated = msgspec.json.schema_components((*requests, *answers), ref_template=REFERENCE)
    schemas = {name: _normal(schema) for name, schema in generated.items()}
    for kind in _reachable(requests):
        _drop_defaults(schemas[_name(kind)])
    for kind in _reachable(answers):
        _require_what_is_always_there(schemas[_name(kind)], kind)
    # Last, since `code` and `msg` are no fields of the types.
    for kind in enveloped:
        schemas[_name(kind)] = _in_envelope(schemas[_name(kind)])
    schemas[NOTHING_ELSE] = _in_envelope(
        {"title": NOTHING_ELSE, "description": "没有其他内容的成功", "type": "object", "properties": {}, "required": []}
    )
    return dict(sorted(schemas.items()))


def _answers(operations: Iterable[Operation]) -> Iterator[Answer]:
    for operation in operations:
        yield from operation.answers


def _plain_answers(operations: Iterable[Operation]) -> Iterator[type[msgspec.Struct]]:
    """Return the types of what is answered without ``code`` and ``msg``, or within an answer."""
    for operation in operations:
        yield from operation.models
        yield from (type(body) for _, body in operation.access.bodies.values())
        yield from (type(each.body) for each in operation.answers if each.body is not None and not each.has_envelope)


def paths_of(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the entries of operations by address and method."""
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _entry(operation)
    return paths


# -- operations --------------------------------------------------------------------------------------------------------


def _entry(operation: Operation) -> dict[str, Any]:
    access = operation.access
    entry: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": operation.name,
        "description": access.description,
        "parameters": [*_in_path(operation), *_in_query(operation), *access.parameters],
        "security": list(access.security),
        "requestBody": _body(operation),
        "responses": _responses(operation),
    }
    return {name: value for name, value in entry.items() if value}


def _body(operation: Operation) -> dict[str, Any] | None:
    match operation:
        case BodyOperation():
            schema = {**_reference(operation.request), **operation.body}
            content = json_content(schema, dict(operation.examples))
            return {"required": operation.is_required, "content": content}
        case UploadOperation():
            file = {"type": "string", "format": "binary"}
            form = {"type": "object", "properties": {"file": file}, "required": ["file"]}
            content = {media_type: {"schema": file} for media_type in operation.media_types}
            content["multipart/form-data"] = {"schema": form}
            return {"required": True, "description": operation.upload, "content": content}
        case _:
            return None


def _in_path(operation: Operation) -> Iterator[Schema]:
    for name in re.findall(r"{(\w+)}", operation.path):
        described = {"description": operation.path_parameters[name]}
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, **described}


def _in_query(operation: Operation) -> Iterator[Schema]:
    if operation.query is None:
        return
    _, schemas = msgspec.json.schema_components((operation.query,), ref_template=REFERENCE)
    schema = _normal(schemas[_name(operation.query)])
    for name, described in schema["properties"].items():
        is_required = described.pop("required", name in schema["required"])
        said = {"description": described.pop("description")} if "description" in described else {}
        yield {"name": name, "in": "query", "required": is_required, "schema": _in_url(described), **said}


def _in_url(schema: Schema) -> Schema:
    """Return the schema of a parameter of a query, which is missing where a field of a body would be null or empty."""
    if not schema.get("default", True):
        del schema["default"]
    alternatives = [each for each in schema.pop("anyOf", ()) if each != {"type": "null"}]
    return {**schema, **(alternatives[0] if len(alternatives) == 1 else {})}


def _responses(operation: Operation) -> dict[str, Any]:
    failures = _failures(operation)
    refused = failures.pop(200, ())
    responses = {str(answer.status): _success(operation, answer, refused) for answer in operation.answers}
    for status, (meaning, example) in operation.access.bodies.items():
        content = json_content(_reference(type(example)), {"例": members(example)})
        responses[str(status)] = {"description": meaning, "content": content}
    responses |= {str(status): _refusal(operation, status, codes) for status, codes in failures.items()}
    return dict(sorted(responses.items()))


def _failures(operation: Operation) -> dict[int, tuple[Code, ...]]:
    """Return the codes of an operation's failures by status, the most specific ones first."""
    faults = dict(FAULTS) if operation.has_faults else {}
    if operation.path in LIMITS_WITH_STATUS_200:
        # Apps of these addresses look at no answer with another status.
        del faults[429]
        faults[200] = (LIMITS_WITH_STATUS_200[operation.path],)
    found: dict[int, tuple[Code, ...]] = {}
    for failures in (operation.failures, operation.access.failures, faults):
        for status, codes in failures.items():
            found[status] = tuple(dict.fromkeys((*found.get(status, ()), *codes)))
    return found


def _success(operation: Operation, answer: Answer, refused: tuple[Code, ...]) -> dict[str, Any]:
    """Describe an answer; ``refused`` are the codes of failures that have its status."""
    content: dict[str, Any] = {media_type: {"schema": {"type": "string"}} for media_type in answer.media_types}
    schemas, examples = [], {}
    if answer.has_envelope or answer.body is not None:
        schemas.append(_reference(None if answer.body is None else type(answer.body)))
        examples["成功"] = _example(answer)
    if refused:
        schemas.append(failure(list(refused)))
        examples |= _failure_examples(operation, refused)
    content |= json_content({"oneOf": schemas} if len(schemas) > 1 else schemas[0], examples)
    response: dict[str, Any] = {"description": _meaning(operation, answer, refused), "content": content}
    headers = {name: {"schema": {"type": "string"}, "description": said} for name, said in answer.headers.items()}
    if operation.path in LIMITS_WITH_STATUS_200:
        headers |= LIMIT_HEADERS
    return {**response, "headers": headers} if headers else response


def _example(answer: Answer) -> dict[str, Any]:
    if answer.has_envelope:
        return envelope(answer.message, answer.body, answer.params)
    return {} if answer.body is None else members(answer.body)


def _meaning(operation: Operation, answer: Answer, refused: tuple[Code, ...]) -> str:
    said = answer.description or format_message(answer.message, Language.ZH, **answer.params)
    if refused and not answer.description:
        said = "成功时 `code` 为整数 0；失败时 `code` 为字符串，HTTP 状态仍为 200"
    limit_code = LIMITS_WITH_STATUS_200.get(operation.path)
    if limit_code is not None:
        said += f"；请求过于频繁时 `code` 为 {limit_code}，`msg` 和 `Retry-After` 给出等待的秒数"
    return said


def _refusal(operation: Operation, status: int, codes: tuple[Code, ...]) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": "；".join(format_message(code, Language.ZH) for code in codes),
        "content": json_content(failure(list(codes)), _failure_examples(operation, codes)),
    }
    if status == 429:
        response["headers"] = LIMIT_HEADERS
    elif status == 503:
        response["headers"] = RETRY_AFTER
    return response


def _failure_examples(operation: Operation, codes: Iterable[Code]) -> dict[str, Any]:
    said = {code: format_message(operation.messages.get(code, code), Language.ZH) for code in codes}
    return {str(code): {"code": str(code), "msg": msg} for code, msg in said.items()}


def failure(codes: list[Code]) -> Schema:
    """Return the schema of a failure with one of these codes."""
    return {
        "title": "失败",
        "type": "object",
        "properties": {
            "code": {"type": "string", "enum": [str(code) for code in codes]},
            "msg": {"type": "string"},
        },
        "required": ["code", "msg"],
    }


def json_content(schema: Schema, examples: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"application/json": content}


# -- schemas -----------------------------------------------------------------------------------------------------------


def _name(kind: type[msgspec.Struct]) -> str:
    return kind.__name__


def _reference(kind: type[msgspec.Struct] | None) -> Schema:
    return {"$ref": REFERENCE.format(name=NOTHING_ELSE if kind is None else _name(kind))}


def _normal(schema: Any) -> Any:
    """Return a schema with a type for each enumeration and ``const`` for one value, as generators of clients want."""
    if isinstance(schema, list):
        return [_normal(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if SCHEMA in schema:
        return {**{name: schema[name] for name in ("description", "examples") if name in schema}, **schema[SCHEMA]}
    found = {name: _normal(value) for name, value in schema.items()}
    alternatives = found.get("anyOf", [])
    if alternatives[1:] == [{"type": "null"}] and isinstance(alternatives[0], dict):
        # What is said of a value is said of the field: generators put it there.
        for keyword in ("description", "examples"):
            if keyword in alternatives[0] and "$ref" not in alternatives[0]:
                found.setdefault(keyword, alternatives[0].pop(keyword))
    values = found.get("enum")
    if isinstance(values, list) and values:
        kinds = {JSON_TYPES.get(type(value)) for value in values}
        if len(kinds) == 1 and None not in kinds:
            found["type"] = kinds.pop()
        if len(values) == 1:
            found["const"] = found.pop("enum")[0]
    return found


def _drop_defaults(schema: Schema) -> None:
    """Leave defaults out: generators of clients take a field with a default for one that is always there."""
    for field in schema.get("properties", {}).values():
        field.pop("default", None)


def _require_what_is_always_there(schema: Schema, kind: type[msgspec.Struct]) -> None:
    """An answer holds every field but those that may be ``UNSET``, whether or not it has a default."""
    for field in schema["properties"].values():
        field.pop("default", None)
    schema["required"] = [
        field.encode_name for field in msgspec.structs.fields(kind) if field.default is not msgspec.UNSET
    ]


def _in_envelope(schema: Schema) -> Schema:
    properties = {**ENVELOPE, **schema["properties"]}
    return {**schema, "properties": properties, "required": [*ENVELOPE, *schema["required"]]}


def _reachable(kinds: Iterable[type[msgspec.Struct]]) -> set[type[msgspec.Struct]]:
    """Return Structs with those that their fields are made of."""
    found: set[type[msgspec.Struct]] = set()
    for node in inspect.multi_type_info(tuple(kinds)):
        _collect(node, found)
    return found


def _collect(node: Any, found: set[type[msgspec.Struct]]) -> None:
    if isinstance(node, inspect.StructType) and node.cls not in found:
        found.add(node.cls)
        for field in node.fields:
            _collect(field.type, found)
    for name in ("type", "item_type", "value_type"):
        if isinstance(inner := getattr(node, name, None), inspect.Type):
            _collect(inner, found)
    for inner in getattr(node, "types", ()):
        _collect(inner, found)
