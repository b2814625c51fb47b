"""OpenAPI's entries, generated from the declarations of operations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
from msgspec import inspect

from aiproject.adapters.http.operation import Answer, BodyOperation, Operation, members
from aiproject.codes import Code
from aiproject.messages import Language, format_message
from aiproject.web.openapi.parts import FAULTS, Schema, failure, json_content

__all__ = ["paths_of", "schemas_of"]

REFERENCE: Final = "#/components/schemas/{name}"

ENVELOPE: Final[dict[str, Schema]] = {
    "code": {"type": "integer", "const": 0, "description": "成功"},
    "msg": {"type": "string", "description": "给用户看的一句话"},
}
"""What every answer of a success begins with."""

NOTHING_ELSE: Final = "Done"
"""The name of the schema of an answer that is its envelope alone."""

JSON_TYPES: Final = {str: "string", bool: "boolean", int: "integer"}


def schemas_of(operations: Iterable[Operation]) -> dict[str, Schema]:
    """Return the schemas of all requests and answers, by their names."""
    operations = tuple(operations)
    requests = [each.request for each in operations if isinstance(each, BodyOperation)]
    answers = {type(answer.body) for each in operations for answer in each.answers if answer.body is not None}
    _, generated = msgspec.json.schema_components((*requests, *answers), ref_template=REFERENCE)
    schemas = {name: _normal(schema) for name, schema in generated.items()}
    for kind in _reachable(requests):
        _describe_request(schemas[_name(kind)])
    for kind in _reachable(answers):
        _require_what_is_always_there(schemas[_name(kind)], kind)
    for kind in answers:
        schemas[_name(kind)] = _in_envelope(schemas[_name(kind)])
    done = {
        "title": NOTHING_ELSE,
        "description": "没有其他内容的成功",
        "type": "object",
        "properties": {},
        "required": [],
    }
    return dict(sorted({**schemas, NOTHING_ELSE: _in_envelope(done)}.items()))


def paths_of(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the entries of operations by address and method."""
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _entry(operation)
    return paths


# -- operations


def _entry(operation: Operation) -> dict[str, Any]:
    access = operation.access
    entry: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": operation.name,
        "description": access.description,
        "parameters": [*_in_path(operation), *_in_query(operation), *access.parameters],
        "security": list(access.security),
        "responses": _responses(operation),
    }
    if isinstance(operation, BodyOperation):
        schema = {**_reference(operation.request), **operation.body}
        entry["requestBody"] = {
            "required": operation.is_required,
            "content": json_content(schema, dict(operation.examples)),
        }
    return {name: value for name, value in entry.items() if value}


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
        said = {"description": described.pop("description")} if "description" in described else {}
        is_required = name in schema["required"]
        yield {"name": name, "in": "query", "required": is_required, "schema": described, **said}


def _responses(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {str(answer.status): _success(answer) for answer in operation.answers}
    responses |= FAULTS
    failures: dict[int, tuple[Code, ...]] = dict(operation.access.failures)
    for status, codes in operation.failures.items():
        failures[status] = tuple(dict.fromkeys((*failures.get(status, ()), *codes)))
    responses |= {str(status): _refusal(codes) for status, codes in failures.items()}
    return dict(sorted(responses.items()))


def _success(answer: Answer) -> dict[str, Any]:
    example = {"code": 0, "msg": answer.msg, **({} if answer.body is None else members(answer.body))}
    response: dict[str, Any] = {
        "description": answer.msg,
        "content": json_content(_reference(None if answer.body is None else type(answer.body)), {"成功": example}),
    }
    if answer.headers:
        response["headers"] = {
            name: {"schema": {"type": "string"}, "description": said} for name, said in answer.headers.items()
        }
    return response


def _refusal(codes: tuple[Code, ...]) -> dict[str, Any]:
    examples = {str(code): {"code": str(code), "msg": format_message(code, Language.ZH)} for code in codes}
    return {
        "description": "；".join(format_message(code, Language.ZH) for code in codes),
        "content": json_content(failure(list(codes)), examples),
    }


# -- schemas


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
    found = {name: _normal(value) for name, value in schema.items()}
    values = found.get("enum")
    if isinstance(values, list) and values:
        kinds = {JSON_TYPES.get(type(value)) for value in values}
        if len(kinds) == 1 and None not in kinds:
            found["type"] = kinds.pop()
        if len(values) == 1:
            found["const"] = found.pop("enum")[0]
    return found


def _describe_request(schema: Schema) -> None:
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
