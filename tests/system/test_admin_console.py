"""The original's admin console against the server, request for request.

The console calls three addresses; the original serves seventeen, and other programs may call those. Sources: the
original's clients, sections 8 and 11 (its bugs, by their numbers).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aiproject.accounts.login.throttle_rules import NAME_RULE
from aiproject.adapters.db.schema import login_guard
from aiproject.administration.model import Role
from aiproject.audit.service import AuditLog
from system import wire
from system.administrators import ADMIN_PASSWORD, CONSOLE_ORIGIN, Console, administrator, sign_in
from system.harness import PASSWORD, LocalServer, Platform, open_account, post_json

NEW_USER = {
    "username": "",
    "password": PASSWORD,
    "tokens": 500,
    "email": "new@example.com",
    "pictimes": 7,
    "academy": "文院",
}

_made = 0


def fresh(word: str) -> str:
    """A name that no other test has."""
    global _made
    _made += 1
    return f"{word}{_made}"


@pytest.fixture
async def owner(server: LocalServer) -> Console:
    return await sign_in(server, fresh("owner"), Role.OWNER)


@pytest.fixture
async def admin(server: LocalServer) -> Console:
    return await sign_in(server, fresh("admin"), Role.ADMIN)


async def add_user(console: Console, **fields: Any) -> str:
    name = fresh("user")
    assert await console.post("add_normal_user", NEW_USER | {"username": name, **fields}) == {
        "code": 0,
        "msg": "添加用户成功",
    }
    return name


async def login_of(server: LocalServer, name: str, password: str = PASSWORD) -> Any:
    return (await post_json(server.port, "/auth/login", {"username": name, "password": password})).json()


class TestCors:
    @pytest.mark.parametrize("path", ["/admin/login", "/admin/refresh", "/admin/modify_admin", "/admin/nope"])
    async def test_preflight(self, server: LocalServer, path: str) -> None:
        answer = await wire.request(
            server.port,
            "OPTIONS",
            path,
            [
                ("Origin", CONSOLE_ORIGIN),
                ("Access-Control-Request-Method", "POST"),
                ("Access-Control-Request-Headers", "authorization,content-type"),
            ],
        )
        assert answer.status == 200
        assert answer.header("access-control-allow-origin") in ("*", CONSOLE_ORIGIN)
        allowed = (answer.header("access-control-allow-headers") or "").lower()
        assert "authorization" in allowed
        assert "content-type" in allowed
        assert "POST" in (answer.header("access-control-allow-methods") or "")
        assert answer.header("access-control-allow-credentials") is None

    async def test_the_origin_is_on_refusals_too(self, server: LocalServer) -> None:
        console = Console(server.port)
        for answer in (
            await console.call("GET", "/admin/refresh"),
            await console.call("GET", "/admin/query_table?table=user&query_range=1&start=0"),
            await console.call("POST", "/admin/login", {"admin": "x", "password": "y"}),
        ):
            assert answer.header("access-control-allow-origin") in ("*", CONSOLE_ORIGIN)


class TestJwtLayer:
    """Answers of the original's JWT layer: ``msg`` alone."""

    async def test_before_any_login_the_console_asks_with_the_word_null(self, server: LocalServer) -> None:
        answer = await Console(server.port).call("GET", "/admin/refresh")
        assert (answer.status, answer.json()) == (422, {"msg": "Not enough segments"})

    async def test_no_header_and_other_schemes(self, server: LocalServer) -> None:
        answer = await wire.request(server.port, "GET", "/admin/refresh", [])
        assert (answer.status, answer.json()) == (401, {"msg": "Missing Authorization Header"})
        answer = await wire.request(server.port, "GET", "/admin/refresh", [("Authorization", "Basic eDp5")])
        assert answer.status == 401
        assert set(answer.json()) == {"msg"}

    async def test_each_token_is_for_its_own_purpose(self, server: LocalServer, owner: Console) -> None:
        answer = await owner.call("GET", "/admin/refresh", token=owner.access)
        assert (answer.status, answer.json()) == (422, {"msg": "Only refresh tokens are allowed"})
        answer = await owner.call("GET", "/admin/query_table_count?table=user", token=owner.refresh)
        assert (answer.status, answer.json()) == (422, {"msg": "Only non-refresh tokens are allowed"})

    @pytest.mark.parametrize("cut", [0, 1, 2])
    async def test_a_changed_token_is_no_token(self, owner: Console, cut: int) -> None:
        parts = owner.access.split(".")
        parts[cut] = parts[cut][:-2] + ("AA" if parts[cut][-2:] != "AA" else "BB")
        answer = await owner.call("GET", "/admin/query_table_count?table=user", token=".".join(parts))
        assert answer.status == 422
        assert set(answer.json()) == {"msg"}


