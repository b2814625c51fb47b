"""The administration's addresses, as the original's console calls them, and the few that are ours."""

from __future__ import annotations

from typing import Any

from aiproject.codes import Code
from aiproject.messages.formatting import Language, format_message
from aiproject.protocols.legacy import LIMITS_TOLD_WITH_200
from aiproject.web.openapi.parts import (
    CHOSEN_PASSWORD,
    FAULTS,
    PASSWORD,
    PASSWORD_RULE,
    Schema,
    answers,
    json_content,
    object_of,
    success,
)

__all__ = ["SECURITY_SCHEMES", "paths"]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 10**15}
ROLE: Schema = {"type": "string", "enum": ["owner", "admin", "auditor"]}
ADMIN: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 50,
    "description": "管理员用户名",
    "examples": ["admin"],
}
SECRET: Schema = {**PASSWORD, "description": "管理员密码"}
NEW_SECRET: Schema = {**CHOSEN_PASSWORD, "description": f"管理员密码，{PASSWORD_RULE}"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
FLAG: Schema = {"enum": [0, 1, True, False], "description": "1 启用，0 禁用"}
JWT: Schema = {"type": "string", "description": "JWT"}

ROLES = {
    "everybody": "所有管理员（owner、admin、auditor）",
    "managers": "owner、admin",
    "owners": "仅 owner",
    "readers": "owner、auditor",
}

REFUSED_JWT: dict[str, Any] = {
    status: {
        "description": description,
        "content": json_content(object_of({"msg": TEXT}), {"例": {"msg": example}}),
    }
    for status, description, example in (
        ("401", "没有 JWT、已过期或已失效", "Missing Authorization Header"),
        ("422", "JWT 无法识别、签名不符或类型不对", "Not enough segments"),
    )
}


def _operation(
    name: str,
    summary: str,
    success_schema: Schema,
    example: dict[str, Any],
    codes: list[Code],
    *,
    role: str | None = None,
    body: Schema | None = None,
    body_example: dict[str, Any] | None = None,
    query: dict[str, tuple[Schema, bool]] | None = None,
    messages: dict[Code, str] | None = None,
    limited: bool = False,
    limit_code: Code | None = None,
) -> dict[str, Any]:
    """Describe one operation.

    Args:
        role: a key of `ROLES`; ``None``: no JWT is needed.
        query: parameters with their schemas, and whether they are required.
        messages: where this address says something else than the code's own message.
        limit_code: see `answers`.
    """
    responses = answers(success_schema, codes, example, limited=limited, limit_code=limit_code)
    examples = responses["200"]["content"]["application/json"]["examples"]
    for code, msg in (messages or {}).items():
        examples[str(code)] = {"value": {"code": str(code), "msg": msg}}
    operation: dict[str, Any] = {
        "tags": ["管理"],
        "summary": summary,
        "operationId": name,
        "responses": responses,
    }
    if role is not None:
        operation["description"] = f"权限：{ROLES[role]}"
        operation["security"] = [{"adminJwt": []}]
        responses |= REFUSED_JWT
    if body is not None:
        content = json_content(body, {"例": body_example} if body_example else None)
        operation["requestBody"] = {"required": True, "content": content}
    if query is not None:
        operation["parameters"] = [
            {"name": each, "in": "query", "required": is_required, "schema": schema}
            for each, (schema, is_required) in query.items()
        ]
    return operation


def _plain(msg: str) -> tuple[Schema, dict[str, Any]]:
    return success(msg, {}), {"code": 0, "msg": msg}


def _session_paths() -> dict[str, Any]:
    app_info = object_of({"app_id": TEXT, "api_key": TEXT, "api_secret": TEXT}, description="已打码，仅保留结构")
    masked = {"app_id": "ab********", "api_key": "********", "api_secret": "********"}
    signed_in = success(
        "管理员登录成功", {"access_token": JWT, "refresh_token": JWT, "app_info": app_info, "role": ROLE}
    )  # fmt: skip
    credentials = object_of({"admin": ADMIN, "password": SECRET})
    first = object_of(
        {"code": {**TEXT, "description": "终端上显示的一次性代码"}, "admin": ADMIN, "password": NEW_SECRET}
    )
    failed = {Code.LOGIN_ERROR: "登录失败"}
    return {
        "/admin/login": {
            "post": _operation(
                "adminLogin",
                "管理员登录",
                signed_in,
                {
                    "code": 0,
                    "msg": "管理员登录成功",
                    "access_token": "eyJhbGciOi…",
                    "refresh_token": "eyJhbGciOi…",
                    "app_info": masked,
                    "role": "owner",
                },
                [Code.LOGIN_ERROR],
                body=credentials,
                body_example={"admin": "admin", "password": "correct horse"},
                messages=failed,
                limit_code=LIMITS_TOLD_WITH_200["/admin/login"],
            )
        },
        "/admin/setup": {
            "post": _operation(
                "adminSetup",
                "创建首位管理员",
                *_plain("首位管理员创建成功"),
                [Code.LOGIN_ERROR],
                body=first,
                body_example={"code": "7G3K-QX0N-M2RD-94VB", "admin": "admin", "password": "correct horse"},
                messages={Code.LOGIN_ERROR: "初始化代码无效"},
                limited=True,
            )
        },
        "/admin/refresh": {
            "get": _operation(
                "adminRefresh",
                "用 refresh token 换取新的 access token",
                success("刷新令牌成功", {"access_token": JWT}),
                {"code": 0, "msg": "刷新令牌成功", "access_token": "eyJhbGciOi…"},
                [Code.LOGIN_ERROR],
                role="everybody",
            )
        },
        "/admin/logout": {
            "post": _operation(
                "adminLogout",
                "退出登录，两个 JWT 立即失效",
                *_plain("管理员已退出登录"),
                [Code.LOGIN_ERROR],
                role="everybody",
            )
        },
    }


def _user_paths() -> dict[str, Any]:
    new = {
        "username": {**TEXT, "minLength": 1, "maxLength": 50},
        "password": {**CHOSEN_PASSWORD, "description": PASSWORD_RULE},
        "tokens": COUNT,
        "email": MAYBE_TEXT,
        "pictimes": COUNT,
        "academy": MAYBE_TEXT,
    }
    example = {
        "username": "小明",
        "password": "correct horse",
        "tokens": 10000,
        "email": "",
        "pictimes": 10,
        "academy": "",
    }
    info = {f"new_{name}": schema for name, schema in new.items()}
    info["new_password"] = {**TEXT, "maxLength": 128, "description": "空或 ******** 表示不修改"}
    info["new_tokens"] = {**COUNT, "description": "修改后的余额，不是增加的数量"}
    info["new_pictimes"] = info["new_tokens"]
    return {
        "/admin/add_normal_user": {
            "post": _operation(
                "adminAddUser",
                "添加用户",
                *_plain("添加用户成功"),
                [Code.USER_NAME_REPEAT, Code.ADD_USER_ERROR, Code.PERMISSION_NOT_ALLOW],
                role="managers",
                body=object_of(new),
                body_example=example,
            )
        },
        "/admin/modify_normal_user": {
            "post": _operation(
                "adminModifyUser",
                "修改用户，uuid 不变",
                *_plain("修改用户信息成功"),
                [Code.USER_NOT_FOUND, Code.USER_NAME_REPEAT, Code.MODIFY_USER_ERROR, Code.PERMISSION_NOT_ALLOW],
                role="managers",
                body=object_of({"target_user": TEXT, "new_user_info": object_of(info)}),
                body_example={
                    "target_user": "小明",
                    "new_user_info": {f"new_{name}": value for name, value in example.items()},
                },
                messages={Code.USER_NOT_FOUND: "找不到目标用户"},
            )
        },
        "/admin/delete_normal_user": {
            "post": _operation(
                "adminDeleteUser",
                "删除用户，账目保留",
                *_plain("小明 删除成功"),
                [Code.USER_NOT_FOUND, Code.DELETE_USER_ERROR, Code.PERMISSION_NOT_ALLOW],
                role="managers",
                body=object_of({"target_username": TEXT}),
                messages={Code.USER_NOT_FOUND: "目标用户不存在"},
            )
        },
    }


def _administrator_paths() -> dict[str, Any]:
    change = object_of(
        {
            "target_admin": TEXT,
            "new_name": MAYBE_TEXT,
            "new_password": {**MAYBE_TEXT, "description": PASSWORD_RULE},
            "new_role": ROLE,
        },
        ["target_admin"],
    )
    return {
        "/admin/add_admin": {
            "post": _operation(
                "adminAddAdmin",
                "添加管理员",
                *_plain("添加管理员成功"),
                [Code.USER_NAME_REPEAT, Code.ADD_ADMIN_ERROR, Code.PERMISSION_NOT_ALLOW],
                role="owners",
                body=object_of({"admin": ADMIN, "password": NEW_SECRET, "role": ROLE}, ["admin", "password"]),
                messages={Code.USER_NAME_REPEAT: "管理员用户名已存在"},
            )
        },
        "/admin/modify_admin": {
            "post": _operation(
                "adminModifyAdmin",
                "修改管理员；owner 以外只能修改自己的用户名和密码",
                *_plain("修改用户信息成功"),
                [Code.USER_NOT_FOUND, Code.USER_NAME_REPEAT, Code.MODIFY_ADMIN_ERROR, Code.PERMISSION_NOT_ALLOW],
                role="everybody",
                body=change,
                body_example={"target_admin": "admin", "new_password": "quite another horse"},
                messages={Code.USER_NOT_FOUND: "找不到目标用户"},
                limit_code=LIMITS_TOLD_WITH_200["/admin/modify_admin"],
            )
        },
        "/admin/delete_admin": {
            "post": _operation(
                "adminDeleteAdmin",
                "删除管理员（owner 除外）",
                *_plain("somebody 删除成功"),
                [Code.USER_NOT_FOUND, Code.DELETE_ADMIN_ERROR, Code.PERMISSION_NOT_ALLOW],
                role="owners",
                body=object_of({"target_admin": TEXT}),
                messages={Code.USER_NOT_FOUND: "目标用户不存在或权限不足"},
            )
        },
    }


def _token_paths() -> dict[str, Any]:
    limit = object_of({"tokens": COUNT, "pictimes": COUNT}, ["tokens", "pictimes"])
    new = {
        "token_name": {**TEXT, "minLength": 1, "maxLength": 100, "description": "令牌的名称，不能用来兑换"},
        "token_id": {**MAYBE_TEXT, "maxLength": 56, "description": "自定义兑换码；不填则随机生成"},
        "token_limit": {**limit, "required": []},
        "token_range": {**MAYBE_TEXT, "description": "可兑换的学院；空表示所有人"},
    }
    changed = {
        "target_token": {**TEXT, "description": "令牌的名称或兑换码"},
        "new_token_limit": limit,
        "new_token_range": MAYBE_TEXT,
        "new_token_is_available": FLAG,
    }
    return {
        "/admin/add_token": {
            "post": _operation(
                "adminAddToken",
                "创建令牌",
                *_plain("创建令牌成功"),
                [Code.TOKEN_REPEAT, Code.ADD_TOKEN_ERROR, Code.PERMISSION_NOT_ALLOW],
                role="managers",
                body=object_of(new, ["token_name", "token_limit", "token_range"]),
                body_example={
                    "token_name": "开学礼包",
                    "token_limit": {"tokens": 5000, "pictimes": 5},
                    "token_range": "",
                },
            )
        },
        "/admin/modify_token": {
            "post": _operation(
                "adminModifyToken",
                "修改令牌",
                *_plain("令牌修改成功"),
                [Code.TOKEN_NOT_FOUND, Code.MODIFY_TOKEN_ERROR, Code.PERMISSION_NOT_ALLOW],
                role="managers",
                body=object_of(changed),
            )
        },
        "/admin/delete_token": {
            "post": _operation(
                "adminDeleteToken",
                "删除令牌，已兑换的额度保留",
                *_plain("开学礼包 删除成功"),
                [Code.TOKEN_NOT_FOUND, Code.DELETE_TOKEN_ERROR, Code.PERMISSION_NOT_ALLOW],
                role="owners",
                body=object_of({"target_token": TEXT}),
                messages={Code.TOKEN_NOT_FOUND: "目标令牌不存在或权限不足"},
            )
        },
        "/admin/control_token": {
            "get": _operation(
                "adminControlToken",
                "启用或禁用令牌（会改变状态的 GET，沿用原接口）",
                *_plain("令牌启用成功"),
                [Code.TOKEN_NOT_FOUND, Code.CONTROL_TOKEN_ERROR, Code.PERMISSION_NOT_ALLOW],
                role="managers",
                query={"is_available": ({"type": "integer", "enum": [0, 1]}, True), "token_name": (TEXT, True)},
            )
        },
    }


ROWS: list[Schema] = [
    {
        "title": "user",
        **object_of(
            {
                "Id": {**TEXT, "description": "账户编号，不是 uuid"},
                "UserName": TEXT,
                "PassWord": {**TEXT, "description": "已打码"},
                "Tokens": {"type": "integer"},
                "Email": TEXT,
                "PicTimes": {"type": "integer"},
                "Academy": TEXT,
            }
        ),
    },
    {
        "title": "admin",
        **object_of(
            {
                "Id": TEXT,
                "Auth": {"type": "integer", "enum": [0, 1], "description": "owner 为 1"},
                "Admin": TEXT,
                "PassWord": {**TEXT, "description": "已打码"},
                "Role": ROLE,
            }
        ),
    },
    {
        "title": "token",
        **object_of(
            {
                "Id": {**TEXT, "description": "用户兑换时填写的兑换码；对 auditor 打码"},
                "Tokens": {"type": "integer"},
                "PicTimes": {"type": "integer"},
                "TokenRange": TEXT,
                "Name": {**TEXT, "description": "令牌的名称"},
                "Available": {"type": "integer", "enum": [0, 1]},
            }
        ),
    },
]
EXAMPLE_ROW = {
    "Id": "452170316148736",
    "UserName": "小明",
    "PassWord": "********",
    "Tokens": 10000,
    "Email": "ming@example.com",
    "PicTimes": 10,
    "Academy": "",
}


def _table_paths() -> dict[str, Any]:
    table = ({"type": "string", "enum": ["user", "admin", "token"]}, True)
    search = ({**TEXT, "description": "名称包含此文字；owner 和 admin 也可搜索兑换码"}, False)
    row: Schema = {"oneOf": ROWS}
    return {
        "/admin/query_table": {
            "get": _operation(
                "adminQueryTable",
                "分页查询",
                success("查询1条信息成功", {"data": {"type": "array", "items": row}}),
                {"code": 0, "msg": "查询1条信息成功", "data": [EXAMPLE_ROW]},
                [Code.TABLE_NOT_FOUND, Code.QUERY_TABLE_ERROR, Code.PERMISSION_NOT_ALLOW],
                role="everybody",
                query={
                    "table": table,
                    "query_range": ({"type": "integer", "minimum": 0, "description": "条数，至多 500"}, True),
                    "start": ({"type": "integer", "minimum": 0, "description": "从第几条开始"}, True),
                    "search": search,
                },
            )
        },
        "/admin/query_table_count": {
            "get": _operation(
                "adminQueryTableCount",
                "总数",
                success("查询1条信息成功", {"total_count": {"type": "integer"}}),
                {"code": 0, "msg": "查询1条信息成功", "total_count": 1},
                [Code.TABLE_NOT_FOUND, Code.QUERY_TABLE_DATA_ERROR, Code.PERMISSION_NOT_ALLOW],
                role="everybody",
                query={"table": table, "search": search},
            )
        },
        "/admin/query_table_data": {
            "get": _operation(
                "adminQueryTableData",
                "按名称查询一条",
                success("查询小明成功", {"data": row}),
                {"code": 0, "msg": "查询小明成功", "data": EXAMPLE_ROW},
                [Code.TABLE_NOT_FOUND, Code.QUERY_TABLE_DATA_ERROR, Code.PERMISSION_NOT_ALLOW],
                role="everybody",
                query={"table": table, "target_name": (TEXT, True)},
                messages={Code.QUERY_TABLE_DATA_ERROR: "查询时遇到错误"},
            )
        },
    }


ENTRY_EXAMPLE = {
    "seq": 12,
    "at": 1795358811123,
    "actor_kind": "administrator",
    "actor": "admin",
    "action": "user.modify",
    "target": "小明",
    "before": '{"tokens":10000}',
    "after": '{"tokens":20000}',
    "address": "127.0.0.1",
    "request_id": "e4f05ebbada8aed8bf690add",
    "hash": "2b7881c4f8c882b0f925bcefcecf3a077381711a2556397fe80c1a40ea3d5c93",
    "time": "2026-11-22T14:46:51.123Z",
}


def _audit_paths() -> dict[str, Any]:
    entry = object_of(
        {name: {"type": "integer" if isinstance(v, int) else "string"} for name, v in ENTRY_EXAMPLE.items()}
    )
    moment: Schema = {**TEXT, "description": "毫秒时间戳，或带时区的 ISO 8601"}
    filters: dict[str, tuple[Schema, bool]] = {
        "actor": (TEXT, False),
        "action": ({**TEXT, "description": "例如 user.grant；以点结尾（user.）为一类"}, False),
        "target": (TEXT, False),
        "request_id": (TEXT, False),
        "since": (moment, False),
        "until": (moment, False),
        "before": ({"type": "integer", "minimum": 0, "description": "只要编号更小的；取上一页的 `next`"}, False),
    }
    codes = [Code.QUERY_TABLE_ERROR, Code.PERMISSION_NOT_ALLOW]
    page = success(
        "查询1条信息成功", {"data": {"type": "array", "items": entry}, "next": {"type": ["integer", "null"]}}
    )  # fmt: skip
    export = _operation("adminAuditExport", "导出审计日志，从旧到新", *_plain(""), codes, role="readers")
    export["parameters"] = [
        {"name": "format", "in": "query", "schema": {"type": "string", "enum": ["jsonl", "csv"], "default": "jsonl"}},
        *({"name": name, "in": "query", "required": False, "schema": schema} for name, (schema, _) in filters.items()),
    ]
    refused = object_of({"code": {"type": "string", "enum": [str(code) for code in codes]}, "msg": TEXT})
    export["responses"] = {
        "200": {
            "description": "每行一条；被拒绝时为 JSON",
            "content": {
                "application/x-ndjson": {"schema": TEXT},
                "text/csv": {"schema": TEXT},
                **json_content(
                    refused,
                    {str(code): {"code": str(code), "msg": format_message(code, Language.ZH)} for code in codes},
                ),
            },
        },
        **REFUSED_JWT,
        **FAULTS,
    }
    limit: Schema = {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}
    return {
        "/admin/audit": {
            "get": _operation(
                "adminAudit",
                "审计日志，从新到旧",
                page,
                {"code": 0, "msg": "查询1条信息成功", "data": [ENTRY_EXAMPLE], "next": None},
                codes,
                role="readers",
                query={"limit": (limit, False), **filters},
            )
        },
        "/admin/audit/export": {"get": export},
    }


def _trial_path() -> dict[str, Any]:
    message = object_of({"role": {"type": "string", "enum": ["system", "user", "assistant"]}, "content": TEXT})
    number: Schema = {"type": "number", "description": "超出平台范围时取最近的边界"}
    body = object_of(
        {
            "dialog": {"type": "array", "items": message, "minItems": 1, "maxItems": 2000},
            "limit": number,
            "top_k": number,
            "temperature": number,
        }
    )
    return {
        "/admin/console_test": {
            "post": _operation(
                "adminConsoleTest",
                "试用文本模型，不扣任何人的额度",
                success("文本模型回复成功", {"content": TEXT, "consume_token": {"type": "integer"}}),
                {"code": 0, "msg": "文本模型回复成功", "content": "你好！", "consume_token": 12},
                [Code.MODEL_ERROR, Code.PERMISSION_NOT_ALLOW],
                role="managers",
                body=body,
                body_example={
                    "dialog": [{"role": "user", "content": "你好"}],
                    "limit": 4096,
                    "top_k": 4,
                    "temperature": 0.5,
                },
                messages={Code.MODEL_ERROR: "回复失败"},
                limited=True,
            )
        }
    }


SECURITY_SCHEMES: dict[str, Any] = {
    "adminJwt": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "`/admin/login` 给出的 JWT"}
}


def paths() -> dict[str, Any]:
    """Return the paths of this part."""
    return {
        **_session_paths(),
        **_trial_path(),
        **_user_paths(),
        **_administrator_paths(),
        **_token_paths(),
        **_table_paths(),
        **_audit_paths(),
    }
