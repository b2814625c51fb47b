"""The page of the HTTP API, from the OpenAPI description that the server answers at ``/openapi.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from aiproject.web.openapi import describe
from tools.reference.catalogue import Translate, paragraphs

__all__ = ["api_page"]

INTRODUCTION: Final = """\
Every answer has the header field `X-Request-Id`, by which logs and receipts name the request. Bodies and answers are
JSON unless stated otherwise. A successful answer has `code` 0; a refusal has one of the codes listed with its
operation, with its HTTP status, and the message in `msg`, see [Errors and codes](errors.md). Faults of HTTP itself and
of the server (408, 413, 415, 500, 503) can occur everywhere and are not listed.

OpenAI's addresses (`/v1/chat/completions`, `/v1/models`) succeed and fail in OpenAI's form instead.

The server shows the same description at `/docs`, where calls can be tried, and as OpenAPI at `/openapi.json`. What
each credential may do is explained in [Accounts](../explanation/accounts.md), the framing of streams in
[The relay and streams](../explanation/relay.md#framing).
"""

EVERYWHERE: Final = frozenset({"408", "413", "415", "500", "503"})
METHODS: Final = ("get", "post", "put", "patch", "delete")
MAX_DEPTH: Final = 3
"""Levels of fields within fields that the tables show; what lies deeper is in the examples."""

Content = Callable[[str], str]
"""Returns a text of the description in the language of the page."""


def api_page(t: Translate, content: Content) -> str:
    """Return the page, with a heading for each operation.

    Args:
        t: translates the words of the page itself.
        content: translates the description, whose texts are Chinese, the names of types apart.
    """
    document = describe()
    parts = [f"# {t('HTTP API')}", *(t(paragraph) for paragraph in paragraphs(INTRODUCTION))]
    by_tag: dict[str, list[str]] = {}
    for path, method, operation in _operations(document):
        entry = by_tag.setdefault(operation["tags"][0], [])
        entry += _Operation(document, path, method, operation, t, content).parts()
    for tag, entry in by_tag.items():
        parts += [f"## {content(tag)}", *entry]
    return "\n\n".join(parts) + "\n"


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


class _Operation:
    """The part of the page about one operation."""

    def __init__(
        self,
        document: Mapping[str, Any],
        path: str,
        method: str,
        operation: Mapping[str, Any],
        t: Translate,
        content: Content,
    ) -> None:
        self._schemas = document["components"]["schemas"]
        self._path = path
        self._method = method
        self._operation = operation
        self._t = t
        self._content = content

    def parts(self) -> Iterator[str]:
        operation, t = self._operation, self._t
        yield f"### `{self._method.upper()} {self._path}`"
        yield self._content(operation["summary"])
        if text := operation.get("description"):
            yield self._content(text)
        yield f"{t('Credentials')}{t(': ')}{self._credentials()}"
        yield from self._parameters()
        yield from self._body()
        yield from self._answers()
        if refusals := self._refusals():
            yield "\n".join([f"{t('Refusals')}{t(': ')}".rstrip(), "", *refusals])

    def _credentials(self) -> str:
        names = {
            "apiKey": "API key",
            "uuid": "`uuid` and `username`",
            "session": "browser session",
            "adminJwt": "administrator's JWT",
        }
        security = self._operation.get("security", [])
        words = [self._t(names[next(iter(scheme))]) if scheme else self._t("none") for scheme in security]
        return self._t(", ").join(words) or self._t("none")

    def _parameters(self) -> Iterator[str]:
        rows = [
            self._row(
                f"`{each['name']}`",
                f"{each['in']}, {self._type(each.get('schema', {}))}",
                each.get("required", False),
                each.get("description", ""),
            )
            for each in self._operation.get("parameters", [])
        ]
        if rows:
            yield self._table("Parameter", rows)

    def _body(self) -> Iterator[str]:
        body = self._operation.get("requestBody", {})
        for media_type, described in body.get("content", {}).items():
            yield self._titled("Body", media_type, body.get("description", ""))
            if rows := [*self._fields(described.get("schema", {}))]:
                yield self._table("Field", rows)
            yield from _example(described)

    def _answers(self) -> Iterator[str]:
        for status, answer in self._operation["responses"].items():
            if not status.startswith("2"):
                continue
            for media_type, described in answer.get("content", {}).items():
                yield self._titled("Answer", f"{status}, {media_type}", answer.get("description", ""))
                schema = self._resolved(described.get("schema", {}))
                # Of success and failure in one answer, success is described first.
                for alternative in schema.get("oneOf", [])[:1]:
                    schema = alternative
                if rows := [*self._fields(schema)]:
                    yield self._table("Field", rows)
                yield from _example(described)

    def _refusals(self) -> list[str]:
        found = []
        for status, answer in self._operation["responses"].items():
            codes = sorted(_codes(answer.get("content", {})))
            if codes and status not in EVERYWHERE:
                found.append(f"- {status}{self._t(': ')}{self._t(', ').join(f'`{code}`' for code in codes)}")
        return found

    def _titled(self, title: str, detail: str, description: str) -> str:
        text = f"**{self._t(title)}** ({detail})"
        return f"{text}{self._t(': ')}{self._content(description)}" if description else text

    def _fields(self, schema: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, ...]]:
        schema = self._resolved(schema)
        required = schema.get("required", [])
        for name, field in schema.get("properties", {}).items():
            path = f"{prefix}{name}"
            inner = self._inner(field)
            yield self._row(f"`{path}`", self._type(field), name in required, self._described(field))
            if inner is not None and depth < MAX_DEPTH:
                mark = "[]." if self._is_array(field) else "."
                yield from self._fields(inner, f"{path}{mark}", depth + 1)

    def _described(self, field: Mapping[str, Any]) -> str:
        # A type's own description says what it is in the code; the field's says what it is here.
        return str(field.get("description", ""))

    def _row(self, name: str, kind: str, is_required: bool, description: str) -> tuple[str, ...]:
        meaning = " ".join(self._content(description).split()).replace("|", "\\|") if description else ""
        return (name, kind, self._t("yes") if is_required else self._t("no"), meaning)

    def _table(self, first: str, rows: list[tuple[str, ...]]) -> str:
        columns = [self._t(column) for column in (first, "Type", "Required", "Meaning")]
        lines = [f"| {' | '.join(columns)} |", "|---|---|---|---|"]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        return schema

    def _alternatives(self, schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The schemas that a value may have, ``null`` left out."""
        schema = self._resolved(schema)
        parts = schema.get("anyOf") or schema.get("oneOf") or [schema]
        return [self._resolved(part) for part in parts if part.get("type") != "null"]

    def _is_array(self, schema: Mapping[str, Any]) -> bool:
        return any(part.get("type") == "array" for part in self._alternatives(schema))

    def _inner(self, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The object whose fields a value has: its own, or those of its items."""
        for part in self._alternatives(schema):
            items = part.get("items")
            found = self._resolved(items) if isinstance(items, Mapping) else part
            if "properties" in found:
                return found
        return None

    def _type(self, schema: Mapping[str, Any]) -> str:
        return f" {self._t('or')} ".join(dict.fromkeys(self._one_type(part) for part in self._alternatives(schema)))

    def _one_type(self, schema: Mapping[str, Any]) -> str:
        t = self._t
        if values := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
            choices = t(", ").join(f"`{value}`" for value in values)
            return t("one of {choices}", choices=choices) if len(values) > 1 else choices
        kind = schema.get("type", "object")
        if isinstance(kind, list):
            kind = next((each for each in kind if each != "null"), "null")
        if kind == "array":
            return t("array of {kind}", kind=self._type(schema.get("items", {})))
        words = {"string": "text", "boolean": "`true` or `false`", "object": "object"}
        text = t(words.get(kind, kind))
        if unit := schema.get("x-unit"):
            text += t(" ({unit})", unit=t(unit))
        return t(", ").join([text, *self._bounds(schema)])

    def _bounds(self, schema: Mapping[str, Any]) -> Iterator[str]:
        forms = {
            "minimum": "at least {bound}",
            "maximum": "at most {bound}",
            "minLength": "at least {bound} characters",
            "maxLength": "at most {bound} characters",
        }
        if schema.get("minLength") == 1:
            yield self._t("not empty")
        for key, form in forms.items():
            if key in schema and (key, schema[key]) != ("minLength", 1):
                yield self._t(form, bound=f"{schema[key]:,}")


def _example(described: Mapping[str, Any]) -> Iterator[str]:
    """Yield the first example of a body, as JSON."""
    examples = [each.get("value") for each in described.get("examples", {}).values()] or [described.get("example")]
    if isinstance(examples[0], dict | list):
        yield f"```json\n{json.dumps(examples[0], ensure_ascii=False, indent=2)}\n```"


def _codes(schema: Any) -> set[str]:
    """The values of ``code`` that a description of failures names."""
    if isinstance(schema, Mapping):
        named = schema.get("properties", {}).get("code", {}) if isinstance(schema.get("properties"), Mapping) else {}
        found = {value for value in named.get("enum", []) if isinstance(value, str)}
        return found.union(*(_codes(value) for key, value in schema.items() if key not in ("examples", "example")))
    if isinstance(schema, list):
        return set().union(*(_codes(value) for value in schema))
    return set()