class TestLogin:
    async def test_what_the_console_reads(self, server: LocalServer, platform: Platform) -> None:
        name = fresh("owner")
        await administrator(server.settings, name, Role.OWNER)
        told = await Console(server.port).login(name)
        assert told["code"] == 0
        assert told["msg"] == "管理员登录成功"
        assert told["access_token"].count(".") == told["refresh_token"].count(".") == 2
        assert set(told["app_info"]) == {"app_id", "api_key", "api_secret"}
        for secret in (platform.address.app_id, platform.address.api_key, platform.address.api_secret):
            assert secret not in str(told)

    async def test_wrong_and_unknown_are_the_same(self, server: LocalServer) -> None:
        name = fresh("owner")
        await administrator(server.settings, name, Role.OWNER)
        console = Console(server.port)
        refused = {"code": "LOGIN_ERROR", "msg": "登录失败"}
        assert await console.login(name, "wrong") == refused
        assert await console.login(fresh("nobody"), "wrong") == refused

    @pytest.mark.parametrize(
        "body", [{}, {"admin": "x"}, {"admin": None, "password": "x"}, {"admin": 5, "password": 6}, []]
    )
    async def test_half_a_login(self, server: LocalServer, body: object) -> None:
        assert await Console(server.port).post("login", body) == {"code": "LOGIN_ERROR", "msg": "管理员登录错误"}

    async def test_failures_in_a_row_are_slowed_down_and_the_console_says_for_how_long(
        self, server: LocalServer
    ) -> None:  # fmt: skip
        """It shows ``msg`` of an answer with HTTP 200, and nothing of any other."""
        name = fresh("owner")
        await administrator(server.settings, name, Role.OWNER)
        console = Console(server.port)
        for _ in range(NAME_RULE.free + 1):
            await console.call("POST", "/admin/login", {"admin": name, "password": "wrong"})
        later = login_guard.c.blocked_until + 600_000  # a second's delay may be over on a busy machine
        async with server.database() as database, database.begin() as connection:
            names = login_guard.update().where(login_guard.c.realm == "admin:name")
            await connection.execute(names.values(blocked_until=later))
        answer = await console.call("POST", "/admin/login", {"admin": name, "password": ADMIN_PASSWORD})
        assert (answer.status, answer.json()["code"]) == (200, "LOGIN_ERROR")
        seconds = int(answer.header("retry-after") or 0)
        assert seconds > 0
        assert answer.json()["msg"] == f"失败次数过多，请在 {seconds} 秒后再试"

    async def test_a_limit_is_told_where_the_console_reads_it(self, start_server: Callable[..., LocalServer]) -> None:
        server = start_server(limits="on", address_requests_per_minute=1)
        console = Console(server.port)
        await console.call("POST", "/admin/login", {})
        for path, code in (("login", "LOGIN_ERROR"), ("modify_admin", "MODIFY_ADMIN_ERROR")):
            answer = await console.call("POST", f"/admin/{path}", {})
            assert (answer.status, answer.json()["code"]) == (200, code)
            assert "秒后再试" in answer.json()["msg"]
        answer = await console.call("GET", "/admin/query_table_count?table=user")
        assert answer.status == 429

    async def test_refresh(self, owner: Console) -> None:
        answer = await owner.call("GET", "/admin/refresh", token=owner.refresh)
        told = answer.json()
        assert (answer.status, told["code"], told["msg"]) == (200, 0, "刷新令牌成功")
        owner.access = told["access_token"]
        assert (await owner.get("query_table_count", table="user"))["code"] == 0

    async def test_logout_ends_both_tokens(self, owner: Console) -> None:
        assert (await owner.post("logout", {}))["code"] == 0
        for path, token in (("query_table_count?table=user", owner.access), ("refresh", owner.refresh)):
            answer = await owner.call("GET", f"/admin/{path}", token=token)
            assert (answer.status, answer.json()) == (401, {"msg": "Token has been revoked"})


