"""The OpenAPI description: well-formed, true to the codes and routes of the house, and its examples fit its schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import jsonschema_rs
import pytest
from starlette.routing import Route

from aiproject import __version__
from aiproject.accounts.routes.operations import TAG
from aiproject.administration.model import ALLOWED
from aiproject.administration.routes import AdministrationRoutes
from aiproject.codes import Code
from aiproject.protocols.legacy import LIMITS_WITH_STATUS_200
from aiproject.web.openapi import OPERATIONS, describe
from described import resolved

DOCUMENT = describe()
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
DOCUMENTED = {
    "/auth/register": "post",
    "/auth/login": "post",
    "/textModel/chat": "post",
    "/textModel/stream": "post",
    "/voiceModel/chat": "post",
    "/PictureToTextModel/chat": "post",
    "/user/get_token": "post",
    "/v1/usage": "get",
    "/v1/usage/{request_id}": "get",
    "/admin/login": "post",
    "/admin/setup": "post",
    "/admin/refresh": "get",
    "/admin/logout": "post",
    "/admin/console_test": "post",
    "/admin/add_normal_user": "post",
    "/admin/modify_normal_user": "post",
    "/admin/delete_normal_user": "post",
    "/admin/add_admin": "post",
    "/admin/modify_admin": "post",
    "/admin/delete_admin": "post",
    "/admin/add_token": "post",
    "/admin/modify_token": "post",
    "/admin/delete_token": "post",
    "/admin/control_token": "get",
    "/admin/query_table": "get",
    "/admin/query_table_count": "get",
    "/admin/query_table_data": "get",
    "/admin/audit": "get",
    "/admin/audit/export": "get",
}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def contents() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every media type of every request and answer, with its place."""
    for path, method, operation in operations():
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{method} {path} {media_type}", resolved(content)
        for status, answer in operation["responses"].items():
            for media_type, content in answer.get("content", {}).items():
                yield f"{method} {path} {status} {media_type}", resolved(content)


def codes(schema: Any) -> Iterator[str]:
    """Every failure code that a schema allows."""
    if isinstance(schema, dict):
        code = schema.get("properties", {}).get("code", {})
        yield from code.get("enum", [])
        for value in schema.values():
            yield from codes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from codes(value)


CONTENTS = pytest.mark.parametrize(("place", "content"), [pytest.param(*each, id=each[0]) for each in contents()])


def test_head() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    assert DOCUMENT["info"]["version"] == __version__


OWNERS = {(each.path, each.method.lower()) for each in OPERATIONS if each.tag == TAG}
"""What an account's owner calls; declared beside the routes, and compared with them below."""


OPENAI = [("/v1/chat/completions", "post"), ("/v1/models", "get"), ("/v1/models/{model}", "get")]
"""What OpenAI's SDKs call."""


def test_the_documented_endpoints_are_described() -> None:
    described = {(path, method) for path, method, _ in operations()}
    assert described == {*DOCUMENTED.items(), ("/health", "get"), ("/ready", "get"), *OWNERS, *OPENAI}


@pytest.mark.parametrize(("path", "method"), sorted(OWNERS))
def test_answers_to_owners(path: str, method: str) -> None:
    operation = DOCUMENT["paths"][path][method]
    responses = operation["responses"]
    assert {"400", "413", "429", "500", "503"} <= set(responses)
    assert len({"200", "201", "202"} & set(responses)) >= 1
    in_path = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", path))
    if path.startswith("/v1/account"):
        assert {"401", "403"} <= set(responses)
        assert "API 密钥：不可以" in operation["description"]


def test_operations_are_told_apart() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)
    assert all(operation["summary"] and operation["tags"] for _, _, operation in operations())


@CONTENTS
def test_schemas_are_schemas(place: str, content: dict[str, Any]) -> None:
    jsonschema_rs.validator_for(content["schema"])


@CONTENTS
def test_examples_fit(place: str, content: dict[str, Any]) -> None:
    validator = jsonschema_rs.validator_for(content["schema"])
    for name, example in content.get("examples", {}).items():
        assert list(map(str, validator.iter_errors(example["value"]))) == [], name


