"""The description at ``/openapi.json`` against the server: generated calls meet no 5xx and no answer unannounced."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from aiproject.vouchers.service import Vouchers
from aiproject.web.openapi import describe
from described import resolved
from system import wire
from system.harness import PASSWORD, LocalServer, Person

pytestmark = [
    pytest.mark.timeout(3600 if os.environ.get("FUZZ_EXAMPLES") else 120),
    # The server runs in a thread beside the tests and draws numbers; Hypothesis takes them for its strategies'.
    pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies"),
]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "30"))
"""Calls of each operation; `make fuzz-api` makes a thousand."""

A_FEW = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))

METHODS = ("get", "put", "post", "delete", "patch")
OPERATIONS = [
    (path, method) for path, methods in describe()["paths"].items() for method in METHODS if method in methods
]
POSTED = [path for path, method in OPERATIONS if method == "post"]


def operation(server: LocalServer, path: str, method: str) -> Any:
    api = schemathesis.openapi.from_dict(copy.deepcopy(describe()))
    api.config.update(base_url=f"http://127.0.0.1:{server.port}")
    return api[path][method]


def takes_an_account(path: str, method: str) -> bool:
    """Whether a call can name an account by its uuid: in a header, or in the body."""
    described = describe()["paths"][path][method]
    headers = {parameter["name"] for parameter in described.get("parameters", ()) if parameter["in"] == "header"}
    bodies = [resolved(content["schema"]) for content in described.get("requestBody", {}).get("content", {}).values()]
    members = {name for schema in bodies for name in schema.get("properties", ())}
    return "uuid" in headers or bool(members & {"uuid", "user_id"})


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_calls_by_strangers(server: LocalServer, path: str, method: str, mode: GenerationMode) -> None:
    @A_FEW
    @given(case=operation(server, path, method).as_strategy(generation_mode=mode))
    def call(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(checks=CHECKS, timeout=20)

    try:
        call()
    except Unsatisfiable:
        # An operation without parameters cannot be called wrongly.
        assert mode is GenerationMode.NEGATIVE
        assert "requestBody" not in describe()["paths"][path][method]


@pytest.mark.parametrize(("path", "method"), [each for each in OPERATIONS if takes_an_account(*each)])
async def test_calls_by_somebody_with_an_account(server: LocalServer, path: str, method: str) -> None:
    person = await server.person()
    # A stream that succeeds is no single JSON value, so there is no schema to hold it against.
    checks = CHECKS[:-1] if path == "/textModel/stream" else CHECKS

    @A_FEW
    @given(case=operation(server, path, method).as_strategy(generation_mode=GenerationMode.POSITIVE))
    def call(case: schemathesis.Case[Any]) -> None:
        sign_in(case, person)
        case.call_and_validate(checks=checks, timeout=20)

    call()
    assert (await person.chat("hi")).json()["code"] == 0


def sign_in(case: schemathesis.Case[Any], person: Person) -> None:
    if isinstance(case.body, dict) and "dialog" in case.body:
        case.body = {**case.body, "uuid": person.uuid, "username": person.username}
    elif isinstance(case.body, dict) and "user_id" in case.body:
        case.body = {**case.body, "user_id": person.uuid}
    else:
        case.headers.update({"uuid": person.uuid, "username": quote(person.username)})
        if case.path.startswith("/v1/account/keys") and isinstance(case.body, dict) and "password" in case.body:
            case.body = {**case.body, "password": PASSWORD}


async def test_the_examples_of_the_description_work_as_they_stand(start_server: Callable[..., LocalServer]) -> None:
    server = start_server()
    redeemed = describe()["paths"]["/user/get_token"]["post"]["requestBody"]["content"]["application/json"]
    async with server.database() as database:
        for example in redeemed["examples"].values():
            await Vouchers(database).add(code=example["value"]["token_id"], tokens=1)
    uuid = ""
    for path in (path for path in POSTED if not path.startswith(("/v1/", "/admin/"))):
        for media_type, content in describe()["paths"][path]["post"]["requestBody"]["content"].items():
            for example in content.get("examples", {}).values():
                known = {"uuid": uuid, "user_id": uuid}
                value = {name: known.get(name, given) for name, given in example["value"].items()}
                answer = await wire.request(
                    server.port, "POST", path, [("Content-Type", media_type)], json.dumps(value).encode()
                )
                assert answer.status == 200
                if path == "/textModel/stream":
                    assert answer.frames()
                    continue
                found = answer.json()
                assert found["code"] == 0, (path, found)
                uuid = found.get("uuid", uuid)
    assert uuid