class TestModifyAdmin:
    """Bugs 26 and 27."""

    async def test_after_renaming_itself_the_console_goes_on_with_its_token(self, server: LocalServer) -> None:
        old, new = fresh("owner"), fresh("renamed")
        console = await sign_in(server, old, Role.OWNER)
        changed = await console.post("modify_admin", {"target_admin": old, "new_name": new})
        assert changed == {"code": 0, "msg": "修改用户信息成功"}
        assert (await console.get("query_table_data", table="admin", target_name=new))["data"]["Admin"] == new
        assert (await console.post("modify_admin", {"target_admin": new, "new_name": old}))["code"] == 0
        assert (await console.call("GET", "/admin/refresh", token=console.refresh)).status == 200

    @pytest.mark.parametrize("role", list(Role))
    async def test_everybody_changes_their_own_password(self, server: LocalServer, role: Role) -> None:
        name = fresh("self")
        console = await sign_in(server, name, role)
        change = {"target_admin": name, "new_password": "quite another horse"}
        assert (await console.post("modify_admin", change))["code"] == 0
        assert (await console.call("GET", "/admin/refresh", token=console.refresh)).status == 200
        assert (await console.login(name))["code"] == "LOGIN_ERROR"
        assert (await console.login(name, "quite another horse"))["code"] == 0

    @pytest.mark.parametrize("change", [{"new_password": "quite another horse"}, {"new_name": "renamed"}])
    async def test_a_change_of_oneself_keeps_this_session_only(
        self, server: LocalServer, owner: Console, change: dict[str, str]
    ) -> None:
        name = fresh("self")
        console = await sign_in(server, name, Role.ADMIN)
        elsewhere = Console(server.port)
        assert (await elsewhere.login(name))["code"] == 0
        change = {field: fresh(value) for field, value in change.items()}
        assert (await console.post("modify_admin", {"target_admin": name, **change}))["code"] == 0
        assert (await console.get("query_table_count", table="user"))["code"] == 0
        console.access = (await console.call("GET", "/admin/refresh", token=console.refresh)).json()["access_token"]
        assert (await console.get("query_table_count", table="user"))["code"] == 0
        for path, token in (("query_table_count?table=user", elsewhere.access), ("refresh", elsewhere.refresh)):
            answer = await elsewhere.call("GET", f"/admin/{path}", token=token)
            assert (answer.status, answer.json()) == (401, {"msg": "Token has been revoked"})
        reset = {"target_admin": change.get("new_name", name), "new_password": "set by the owner"}
        assert (await owner.post("modify_admin", reset))["code"] == 0
        assert (await console.call("GET", "/admin/refresh", token=console.refresh)).status == 401

    async def test_of_two_changes_at_once_one_session_is_left(self, server: LocalServer) -> None:
        name = fresh("twice")
        consoles = [await sign_in(server, name, Role.ADMIN), Console(server.port)]
        assert (await consoles[1].login(name))["code"] == 0
        passwords = ["the first new horse", "the second new horse"]
        await asyncio.gather(
            *(
                console.call("POST", "/admin/modify_admin", {"target_admin": name, "new_password": password})
                for console, password in zip(consoles, passwords, strict=True)
            )
        )
        alive = [(await console.call("GET", "/admin/refresh", token=console.refresh)).status for console in consoles]
        assert sorted(alive) == [200, 401]
        winner = passwords[alive.index(200)]
        assert (await Console(server.port).login(name, winner))["code"] == 0

    @pytest.mark.parametrize("role", [Role.ADMIN, Role.AUDITOR])
    async def test_nobody_else_s(self, server: LocalServer, role: Role) -> None:
        other = fresh("other")
        await administrator(server.settings, other, Role.AUDITOR)
        console = await sign_in(server, fresh("self"), role)
        refused = {"code": "PERMISSION_NOT_ALLOW", "msg": "权限不足"}
        for target in (other, fresh("nobody")):
            assert await console.post("modify_admin", {"target_admin": target, "new_password": "xxxxxxxxx"}) == refused

    async def test_refusals(self, server: LocalServer, owner: Console) -> None:
        name, taken = fresh("a"), fresh("b")
        await administrator(server.settings, name, Role.ADMIN)
        await administrator(server.settings, taken, Role.ADMIN)
        for body, code, msg in (
            ({"target_admin": fresh("nobody"), "new_name": "x"}, "USER_NOT_FOUND", "找不到目标用户"),
            ({"target_admin": name, "new_name": taken.upper()}, "USER_NAME_REPEAT", "用户名已存在"),
            ({"new_name": "x"}, "MODIFY_ADMIN_ERROR", "修改管理员信息错误"),
            ({"target_admin": name, "new_name": 5}, "MODIFY_ADMIN_ERROR", "修改管理员信息错误"),
        ):
            assert await owner.post("modify_admin", body) == {"code": code, "msg": msg}
        weak = await owner.post("modify_admin", {"target_admin": name, "new_password": "short"})
        assert weak["code"] == "MODIFY_ADMIN_ERROR"

    async def test_the_deleted_are_out_at_once(self, server: LocalServer, owner: Console) -> None:
        name = fresh("gone")
        console = await sign_in(server, name, Role.ADMIN)
        assert await owner.post("delete_admin", {"target_admin": name}) == {"code": 0, "msg": f"{name} 删除成功"}
        for path, token in (("query_table_count?table=user", console.access), ("refresh", console.refresh)):
            assert (await console.call("GET", f"/admin/{path}", token=token)).status == 401
        again = await owner.post("delete_admin", {"target_admin": name})
        assert again == {"code": "USER_NOT_FOUND", "msg": "目标用户不存在或权限不足"}

    async def test_no_owner_is_deleted_here(self, server: LocalServer, owner: Console) -> None:
        name = fresh("peer")
        await administrator(server.settings, name, Role.OWNER)
        refused = {"code": "USER_NOT_FOUND", "msg": "目标用户不存在或权限不足"}
        assert await owner.post("delete_admin", {"target_admin": name}) == refused

    async def test_another_role_takes_effect_at_once(self, server: LocalServer, owner: Console) -> None:
        name = fresh("promoted")
        console = await sign_in(server, name, Role.AUDITOR)
        assert (await owner.post("modify_admin", {"target_admin": name, "new_role": "admin"}))["code"] == 0
        assert (await console.call("GET", "/admin/query_table_count?table=user")).status == 401
        assert (await console.login(name))["role"] == "admin"

    async def test_adding(self, server: LocalServer, owner: Console) -> None:
        name = fresh("added")
        assert await owner.post("add_admin", {"admin": name, "password": ADMIN_PASSWORD}) == {
            "code": 0,
            "msg": "添加管理员成功",
        }
        row = (await owner.get("query_table_data", table="admin", target_name=name))["data"]
        assert (row["Auth"], row["Role"]) == (0, "admin")
        again = await owner.post("add_admin", {"admin": name.upper(), "password": ADMIN_PASSWORD})
        assert again == {"code": "USER_NAME_REPEAT", "msg": "管理员用户名已存在"}
        assert await owner.post("add_admin", {"admin": name}) == {"code": "ADD_ADMIN_ERROR", "msg": "添加管理员失败"}
        auditor = {"admin": fresh("aud"), "password": ADMIN_PASSWORD, "role": "auditor"}
        assert (await owner.post("add_admin", auditor))["code"] == 0
        assert (await owner.post("add_admin", auditor | {"admin": fresh("x"), "role": "king"}))[
            "code"
        ] == "ADD_ADMIN_ERROR"