@CONTENTS
def test_every_code_is_one_of_the_table(place: str, content: dict[str, Any]) -> None:
    assert set(codes(content["schema"])) <= {str(code) for code in Code}


@pytest.mark.parametrize("path", DOCUMENTED)
def test_answers_of_an_endpoint(path: str) -> None:
    operation = DOCUMENT["paths"][path][DOCUMENTED[path]]
    assert {"200", "413", "500", "503"} <= set(operation["responses"])
    assert "Retry-After" in operation["responses"]["503"]["headers"]
    schema = resolved(operation["responses"]["200"]["content"]["application/json"]["schema"])
    if path == "/admin/audit/export":
        assert "text/csv" in operation["responses"]["200"]["content"]
        return
    successes = [each for each in schema["oneOf"] if each["title"] != "失败"]
    assert len(successes) == 1
    if path != "/textModel/stream":
        assert successes[0]["properties"]["code"] == {"type": "integer", "const": 0}
        assert {"code", "msg"} <= set(successes[0]["required"])
    assert list(codes(schema))


@pytest.mark.parametrize(
    "path", [path for path, method in DOCUMENTED.items() if method == "post" and path != "/admin/logout"]
)
def test_a_body_is_asked_for(path: str) -> None:
    body = DOCUMENT["paths"][path]["post"]["requestBody"]
    assert body["required"] is True
    is_upload = path in ("/voiceModel/chat", "/PictureToTextModel/chat")
    assert ("multipart/form-data" in body["content"]) == is_upload
    if is_upload:
        form = body["content"]["multipart/form-data"]["schema"]
        assert form["properties"]["file"] == {"type": "string", "format": "binary"}


def test_identity_headers() -> None:
    def needed(path: str) -> dict[str, bool]:
        parameters = DOCUMENT["paths"][path][DOCUMENTED[path]]["parameters"]
        headers = [each for each in parameters if each["in"] == "header"]
        assert not any(each["required"] for each in headers), "whoever shows an API key needs none"
        return {each["name"]: "必填" in each["description"] for each in headers}

    assert needed("/PictureToTextModel/chat") == {"uuid": True, "username": True}
    assert needed("/voiceModel/chat") == {"uuid": False, "username": False}
    for path in ("/v1/usage", "/v1/usage/{request_id}"):
        assert needed(path) == {"uuid": True, "username": True}


