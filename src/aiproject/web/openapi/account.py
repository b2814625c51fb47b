"""The addresses of an account's owner: sessions, profile, keys, and what is done by mail."""

from __future__ import annotations

from typing import Any

from aiproject.accounts.api_keys.schemas import LIMIT_NAMES
from aiproject.accounts.core.meter import Meter
from aiproject.accounts.principal.permissions import NEEDS, Action, Requirement
from aiproject.accounts.principal.principal import Credential
from aiproject.accounts.sessions.cookies import CSRF_HEADER
from aiproject.codes import Code
from aiproject.web.openapi.parts import (
    CHOSEN_PASSWORD,
    FAULTS,
    LIMITED,
    NAME,
    PASSWORD,
    PASSWORD_RULE,
    UUID,
    Schema,
    failure,
    fault,
    identity_headers,
    json_content,
    object_of,
    success,
)

__all__ = ["paths"]

MOMENT: Schema = {"type": "string", "format": "date-time", "examples": ["2026-03-01T12:30:45.123Z"]}
NO_MOMENT: Schema = {"type": ["string", "null"], "format": "date-time"}
NUMBER: Schema = {"type": ["integer", "null"], "minimum": 0}
TEXTS: Schema = {"type": ["array", "null"], "items": {"type": "string"}, "maxItems": 100}
TEXT: Schema = {"type": "string"}
CONFIRMATION: Schema = {**PASSWORD, "description": "账号密码，用于确认；哪些凭证需要它见下文"}
NEW_PASSWORD: Schema = {**CHOSEN_PASSWORD, "description": f"新密码，{PASSWORD_RULE}"}
CSRF: Schema = {"type": "string", "description": f"用 Cookie 发起修改时放在 {CSRF_HEADER} 请求头中"}
TOKEN: Schema = {"type": "string", "description": "邮件中的验证码，只能使用一次"}

SESSION: Schema = object_of(
    {
        "id": {"type": "string", "description": "会话的公开名称，不是凭证"},
        "created_at": MOMENT,
        "seen_at": {**MOMENT, "description": "最近一次使用，精确到分钟"},
        "expires_at": MOMENT,
        "address": TEXT,
        "user_agent": TEXT,
        "is_current": {"type": "boolean"},
    }
)
SESSION_EXAMPLE = {
    "id": "5f0c6e2b9a7d4813",
    "created_at": "2026-03-01T12:30:45.123Z",
    "seen_at": "2026-03-01T12:41:02.000Z",
    "expires_at": "2026-03-31T12:30:45.123Z",
    "address": "192.0.2.7",
    "user_agent": "Mozilla/5.0",
    "is_current": True,
}
CSRF_EXAMPLE = "9f2c7d4e8a4f7f9a3d5c1e6b8a7f200b9f2c7d4e8a4f7f9a3d5c1e6b8a7f200b"
PROFILE: dict[str, Schema] = {
    "username": TEXT,
    "email": TEXT,
    "email_verified": {"type": "boolean"},
    "academy": {"type": ["string", "null"]},
    "balances": object_of(
        {
            "tokens": {"type": "integer", "minimum": 0},
            "pic_times": {"type": "integer", "minimum": 0},
            "voice_ms": {**NUMBER, "description": "毫秒；null 表示不计量"},
        }
    ),
    "opened_at": NO_MOMENT,
}
PROFILE_EXAMPLE = {
    "username": "小明",
    "email": "ming@example.com",
    "email_verified": True,
    "academy": None,
    "balances": {"tokens": 9946, "pic_times": 8, "voice_ms": None},
    "opened_at": "2026-03-01T12:30:45.123Z",
}
CAP: Schema = {"type": "object", "properties": {"total": NUMBER, "daily": NUMBER}, "additionalProperties": False}
TERMS: dict[str, Schema] = {
    "name": {"type": "string", "minLength": 1, "maxLength": 100},
    "expires_at": NO_MOMENT,
    "requests_per_minute": {**NUMBER, "minimum": 1},
    "concurrent_calls": {**NUMBER, "minimum": 1},
    "tokens_per_minute": {**NUMBER, "minimum": 1},
    "capabilities": {**TEXTS, "items": {"type": "string", "enum": [str(each) for each in Meter]}},
    "models": TEXTS,
    "addresses": {**TEXTS, "description": "允许使用该密钥的 IP 地址或网段"},
    "limits": {
        "type": ["object", "null"],
        "properties": dict.fromkeys(LIMIT_NAMES, CAP),
        "additionalProperties": False,
        "description": "可花费的额度：total 为总额，daily 为每日上限，null 为不限；语音以毫秒计",
    },
}
COUNTED = ("spent", "held", "spent_today")
KEY: Schema = object_of(
    {
        "id": {"type": "string", "description": "密钥的公开前缀，不是凭证"},
        **TERMS,
        "created_at": MOMENT,
        "revoked_at": NO_MOMENT,
        "last_used_at": NO_MOMENT,
        "last_used_address": {"type": ["string", "null"]},
        "limits": object_of(
            dict.fromkeys(
                LIMIT_NAMES,
                object_of({"total": NUMBER, "daily": NUMBER, **{each: {"type": "integer"} for each in COUNTED}}),
            )
        ),
    }
)
KEY_EXAMPLE = {
    "id": "sk-ab12cd34",
    "name": "笔记本",
    "expires_at": None,
    "requests_per_minute": 60,
    "concurrent_calls": None,
    "tokens_per_minute": None,
    "capabilities": ["tokens"],
    "models": None,
    "addresses": None,
    "created_at": "2026-03-01T12:30:45.123Z",
    "revoked_at": None,
    "last_used_at": None,
    "last_used_address": None,
    "limits": {
        name: {"total": 100_000 if name == "tokens" else None, "daily": None, **dict.fromkeys(COUNTED, 0)}
        for name in LIMIT_NAMES
    },
}