class TestUsers:
    async def test_adding(self, server: LocalServer, admin: Console) -> None:
        name = await add_user(admin)
        found = await login_of(server, name)
        assert (found["tokens"], found["picTimes"], found["academy"]) == (500, 7, "文院")
        again = await admin.post("add_normal_user", NEW_USER | {"username": name.upper()})
        assert again == {"code": "USER_NAME_REPEAT", "msg": "用户名已存在"}

    @pytest.mark.parametrize("field", sorted(NEW_USER))
    async def test_every_field_is_required(self, admin: Console, field: str) -> None:
        body = {name: value for name, value in (NEW_USER | {"username": fresh("user")}).items() if name != field}
        assert await admin.post("add_normal_user", body) == {"code": "ADD_USER_ERROR", "msg": "添加用户失败"}

    @pytest.mark.parametrize("tokens", [-1, 1.5, True, "many", None, 10**16, "-5", [1]])
    async def test_numbers_are_numbers(self, admin: Console, tokens: object) -> None:
        body = NEW_USER | {"username": fresh("user"), "tokens": tokens}
        assert (await admin.post("add_normal_user", body))["code"] == "ADD_USER_ERROR"

    async def test_a_weak_password_is_refused_with_the_reason(self, admin: Console) -> None:
        told = await admin.post("add_normal_user", NEW_USER | {"username": fresh("user"), "password": "12345678"})
        assert told["code"] == "ADD_USER_ERROR"
        assert told["msg"].startswith("添加用户失败：")

    async def test_modifying_keeps_the_uuid(self, server: LocalServer, admin: Console) -> None:
        """Bug 24: the original gave a new one, which locked the user's app out."""
        name, new = await add_user(admin), fresh("renamed")
        before = await login_of(server, name)
        info = {
            "new_username": new,
            "new_password": "an entirely new horse",
            "new_tokens": 40,
            "new_email": "n@example.com",
            "new_pictimes": 9,
            "new_academy": "理院",
        }
        told = await admin.post("modify_normal_user", {"target_user": name, "new_user_info": info})
        assert told == {"code": 0, "msg": "修改用户信息成功"}
        after = await login_of(server, new, "an entirely new horse")
        assert after["uuid"] == before["uuid"]
        assert (after["tokens"], after["picTimes"], after["email"], after["academy"]) == (
            40,
            9,
            "n@example.com",
            "理院",
        )
        assert (await login_of(server, name))["code"] == "LOGIN_ERROR"
        await server.assert_books_add_up()

    @pytest.mark.parametrize("unchanged", ["", "********"])
    async def test_the_mask_is_no_password(self, server: LocalServer, admin: Console, unchanged: str) -> None:
        """An edit form sends back what the list showed."""
        name = await add_user(admin)
        info = {
            "new_username": name,
            "new_password": unchanged,
            "new_tokens": 500,
            "new_email": "",
            "new_pictimes": "7",
            "new_academy": "",
        }
        assert (await admin.post("modify_normal_user", {"target_user": name, "new_user_info": info}))["code"] == 0
        assert (await login_of(server, name))["code"] == 0

    async def test_refusals(self, admin: Console) -> None:
        name, taken = await add_user(admin), await add_user(admin)
        info = {
            "new_username": name,
            "new_password": PASSWORD,
            "new_tokens": 1,
            "new_email": "",
            "new_pictimes": 1,
            "new_academy": "",
        }
        for target, change, code, msg in (
            (fresh("nobody"), {}, "USER_NOT_FOUND", "找不到目标用户"),
            (name, {"new_username": taken}, "USER_NAME_REPEAT", "用户名已存在"),
            (name, {"new_tokens": -1}, "MODIFY_USER_ERROR", "修改用户消息错误"),
            (name, {"new_email": 5}, "MODIFY_USER_ERROR", "修改用户消息错误"),
        ):
            body = {"target_user": target, "new_user_info": info | change}
            assert await admin.post("modify_normal_user", body) == {"code": code, "msg": msg}
        for field in info:
            short = {key: value for key, value in info.items() if key != field}
            told = await admin.post("modify_normal_user", {"target_user": name, "new_user_info": short})
            assert told["code"] == "MODIFY_USER_ERROR", field
        assert (await admin.post("modify_normal_user", {"target_user": name}))["code"] == "MODIFY_USER_ERROR"

    async def test_deleting_one_who_has_redeemed(self, server: LocalServer, owner: Console) -> None:
        """Bug 25: the original could not."""
        name, code = await add_user(owner), fresh("code")
        person = await login_of(server, name)
        token = {"token_name": code, "token_limit": {"tokens": 5, "pictimes": 1}, "token_range": "", "token_id": code}
        assert (await owner.post("add_token", token))["code"] == 0
        redeem = {"token_id": code, "user_id": person["uuid"], "user_academy": ""}
        assert (await post_json(server.port, "/user/get_token", redeem)).json()["code"] == 0
        total = (await owner.get("query_table_count", table="user"))["total_count"]
        told = await owner.post("delete_normal_user", {"target_username": name})
        assert told == {"code": 0, "msg": f"{name} 删除成功"}
        assert (await login_of(server, name))["code"] == "LOGIN_ERROR"
        call = {"uuid": person["uuid"], "username": name, "dialog": [{"role": "user", "content": "hi"}]}
        assert (await post_json(server.port, "/textModel/chat", call)).json()["code"] == "USER_NOT_FOUND"
        assert (await post_json(server.port, "/user/get_token", redeem)).json()["code"] == "USER_GET_TOKEN_ERROR"
        assert (await owner.get("query_table_count", table="user"))["total_count"] == total - 1
        missing = {"code": "USER_NOT_FOUND", "msg": "目标用户不存在"}
        assert await owner.post("delete_normal_user", {"target_username": name}) == missing
        assert await owner.post("delete_normal_user", {}) == {"code": "DELETE_USER_ERROR", "msg": "目标用户删除失败"}
        assert (await owner.post("delete_token", {"target_token": code}))["msg"] == f"{code} 删除成功"
        await open_account(server.port, name)  # the name is free again
        await server.assert_books_add_up()


