"""Generated calls by an owner meet no 5xx and no answer unannounced; and the description's examples work."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import given
from schemathesis.generation import GenerationMode

from aiproject.administration.model import ALLOWED, Role
from aiproject.administration.setup import SetupCode
from aiproject.web.openapi import describe
from system.administrators import Console, sign_in
from system.harness import LocalServer
from system.test_fuzzing import A_FEW, CHECKS, operation

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies"),
]

# The export is no single JSON value; a refresh takes the other token; after a logout everything would be refused.
OPERATIONS = sorted(set(ALLOWED) - {("GET", "/admin/refresh"), ("POST", "/admin/logout")})


@pytest.fixture(scope="module")
def owner(_server: LocalServer) -> Console:
    return _server.run(lambda: sign_in(_server, "fuzzing owner", Role.OWNER))


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_calls_by_an_owner(
    server: LocalServer, owner: Console, method: str, path: str, mode: GenerationMode
) -> None:  # fmt: skip
    checks = CHECKS[:-1] if path == "/admin/audit/export" else CHECKS

    @A_FEW
    @given(case=operation(server, path, method.lower()).as_strategy(generation_mode=mode))
    def call(case: schemathesis.Case[Any]) -> None:
        case.headers["Authorization"] = f"Bearer {owner.access}"
        case.call_and_validate(checks=checks, timeout=20)

    call()


async def test_the_examples_work_as_they_stand(start_server: Callable[..., LocalServer]) -> None:
    bodies: dict[str, list[Any]] = {}
    for path, methods in describe()["paths"].items():
        if path.startswith("/admin/") and "post" in methods:
            content = methods["post"].get("requestBody", {}).get("content", {}).get("application/json", {})
            bodies[path] = [example["value"] for example in content.get("examples", {}).values()]
    (first,) = bodies.pop("/admin/setup")
    server = start_server(setup_code=SetupCode(first["code"], time.time() + 60))
    console = Console(server.port)
    assert (await console.post("setup", first))["code"] == 0
    (login,) = bodies.pop("/admin/login")
    assert (await console.login(login["admin"], login["password"]))["code"] == 0
    own = bodies.pop("/admin/modify_admin")  # ends the session, so it comes last
    assert own
    tried = 0
    for path, examples in [*bodies.items(), ("/admin/modify_admin", own)]:
        for example in examples:
            answer = await console.call("POST", path, json.loads(json.dumps(example)))
            assert answer.json()["code"] == 0, (path, answer.json())
            tried += 1
    assert tried >= 5
