"""The fields of a request against their declared type: the first wrong one is named, by a code and its place."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Meta, Struct, UnsetType

from aiproject.adapters.http.fields import described_as, document, read_fields_as, reads
from aiproject.codes import Detail
from aiproject.errors import InvalidInput


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


def doubled(value: Any) -> int:
    if not isinstance(value, int):
        raise ValueError("no number")
    return 2 * value


class Size(Struct, kw_only=True, forbid_unknown_fields=True):
    width: Annotated[int, Meta(ge=1, le=9)] | None = None


class Wanted(Struct, kw_only=True):
    text: Annotated[str, document(maxLength=3)]
    number: int = 7
    maybe: Annotated[str | None, Meta(description="x")] | UnsetType = UNSET
    is_on: bool = False
    texts: Annotated[list[str], Meta(max_length=2)] | None = None
    colours: Annotated[list[Colour], Meta(max_length=2)] | None = None
    kind: Literal["a", "b"] = "a"
    size: Size | None = None
    twice: Annotated[int, reads(doubled), Meta(le=10)] = 0
    pairs: list[tuple[int, int]] = []


def read(**fields: Any) -> Wanted:
    return read_fields_as(Wanted, {"text": "x", **fields})


def test_what_is_missing_has_its_default() -> None:
    assert read() == Wanted(text="x")
    assert read(maybe=None).maybe is None
    assert read().maybe is UNSET


def test_members_that_are_not_declared_are_ignored() -> None:
    assert read(other=1) == Wanted(text="x")


def test_bounds_that_are_described_are_left_to_the_use_case() -> None:
    assert read(text="far too long").text == "far too long"


def test_a_reader_makes_the_value_and_its_type_bounds_it() -> None:
    assert read(twice=5).twice == 10
    for bad in (6, "5", None):
        with pytest.raises(InvalidInput):
            read(twice=bad)


@pytest.mark.parametrize(
    ("fields", "detail", "params"),
    [
        ({"text": None}, Detail.FIELD_MISSING, {"field": "text"}),
        ({"text": 5}, Detail.FIELD_NOT_TEXT, {"field": "text"}),
        ({"number": None}, Detail.FIELD_NOT_INTEGER, {"field": "number"}),
        ({"number": True}, Detail.FIELD_NOT_INTEGER, {"field": "number"}),
        ({"number": 1.0}, Detail.FIELD_NOT_INTEGER, {"field": "number"}),
        ({"number": "1"}, Detail.FIELD_NOT_INTEGER, {"field": "number"}),
        ({"maybe": 1}, Detail.FIELD_NOT_TEXT, {"field": "maybe"}),
        ({"is_on": 1}, Detail.FIELD_NOT_BOOLEAN, {"field": "is_on"}),
        ({"texts": "x"}, Detail.FIELD_NOT_TEXTS, {"field": "texts", "limit": 2}),
        ({"texts": ["x"] * 3}, Detail.FIELD_NOT_TEXTS, {"field": "texts", "limit": 2}),
        ({"colours": ["red", 5]}, Detail.FIELD_NOT_TEXTS, {"field": "colours", "limit": 2}),
        ({"colours": ["green"]}, Detail.FIELD_NOT_ONE_OF, {"field": "colours", "values": ["red", "blue"]}),
        ({"kind": "c"}, Detail.FIELD_NOT_ONE_OF, {"field": "kind", "values": ["a", "b"]}),
        ({"size": 5}, Detail.FIELD_NOT_OBJECT, {"field": "size", "fields": ["width"]}),
        ({"size": {"height": 5}}, Detail.FIELD_NOT_OBJECT, {"field": "size", "fields": ["width"]}),
        ({"size": {"width": 10}}, Detail.FIELD_OUT_OF_RANGE, {"field": "size.width", "least": 1, "most": 9}),
        ({"pairs": [[1]]}, Detail.FIELD_MALFORMED, {"field": "pairs"}),
    ],
)
def test_the_first_wrong_field_is_named(fields: dict[str, Any], detail: Detail, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(**fields)
    assert (caught.value.detail, caught.value.params) == (detail, params)


def test_a_field_that_is_not_there() -> None:
    with pytest.raises(InvalidInput) as caught:
        read_fields_as(Wanted, {"number": "wrong as well"})
    assert (caught.value.detail, caught.value.params) == (Detail.FIELD_MISSING, {"field": "text"})


def test_unknown_members_are_refused_without_quoting_them() -> None:
    with pytest.raises(InvalidInput) as caught:
        read_fields_as(Size, {"sk-secret": 1})
    assert (caught.value.detail, caught.value.params) == (Detail.FIELD_UNKNOWN, {"fields": ["width"]})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = st.sampled_from([field.encode_name for field in msgspec.structs.fields(Wanted) if field.name != "twice"])


@given(st.dictionaries(MEMBERS, JSON))
def test_it_takes_just_what_msgspec_takes(fields: dict[str, Any]) -> None:
    """Checking field by field changes what is said of a wrong body, and nothing of what is right."""
    try:
        expected = msgspec.convert(fields, Wanted)
    except msgspec.ValidationError:
        with pytest.raises(InvalidInput):
            read_fields_as(Wanted, fields)
    else:
        assert read_fields_as(Wanted, fields) == expected or fields.get("number") != fields.get("number")


def test_a_schema_of_its_own_is_in_the_type_s_schema() -> None:
    class Odd(Struct):
        switch: Annotated[bool, described_as(enum=[0, 1])]

    schema = msgspec.json.schema(Odd)["$defs"]["Odd"]["properties"]["switch"]
    assert schema["x-aiproject-schema"] == {"enum": [0, 1]}