class TestTokens:
    async def test_life_of_a_token(self, server: LocalServer, owner: Console) -> None:
        code = fresh("NEW-TERM-")
        token = {"token_name": code, "token_limit": {"tokens": 100}, "token_range": "文院"}
        assert await owner.post("add_token", token) == {"code": 0, "msg": "创建令牌成功"}
        assert await owner.post("add_token", token) == {"code": "TOKEN_REPEAT", "msg": "令牌重名"}
        row = (await owner.get("query_table_data", table="token", target_name=code))["data"]
        assert row == {
            "Id": row["Id"],
            "Tokens": 100,
            "PicTimes": 0,
            "TokenRange": "文院",
            "Name": code,
            "Available": 1,
        }
        assert len(row["Id"]) == 19
        off = await owner.get("control_token", is_available=0, token_name=code)
        assert off == {"code": 0, "msg": "令牌禁用成功"}
        assert (await owner.get("query_table_data", table="token", target_name=code))["data"]["Available"] == 0
        assert (await owner.get("control_token", is_available=1, token_name=code))["msg"] == "令牌启用成功"
        change = {
            "target_token": code,
            "new_token_limit": {"tokens": 7, "pictimes": 2},
            "new_token_range": "",
            "new_token_is_available": 1,
        }
        assert await owner.post("modify_token", change) == {"code": 0, "msg": "令牌修改成功"}
        person = await server.person(fresh("redeemer"))
        redeem = {"token_id": code, "user_id": person.uuid, "user_academy": "理院"}
        # The name is a label that everybody may know; users redeem the Id.
        told = (await post_json(server.port, "/user/get_token", redeem)).json()
        assert told["code"] == "TOKEN_NOT_FOUNDUSER_NOT_FOUND"
        redeem["token_id"] = row["Id"]
        before = await person.tokens()
        assert (await post_json(server.port, "/user/get_token", redeem)).json()["code"] == 0
        assert await person.tokens() == before + 7
        assert await owner.post("delete_token", {"target_token": code}) == {"code": 0, "msg": f"{code} 删除成功"}

    async def test_a_code_of_one_s_own(self, owner: Console) -> None:
        name, code = fresh("own"), fresh("OWN-CODE-")
        token = {"token_name": name, "token_limit": {"tokens": 1}, "token_range": "", "token_id": code.lower()}
        assert (await owner.post("add_token", token))["code"] == 0
        assert (await owner.get("query_table_data", table="token", target_name=name))["data"]["Id"] == code.upper()
        assert (await owner.post("add_token", token | {"token_name": fresh("other")}))["code"] == "TOKEN_REPEAT"
        assert (await owner.post("add_token", token | {"token_id": "two words"}))["code"] == "ADD_TOKEN_ERROR"

    @pytest.mark.parametrize("table", ["user", "admin", "token"])
    async def test_ids_are_texts(self, server: LocalServer, owner: Console, table: str) -> None:
        await server.person(fresh("somebody"))
        token = {"token_name": fresh("id"), "token_limit": {"tokens": 1}, "token_range": ""}
        assert (await owner.post("add_token", token))["code"] == 0
        rows = (await owner.get("query_table", table=table, query_range=500, start=0))["data"]
        assert rows
        assert {type(row["Id"]) for row in rows} == {str}

    async def test_refusals(self, owner: Console) -> None:
        nothing = fresh("NOTHING-")
        change = {
            "target_token": nothing,
            "new_token_limit": {"tokens": 7, "pictimes": 2},
            "new_token_range": "",
            "new_token_is_available": 1,
        }
        assert await owner.post("modify_token", change) == {"code": "TOKEN_NOT_FOUND", "msg": "找不到目标令牌"}
        assert (await owner.post("modify_token", {"target_token": nothing}))["code"] == "MODIFY_TOKEN_ERROR"
        gone = {"code": "TOKEN_NOT_FOUND", "msg": "目标令牌不存在或权限不足"}
        assert await owner.post("delete_token", {"target_token": nothing}) == gone
        assert (await owner.post("delete_token", {}))["code"] == "DELETE_TOKEN_ERROR"
        missing = await owner.get("control_token", is_available=1, token_name=nothing)
        assert missing == {"code": "TOKEN_NOT_FOUND", "msg": "找不到目标令牌"}
        odd = await owner.get("control_token", is_available=2, token_name=nothing)
        assert odd == {"code": "CONTROL_TOKEN_ERROR", "msg": "修改令牌状态信息失败"}
        for body in (
            {"token_name": nothing, "token_limit": {}, "token_range": ""},
            {"token_name": nothing, "token_limit": {"tokens": -1}, "token_range": ""},
            {"token_name": "x" * 101, "token_limit": {"tokens": 1}, "token_range": ""},
            {"token_name": "a\0b", "token_limit": {"tokens": 1}, "token_range": ""},
            {"token_name": nothing, "token_limit": {"tokens": 1}},
            {"token_name": nothing, "token_limit": "many", "token_range": ""},
        ):
            assert await owner.post("add_token", body) == {"code": "ADD_TOKEN_ERROR", "msg": "添加令牌失败"}


