"""The shortest new password is the operator's choice, wherever one is chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aiproject.administration.model import Role
from system import wire
from system.administrators import Console, sign_in
from system.harness import LocalServer, Person, post_json

SHORTEST = "k7#q-2"
TOO_SHORT = SHORTEST[1:]
COMPLAINT = f"密码至少需要 {len(SHORTEST)} 个字符"


@pytest.fixture
def lenient(start_server: Callable[..., LocalServer]) -> LocalServer:
    return start_server(password_min_length=len(SHORTEST))


async def register(server: LocalServer, name: str, password: str) -> Any:
    fields = {"username": name, "password": password, "email": ""}
    return (await post_json(server.port, "/auth/register", fields)).json()


async def test_in_a_registration_and_a_change_by_the_owner(lenient: LocalServer) -> None:
    assert (await register(lenient, "小明", TOO_SHORT))["msg"] == COMPLAINT
    assert (await register(lenient, "小明", SHORTEST))["code"] == 0
    credentials = {"username": "小明", "password": SHORTEST}
    uuid = (await post_json(lenient.port, "/auth/login", credentials)).json()["uuid"]
    identity = Person(lenient.port, "小明", uuid).headers
    for new, expected in ((TOO_SHORT[::-1], COMPLAINT), (SHORTEST[::-1], None)):
        change = {"current_password": SHORTEST, "new_password": new}
        answer = (await post_json(lenient.port, "/v1/account/password", change, *identity)).json()
        assert answer["code"] == 0 if expected is None else answer["msg"] == expected


async def test_in_the_console(lenient: LocalServer) -> None:
    owner = await sign_in(lenient, "owner", Role.OWNER)
    profile = {"tokens": 0, "email": "", "pictimes": 0, "academy": ""}
    new_profile = {f"new_{name}": value for name, value in profile.items()}

    async def outcomes(password: str) -> list[object]:
        calls: list[tuple[str, dict[str, object]]] = [
            ("add_normal_user", {"username": "小红", "password": password, **profile}),
            (
                "modify_normal_user",
                {
                    "target_user": "小红",
                    "new_user_info": {"new_username": "小红", "new_password": password, **new_profile},
                },
            ),
            ("add_admin", {"admin": "helper", "password": password}),
            ("modify_admin", {"target_admin": "helper", "new_password": password}),
        ]
        return [
            COMPLAINT in answer["msg"] or answer["code"]
            for path, body in calls
            for answer in [await owner.post(path, body)]
        ]

    assert await outcomes(TOO_SHORT) == [True] * 4
    assert await outcomes(SHORTEST) == [0] * 4
    assert (await Console(lenient.port).login("helper", SHORTEST))["code"] == 0


async def test_on_the_page_that_letters_open(lenient: LocalServer) -> None:
    page = await wire.request(lenient.port, "GET", "/mail", [], b"")
    assert f'minlength="{len(SHORTEST)}"'.encode() in page.body


async def test_it_is_eight_unless_set(server: LocalServer) -> None:
    assert (await register(server, "shy", SHORTEST + "x"))["msg"] == "密码至少需要 8 个字符"
