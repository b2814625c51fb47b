"""Validation of a request's fields against the msgspec Struct that declares them.

Fields are validated one by one in the order of their declaration, so that an error identifies the first invalid field
by its path and by a code, in place of a sentence from msgspec. Members that the Struct does not declare are ignored,
unless it sets ``forbid_unknown_fields``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar, cast

import msgspec
from msgspec import inspect

from aiproject.codes import Detail
from aiproject.errors import InvalidInput

__all__ = [
    "SCHEMA",
    "described_as",
    "document",
    "read_fields_as",
    "reads",
]

S = TypeVar("S", bound=msgspec.Struct)
Reader = Callable[[Any], Any]

READER: Final = "aiproject.reader"

SCHEMA: Final = "x-aiproject-schema"
"""The keyword under which `described_as` passes a schema to `aiproject.web.openapi`; it never appears in the OpenAPI
description."""


def reads(reader: Reader) -> msgspec.Meta:
    """Return the annotation of a field that a function converts, because clients send more than its JSON type.

    Args:
        reader: converts the member's value to the field's type and raises `ValueError` for an invalid value. It is also
            called with ``null``, but not if the member is missing. Bounds of the type are checked afterwards.
    """
    return msgspec.Meta(extra={READER: reader})


def document(**keywords: Any) -> msgspec.Meta:
    """Return the annotation of a field whose bounds are described here and checked by the use case.

    The command line needs the same check with the same messages, so it is not repeated for a request.

    Args:
        keywords: JSON Schema keywords, such as ``maxLength``.
    """
    return msgspec.Meta(extra_json_schema=keywords)


def described_as(**keywords: Any) -> msgspec.Meta:
    """Return the annotation of a field whose schema msgspec cannot derive from its type.

    Args:
        keywords: JSON Schema keywords that replace those of the type; description and examples stay.
    """
    return msgspec.Meta(extra_json_schema={SCHEMA: keywords})


class _Field(NamedTuple):
    """How a field is validated.

    Attributes:
        member: its name in JSON.
        annotation: what msgspec converts to.
        kind: msgspec's node for the type, without ``None``.
        nested: the field's type, if that is a Struct.
        reader: see `reads`.
    """

    name: str
    member: str
    annotation: Any
    kind: inspect.Type
    nested: type[msgspec.Struct] | None
    is_required: bool
    is_nullable: bool
    reader: Reader | None


def read_fields_as(kind: type[S], fields: Mapping[str, Any], place: str = "") -> S:
    """Return ``fields`` as an instance of ``kind``.

    Args:
        fields: a JSON object, or the parameters of a query.
        place: the path of the object within the body, with a trailing dot; empty: the object is the body itself.

    Raises:
        InvalidInput: a field is missing, unknown or of another type.
    """
    declared, forbids_others = _fields_of(kind)
    if forbids_others and fields.keys() - {field.member for field in declared}:
        # Unknown names are not quoted: they may be anything that was pasted, a secret included.
        raise InvalidInput(Detail.FIELD_UNKNOWN, fields=sorted(field.member for field in declared))
    values = {}
    for field in declared:
        if field.member in fields:
            values[field.name] = _value(field, fields[field.member], place + field.member)
        elif field.is_required:
            raise InvalidInput(Detail.FIELD_MISSING, field=place + field.member)
    return kind(**values)


def _value(field: _Field, value: Any, place: str) -> Any:
    if field.reader is not None:
        try:
            value = field.reader(value)
        except ValueError:
            raise _refusal(field.kind, value, place) from None
    if value is None:
        if field.is_nullable:
            return None
        if field.is_required:
            raise InvalidInput(Detail.FIELD_MISSING, field=place)
    if field.nested is not None:
        # In a nested Struct that forbids unknown fields, an undeclared member makes the object invalid as a whole.
        if not isinstance(value, dict) or (_fields_of(field.nested)[1] and value.keys() - _members(field.nested)):
            raise InvalidInput(Detail.FIELD_NOT_OBJECT, field=place, fields=list(_members(field.nested)))
        return read_fields_as(field.nested, value, f"{place}.")
    try:
        return msgspec.convert(value, field.annotation)
    except msgspec.ValidationError:
        raise _refusal(field.kind, value, place) from None


def _refusal(kind: inspect.Type, value: Any, place: str) -> InvalidInput:
    """Return the error that says what ``kind`` requires and ``value`` does not satisfy. The value is never quoted."""
    match kind:
        case inspect.StrType():
            return InvalidInput(Detail.FIELD_NOT_TEXT, field=place)
        case inspect.IntType(ge=int() as least, le=int() as most):
            return InvalidInput(Detail.FIELD_OUT_OF_RANGE, field=place, least=least, most=most)
        case inspect.IntType():
            return InvalidInput(Detail.FIELD_NOT_INTEGER, field=place)
        case inspect.BoolType():
            return InvalidInput(Detail.FIELD_NOT_BOOLEAN, field=place)
        case inspect.DateTimeType():
            return InvalidInput(Detail.FIELD_NOT_TIME, field=place)
        case inspect.EnumType():
            return InvalidInput(Detail.FIELD_NOT_ONE_OF, field=place, values=list(map(str, kind.cls)))
        case inspect.LiteralType():
            return InvalidInput(Detail.FIELD_NOT_ONE_OF, field=place, values=list(map(str, kind.values)))
        case inspect.ListType():
            return _list_refusal(kind, value, place)
        case _:
            return InvalidInput(Detail.FIELD_MALFORMED, field=place)


def _list_refusal(kind: inspect.ListType, value: Any, place: str) -> InvalidInput:
    is_of_texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    is_short = isinstance(value, list) and (kind.max_length is None or len(value) <= kind.max_length)
    item = _bare(kind.item_type)[0]
    if isinstance(item, inspect.EnumType) and is_of_texts and is_short:
        return _refusal(item, value, place)
    if isinstance(item, inspect.EnumType | inspect.StrType) and kind.max_length is not None:
        return InvalidInput(Detail.FIELD_NOT_TEXTS, field=place, limit=kind.max_length)
    return InvalidInput(Detail.FIELD_MALFORMED, field=place)


@cache
def _fields_of(kind: type[msgspec.Struct]) -> tuple[tuple[_Field, ...], bool]:
    """Return the fields of a Struct, and whether it forbids others."""
    annotations = {field.name: field.type for field in msgspec.structs.fields(kind)}
    node = cast("inspect.StructType", inspect.type_info(kind))
    found = []
    for field in node.fields:
        bare, is_nullable, reader = _bare(field.type)
        nested = bare.cls if isinstance(bare, inspect.StructType) else None
        found.append(
            _Field(
                field.name,
                field.encode_name,
                annotations[field.name],
                bare,
                nested,
                field.required,
                is_nullable,
                reader,
            )
        )
    return tuple(found), node.forbid_unknown_fields


def _members(kind: type[msgspec.Struct]) -> dict[str, None]:
    """Return the names of a Struct's members, in their order."""
    return {field.member: None for field in _fields_of(kind)[0]}


def _bare(node: inspect.Type) -> tuple[inspect.Type, bool, Reader | None]:
    """Return a type without metadata and without ``None``, whether it allows ``None``, and its reader."""
    is_nullable, reader = False, None
    while True:
        match node:
            case inspect.Metadata():
                reader = (node.extra or {}).get(READER, reader)
                node = node.type
            case inspect.UnionType(types=(kind, inspect.NoneType())):
                node, is_nullable = kind, True
            case _:
                return node, is_nullable, reader