class TestTables:
    async def test_pages_and_counts_of_users(self, server: LocalServer, admin: Console) -> None:
        mark = fresh("paged")
        names = [f"{mark}-{number}" for number in range(5)]
        for name in names:
            await add_user(admin, username=name)
        count = await admin.get("query_table_count", table="user", search=f"{mark}-")
        assert count == {"code": 0, "msg": "查询5条信息成功", "total_count": 5}
        pages = []
        for start in (0, 2, 4):
            page = await admin.get("query_table", table="user", query_range=2, start=start, search=f"{mark}-")
            assert page["msg"] == f"查询{len(page['data'])}条信息成功"
            pages += page["data"]
        assert sorted(row["UserName"] for row in pages) == names
        row = pages[0]
        assert list(row) == ["Id", "UserName", "PassWord", "Tokens", "Email", "PicTimes", "Academy"]
        person = await login_of(server, row["UserName"])
        assert row["Id"] != person["uuid"]
        assert row["Id"].isdigit()
        assert (row["PassWord"], row["Tokens"], row["PicTimes"]) == ("********", 500, 7)

    async def test_search_takes_wildcards_literally(self, admin: Console) -> None:
        mark = fresh("wild")
        for name in (f"{mark}%x", f"{mark}_x", f"{mark}ax"):
            await add_user(admin, username=name)
        for search, found in ((f"{mark}%", 1), (f"{mark}_", 1), (mark, 3), ("%", None), (f"{mark}' OR '1'='1", 0)):
            count = (await admin.get("query_table_count", table="user", search=search))["total_count"]
            if found is not None:
                assert count == found, search

    async def test_admins(self, server: LocalServer, owner: Console) -> None:
        name = fresh("listed")
        await administrator(server.settings, name, Role.OWNER)
        row = (await owner.get("query_table_data", table="admin", target_name=name))["data"]
        assert {key: row[key] for key in ("Auth", "Admin", "PassWord", "Role")} == {
            "Auth": 1,
            "Admin": name,
            "PassWord": "********",
            "Role": "owner",
        }
        page = await owner.get("query_table", table="admin", query_range=500, start=0)
        assert name in [each["Admin"] for each in page["data"]]

    async def test_refusals(self, owner: Console) -> None:
        unknown = {"code": "TABLE_NOT_FOUND", "msg": "未查询到指定表"}
        for table in ("", "users", "administrator", "user; DROP TABLE user", "sqlite_master"):
            assert await owner.get("query_table", table=table, query_range=1, start=0) == unknown
            assert await owner.get("query_table_count", table=table) == unknown
            assert await owner.get("query_table_data", table=table, target_name="x") == unknown
        failed = {"code": "QUERY_TABLE_ERROR", "msg": "查询时遇到错误"}
        for query in (
            {},
            {"query_range": "x", "start": 0},
            {"query_range": 1, "start": -1},
            {"query_range": "1 OR 1", "start": 0},
        ):
            assert await owner.get("query_table", table="user", **query) == failed
        none = {"code": "QUERY_TABLE_DATA_ERROR", "msg": "查询时遇到错误"}
        assert await owner.get("query_table_data", table="user", target_name=fresh("nobody")) == none
        assert await owner.get("query_table_data", table="user") == none

    async def test_an_auditor_sees_no_codes(self, server: LocalServer, owner: Console) -> None:
        auditor = await sign_in(server, fresh("auditor"), Role.AUDITOR)
        code = fresh("SECRET-CODE-")
        token = {"token_name": fresh("hidden"), "token_id": code, "token_limit": {"tokens": 1}, "token_range": ""}
        assert (await owner.post("add_token", token))["code"] == 0
        page = await auditor.get("query_table", table="token", query_range=500, start=0)
        assert page["data"]
        assert code not in str(page)