def test_api_keys_open_what_charges_and_the_account_s_usage() -> None:
    opened = {path: operation for path, _, operation in operations() if {"apiKey": []} in operation.get("security", [])}
    charging = {"/textModel/chat", "/textModel/stream", "/voiceModel/chat", "/PictureToTextModel/chat"}
    sdks = {path for path, _ in OPENAI}
    assert set(opened) == {*charging, "/v1/usage", "/v1/usage/{request_id}", *sdks}
    assert DOCUMENT["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    for path, operation in opened.items():
        assert {"401", "403"} <= set(operation["responses"])
        told = json.dumps(operation["responses"].get("429", {}))
        if path in sdks:
            continue
        assert (str(Code.KEY_LIMIT_REACHED) in told) == (path in charging)


def test_routes_and_description_agree() -> None:
    from aiproject.accounts.routes.account import AccountRoutes
    from aiproject.accounts.routes.api_keys import KeyRoutes
    from aiproject.accounts.routes.mail import MailRoutes
    from aiproject.accounts.routes.sessions import SessionRoutes
    from aiproject.api.legacy.routes import legacy_endpoints
    from aiproject.api.openai.routes import openai_routes
    from aiproject.web.app import Endpoints, build_app
    from aiproject.web.mail_pages import mail_pages

    async def endpoint(*_: Any) -> None: ...

    class Routes:
        register = login = redeem = entries = receipt = endpoint

    nothing: Any = None
    calls = legacy_endpoints(
        cast("Any", SimpleNamespace(running=0, authenticator=0, chats=0, clips=0, pictures=0)),
        nothing,
        nothing,
        anonymous_voice=True,
    )
    more = [
        *SessionRoutes(nothing, nothing, nothing, nothing).routes(),
        *AccountRoutes(nothing, nothing, nothing, nothing, nothing, nothing).routes(),
        *KeyRoutes(nothing, nothing, nothing).routes(),
        *MailRoutes(nothing, nothing, nothing).routes(),
        *mail_pages(8),
        *AdministrationRoutes(cast("Any", SimpleNamespace(administrators=None)), app_id="").routes(),
        *openai_routes(cast("Any", SimpleNamespace(running=0, authenticator=0)), nothing, 1),
    ]
    parts: Any = (Routes(), calls, Routes(), Routes(), more)
    app: Any = build_app(Endpoints(*parts), readiness=nothing, is_sandbox=False, cors_origins=("*",))
    while not hasattr(app, "router"):
        app = getattr(app, "app", None) or app._app
    routes = {
        (route.path, method.lower())
        for route in app.router.routes
        if isinstance(route, Route) and not route.path.startswith(("/docs", "/openapi", "/static", "/mail"))
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert routes == {(path, method) for path, method, _ in operations()}


def test_whoever_needs_a_token_is_told_so() -> None:
    needing = {
        (method.upper(), path)
        for path, method, operation in operations()
        if operation.get("security") == [{"adminJwt": []}]
    }
    assert needing == set(ALLOWED)
    assert "adminJwt" in DOCUMENT["components"]["securitySchemes"]


SCHEMAS = DOCUMENT["components"]["schemas"]


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_field_of_every_type_is_described(name: str) -> None:
    schema = SCHEMAS[name]
    assert schema.get("description") or "enum" in schema, name
    for field, described in schema.get("properties", {}).items():
        if field == "code":
            continue
        # A list of a described type needs no words of its own.
        target = described.get("items", described)
        assert described.get("description") or "$ref" in target or "oneOf" in target or "const" in target, (name, field)


def test_quantities_have_units() -> None:
    def unit(name: str, field: str) -> object:
        return SCHEMAS[name]["properties"][field].get("x-unit") or SCHEMAS[name]["properties"][field]["description"]

    assert unit("Balances", "tokens") == "token"
    assert unit("Balances", "pic_times") == "picture"
    assert "毫秒" in str(unit("Balances", "voice_ms"))
    assert unit("WholeAnswer", "consume_token") == "token"
    assert unit("AddUser", "tokens") == "token"


def test_every_body_of_json_has_an_example() -> None:
    for path, method, operation in operations():
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            if media_type == "application/json":
                assert content.get("examples"), (method, path)


def test_every_answer_of_json_has_an_example() -> None:
    for path, method, operation in operations():
        for status, answer in operation["responses"].items():
            assert answer["content"]["application/json"].get("examples"), (method, path, status)


def test_failures_that_the_description_names_are_those_of_the_dialect() -> None:
    """A code stands with the status that the address answers it with."""
    for path, method, operation in operations():
        for status, answer in operation["responses"].items():
            for code in codes(resolved(answer.get("content", {}))):
                if code in ("ITEM_NOT_FOUND", "RECEIPT_NOT_FOUND"):
                    assert status == "404", (method, path)
                if code == "NOT_SIGNED_IN":
                    assert status == "401", (method, path)
                if code == "TOO_MANY_REQUESTS" and path not in LIMITS_WITH_STATUS_200:
                    assert status == "429", (method, path)


def test_nothing_of_the_generator_is_left_in_the_description() -> None:
    assert "x-aiproject" not in json.dumps(DOCUMENT)


def test_every_security_scheme_is_declared_and_used() -> None:
    used = {name for _, _, operation in operations() for each in operation.get("security", ()) for name in each}
    assert used == set(DOCUMENT["components"]["securitySchemes"])


def test_every_reference_has_its_target_and_every_schema_is_referred_to() -> None:
    found = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(DOCUMENT)))
    assert found == set(SCHEMAS)
