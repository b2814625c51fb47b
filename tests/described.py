"""The description's schemas, as validators and tests want them: without references to others."""

from __future__ import annotations

from typing import Any

from aiproject.web.openapi import describe

PREFIX = "#/components/schemas/"


def resolved(schema: Any) -> Any:
    """Return a schema with every reference replaced by what it refers to."""
    if isinstance(schema, list):
        return [resolved(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = describe()["components"]["schemas"][schema["$ref"].removeprefix(PREFIX)]
        return {**resolved(target), **{name: resolved(each) for name, each in schema.items() if name != "$ref"}}
    return {name: resolved(value) for name, value in schema.items()}