class TestConsoleTest:
    async def test_the_model_is_asked_once(self, server: LocalServer, admin: Console, platform: Platform) -> None:
        """Bug 15: the original asked twice and doubled the dialog."""
        before = platform.counts("chat")["seen"]
        dialog = [{"role": "user", "content": "你好"}]
        told = await admin.post("console_test", {"dialog": dialog, "limit": 100, "top_k": 3, "temperature": 0.4})
        assert (told["code"], told["msg"]) == (0, "文本模型回复成功")
        assert told["content"]
        assert told["consume_token"] > 0
        assert platform.counts("chat")["seen"] == before + 1
        sent = platform.last("chat")
        assert (sent["max_tokens"], sent["top_k"], sent["temperature"]) == (100, 3, 0.4)

    async def test_numbers_are_brought_into_bounds(self, admin: Console, platform: Platform) -> None:
        """Bug 16: the sliders go from 0 to 10 and from 0 to 1."""
        dialog = [{"role": "system", "content": ""}, {"role": "user", "content": "你好"}]
        body = {"dialog": dialog, "limit": 0, "top_k": 10, "temperature": 0}
        assert (await admin.post("console_test", body))["code"] == 0
        sent = platform.last("chat")
        assert (sent["max_tokens"], sent["top_k"]) == (1, 6)
        assert 0 < sent["temperature"] <= 1

    async def test_failures(self, admin: Console, platform: Platform) -> None:
        failed = {"code": "MODEL_ERROR", "msg": "回复失败"}
        dialog = [{"role": "user", "content": "hi"}]
        for body in (
            {},
            {"dialog": dialog, "limit": "x", "top_k": 1, "temperature": 1},
            {"dialog": [], "limit": 1, "top_k": 1, "temperature": 1},
            {"dialog": [{"role": "king", "content": "hi"}], "limit": 1, "top_k": 1, "temperature": 1},
            {"dialog": "hi", "limit": 1, "top_k": 1, "temperature": 1},
        ):
            assert await admin.post("console_test", body) == failed
        platform.order("chat", "error", code=10013)
        told = await admin.post("console_test", {"dialog": dialog, "limit": 9, "top_k": 1, "temperature": 1})
        assert told == failed