WORDS = {Requirement.NOTHING: "可以", Requirement.PASSWORD: "需要密码", Requirement.REFUSED: "不可以"}
CREDENTIALS = {Credential.UUID: "uuid 与 username", Credential.SESSION: "浏览器会话", Credential.API_KEY: "API 密钥"}


def _operation(
    name: str,
    summary: str,
    done: dict[str, Any],
    *,
    act: Action | None = None,
    body: Schema | None = None,
    example: Any = None,
    status: str = "200",
    codes: dict[str, Code] | None = None,
    needs_body: bool = True,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Describe one endpoint.

    Args:
        act: what the caller's credential must be good for; ``None``: no credential is needed.
        codes: refusals beside those that every endpoint has, by status.
    """
    refusals = {"400": Code.APP_QUERY_METHOD_ERROR, **(codes or {})}
    described: dict[str, Any] = {
        "tags": ["账号自助"],
        "summary": summary,
        "operationId": name,
        "responses": {status: done, **LIMITED, **FAULTS},
    }
    if act is not None:
        refusals |= {"401": Code.NOT_SIGNED_IN, "403": Code.PERMISSION_NOT_ALLOW}
        needs = "；".join(f"{zh}：{WORDS[NEEDS[act, credential]]}" for credential, zh in CREDENTIALS.items())
        described["description"] = f"凭证：{needs}。"
        described["parameters"] = [*identity_headers(False), *(parameters or [])]
        if body is not None or not name.startswith(("show", "list")):
            described["parameters"].append(
                {"name": CSRF_HEADER, "in": "header", "required": False, "schema": {"type": "string"}}
            )
    described["responses"] |= {each: fault(code, "拒绝") for each, code in refusals.items()}
    if any(act is not None and NEEDS[act, credential] is Requirement.PASSWORD for credential in Credential):
        content = json_content(failure([Code.NOT_SIGNED_IN, Code.LOGIN_ERROR]))
        described["responses"]["401"] = {"description": "未登录，或密码不正确", "content": content}
    described["responses"] = dict(sorted(described["responses"].items()))
    if body is not None:
        examples = None if example is None else {"例": example}
        described["requestBody"] = {"required": needs_body, "content": json_content(body, examples)}
    return described


def _done(msg: str, fields: dict[str, Schema] | None = None, example: dict[str, Any] | None = None) -> dict[str, Any]:
    shown = {"code": 0, "msg": msg, **(example or {})}
    return {"description": msg, "content": json_content(success(msg, fields or {}), {"成功": shown})}


def _confirmed(fields: dict[str, Schema] | None = None, required: list[str] | None = None) -> Schema:
    """A body with the password, which not every credential needs."""
    described = object_of({**(fields or {}), "password": CONFIRMATION})
    described["required"] = required or []
    return described


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


MISSING = {"404": Code.ITEM_NOT_FOUND}
WRONG = {"401": Code.LOGIN_ERROR}


def _session_paths() -> dict[str, Any]:
    signed_in: dict[str, Schema] = {"username": TEXT, "csrf_token": CSRF, "session": SESSION}
    example = {"username": "小明", "csrf_token": CSRF_EXAMPLE, "session": SESSION_EXAMPLE}
    opened = _done("登录成功", signed_in, example)
    opened["headers"] = {"Set-Cookie": {"schema": TEXT, "description": "HttpOnly; SameSite=Strict"}}
    return {
        "/v1/sessions": {
            "post": _operation(
                "signIn",
                "浏览器登录",
                opened,
                status="201",
                body=object_of({"username": NAME, "password": PASSWORD}),
                example={"username": "小明", "password": "correct horse"},
                codes={**WRONG, "403": Code.PERMISSION_NOT_ALLOW},
            )
        },
        "/v1/account/session": {
            "get": _operation("showSession", "当前会话", _done("查询成功", signed_in, example), act=Action.USE_SESSION),
            "delete": _operation("signOut", "退出登录", _done("已退出登录"), act=Action.USE_SESSION),
        },
        "/v1/account/sessions": {
            "get": _operation(
                "listSessions",
                "会话列表",
                _done("查询成功", {"sessions": {"type": "array", "items": SESSION}}, {"sessions": [SESSION_EXAMPLE]}),
                act=Action.READ,
            ),
            "delete": _operation(
                "endSessions",
                "结束所有会话",
                _done("所有会话已结束", {"ended": {"type": "integer"}}, {"ended": 2}),
                act=Action.END_SESSIONS,
                body=_confirmed(),
                needs_body=False,
            ),
        },
        "/v1/account/sessions/{session_id}": {
            "delete": _operation(
                "endSession",
                "结束一个会话",
                _done("会话已结束"),
                act=Action.END_SESSIONS,
                body=_confirmed(),
                needs_body=False,
                parameters=[_in_path("session_id")],
                codes=MISSING,
            )
        },
    }


def _profile_paths() -> dict[str, Any]:
    change = object_of({"current_password": PASSWORD, "new_password": NEW_PASSWORD})
    change["properties"]["sign_out_everywhere"] = {
        "type": "boolean",
        "default": True,
        "description": "同时更换 uuid，使所有应用重新登录；其他浏览器会话总会结束",
    }
    changed = success("密码已修改", {"uuid": UUID}, {"csrf_token": CSRF})
    uuid = "0b9f2c7d4e8a4f7f9a3d5c1e6b8a7f20"
    edit = _confirmed({"email": {"type": ["string", "null"], "maxLength": 254}})
    edit["properties"]["academy"] = {"type": ["string", "null"], "maxLength": 100}
    return {
        "/v1/account": {
            "get": _operation("showAccount", "账号信息", _done("查询成功", PROFILE, PROFILE_EXAMPLE), act=Action.READ),
            "patch": _operation(
                "editAccount",
                "修改学院或邮箱；修改邮箱总是需要密码",
                _done("账号信息已修改", PROFILE, PROFILE_EXAMPLE),
                act=Action.EDIT,
                body=edit,
                example={"academy": "文学院"},
            ),
            "delete": _operation(
                "deleteAccount",
                "注销账号：抹去个人信息，保留账目",
                _done("账号已注销"),
                act=Action.DELETE,
                body=_confirmed(),
                example={"password": "correct horse"},
            ),
        },
        "/v1/account/password": {
            "post": _operation(
                "changePassword",
                "修改密码",
                {
                    "description": "密码已修改",
                    "content": json_content(changed, {"成功": {"code": 0, "msg": "密码已修改", "uuid": uuid}}),
                },
                act=Action.CHANGE_PASSWORD,
                body=change,
                example={"current_password": "correct horse", "new_password": "another long passphrase"},
            )
        },
        "/v1/account/uuid": {
            "post": _operation(
                "rotateUuid",
                "更换 uuid，所有应用需要重新登录",
                _done("uuid 已更换", {"uuid": UUID}, {"uuid": uuid}),
                act=Action.ROTATE_UUID,
                body=_confirmed(),
                example={"password": "correct horse"},
            )
        },
    }


def _key_paths() -> dict[str, Any]:
    shown = _done("查询成功", {"key": KEY}, {"key": KEY_EXAMPLE})
    secret = "sk-ab12cd34…"  # noqa: S105 - an example
    one = [_in_path("key_id")]
    return {
        "/v1/account/keys": {
            "get": _operation(
                "listKeys",
                "API 密钥列表",
                _done("查询成功", {"keys": {"type": "array", "items": KEY}}, {"keys": [KEY_EXAMPLE]}),
                act=Action.READ,
            ),
            "post": _operation(
                "createKey",
                "创建 API 密钥；secret 只显示这一次",
                _done(
                    "密钥已创建，仅显示这一次",
                    {"secret": {"type": "string"}, "key": KEY},
                    {"secret": secret, "key": KEY_EXAMPLE},
                ),
                status="201",
                act=Action.CREATE_KEY,
                body=_confirmed(TERMS, ["name"]),
                example={"name": "笔记本", "limits": {"tokens": {"total": 100_000}}, "password": "correct horse"},
            ),
        },
        "/v1/account/keys/{key_id}": {
            "get": _operation("showKey", "一个 API 密钥", shown, act=Action.READ, parameters=one, codes=MISSING),
            "patch": _operation(
                "editKey",
                "修改 API 密钥",
                _done("密钥已修改", {"key": KEY}, {"key": KEY_EXAMPLE}),
                act=Action.EDIT_KEY,
                body=_confirmed(TERMS),
                example={"name": "台式机", "password": "correct horse"},
                parameters=one,
                codes=MISSING,
            ),
            "delete": _operation(
                "revokeKey",
                "吊销 API 密钥",
                _done("密钥已吊销"),
                act=Action.REVOKE_KEY,
                body=_confirmed(),
                needs_body=False,
                parameters=one,
                codes=MISSING,
            ),
        },
    }


def _mail_paths() -> dict[str, Any]:
    ask: Schema = {"type": "object", "properties": {"username": NAME, "email": TEXT}}
    ask |= {"minProperties": 1, "maxProperties": 1, "additionalProperties": False}
    asked = "如果该账号存在且邮箱已验证，重置邮件将很快送达"
    return {
        "/v1/account/email/verification": {
            "post": _operation(
                "sendVerification",
                "发送验证邮件",
                _done("验证邮件已发送，请查收"),
                status="202",
                act=Action.VERIFY_EMAIL,
                body=_confirmed(),
                needs_body=False,
                codes=MISSING,
            )
        },
        "/v1/email/verification": {
            "post": _operation(
                "verifyEmail",
                "验证邮箱",
                _done("邮箱验证成功"),
                body=object_of({"token": TOKEN}),
                codes=MISSING,
            )
        },
        "/v1/password-reset": {
            "post": _operation(
                "askReset",
                "忘记密码；无论账号是否存在，应答都相同",
                _done(asked),
                status="202",
                body=ask,
                example={"username": "小明"},
                codes=MISSING,
            )
        },
        "/v1/password-reset/confirm": {
            "post": _operation(
                "resetPassword",
                "用邮件中的验证码设置新密码",
                _done("密码已重置，请重新登录"),
                body=object_of({"token": TOKEN, "new_password": NEW_PASSWORD}),
                codes=MISSING,
            )
        },
    }


def paths() -> dict[str, Any]:
    """Return the addresses."""
    found = {**_session_paths(), **_profile_paths(), **_key_paths(), **_mail_paths()}
    verification = found["/v1/account/email/verification"]["post"]["responses"]
    verification["200"] = _done("邮箱已经过验证")
    return found