class TestAudit:
    async def test_acts_are_told_with_before_and_after(self, server: LocalServer) -> None:
        boss = fresh("owner")
        owner = await sign_in(server, boss, Role.OWNER)
        name = await add_user(owner)
        await owner.post("delete_normal_user", {"target_username": name})
        told = await owner.get("audit", actor=boss, limit=10)
        actions = [each["action"] for each in told["data"]]
        assert actions[0] == "user.delete"
        assert {"user.add", "user.grant", "admin.login"} <= set(actions)
        assert all(each["actor_kind"] == "administrator" and each["address"] == "127.0.0.1" for each in told["data"])
        assert (await owner.get("audit", actor=boss, action="user.delete"))["data"][0]["target"] == name
        assert PASSWORD not in str(told)

    async def test_pages(self, owner: Console) -> None:
        first = await owner.get("audit", limit=2)
        assert first["next"] == first["data"][1]["seq"]
        second = await owner.get("audit", limit=2, before=first["next"])
        assert second["data"][0]["seq"] == first["next"] - 1

    async def test_export(self, owner: Console) -> None:
        answer = await owner.call("GET", "/admin/audit/export?format=csv&action=admin.login")
        assert answer.status == 200
        assert (answer.header("content-type") or "").startswith("text/csv")
        body = answer.body or b"".join(chunk.data for chunk in answer.chunks)
        lines = body.decode().splitlines()
        assert lines[0].startswith("seq,at,actor_kind,actor,action,target")
        assert len(lines) > 1
        assert (await owner.get("audit/export", format="xml"))["code"] == "QUERY_TABLE_ERROR"

    async def test_many_at_once_lose_nothing(self, server: LocalServer, owner: Console) -> None:
        names = await asyncio.gather(*(add_user(owner) for _ in range(10)))
        async with server.database() as database:
            assert [each async for each in AuditLog(database).verify()] == []
        for name in names:
            assert (await owner.get("audit", target=name, action="user.add"))["data"]
