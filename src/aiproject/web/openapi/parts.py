"""What the descriptions of all rooms are made of."""

from __future__ import annotations

from typing import Any

from aiproject.accounts.login.password_policy import LEAST_MIN_LENGTH, MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH
from aiproject.codes import Code
from aiproject.messages.formatting import Language, format_message

__all__ = [
    "API_KEY",
    "CHOSEN_PASSWORD",
    "FAULTS",
    "LIMITED",
    "NAME",
    "PASSWORD",
    "PASSWORD_RULE",
    "UUID",
    "Schema",
    "answers",
    "by_key",
    "fault",
    "identity_headers",
    "json_content",
    "object_of",
    "success",
    "upload",
]

Schema = dict[str, Any]

NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 50, "description": "用户名", "examples": ["小明"]}
PASSWORD: Schema = {"type": "string", "minLength": 1, "maxLength": 128, "description": "用户密码"}
# Described with the least that the setting allows, since one description serves every installation.
CHOSEN_PASSWORD: Schema = {"type": "string", "minLength": LEAST_MIN_LENGTH, "maxLength": MAX_PASSWORD_LENGTH}
PASSWORD_RULE = f"至少 {MIN_PASSWORD_LENGTH} 个字符，除非 AIPROJECT_PASSWORD_MIN_LENGTH 另有规定"
UUID: Schema = {"type": "string", "description": "用户唯一id标识；也是调用凭证，请妥善保管"}


def object_of(properties: dict[str, Schema], required: list[str] | None = None, **more: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": required or list(properties), **more}


def failure(codes: list[Code]) -> Schema:
    return {
        "title": "失败",
        **object_of(
            {
                "code": {"type": "string", "enum": [str(code) for code in codes]},
                "msg": {"type": "string"},
            }
        ),
    }


def success(msg: str, fields: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    always: dict[str, Schema] = {
        "code": {"type": "integer", "const": 0},
        "msg": {"type": "string", "examples": [msg]},
        **fields,
    }
    return {"title": "成功", **object_of({**always, **(optional or {})}, list(always))}


def json_content(schema: Schema, examples: dict[str, Any] | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"application/json": content}


def fault(code: Code, description: str, *, retry_after: bool = False) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": description,
        "content": json_content(failure([code]), {"例": {"code": str(code), "msg": format_message(code, Language.ZH)}}),
    }
    if retry_after:
        answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return answer


LIMITED = {"429": fault(Code.TOO_MANY_REQUESTS, "请求过于频繁", retry_after=True)}
LIMITED["429"]["headers"] |= {
    "RateLimit-Policy": {"schema": {"type": "string"}, "example": '"address";q=1200;w=60'},
    "RateLimit": {"schema": {"type": "string"}, "example": '"address";r=0;t=7'},
}
FAULTS = {
    **LIMITED,
    "408": fault(Code.REQUEST_TIMEOUT, "请求体迟迟没有发完；连接随后关闭"),
    "413": fault(Code.REQUEST_TOO_LARGE, "请求体过大"),
    "415": fault(Code.UNSUPPORTED_ENCODING, "不接受压缩过的请求体"),
    "500": fault(Code.APP_INTERNAL_ERROR, "服务器内部错误"),
    "503": fault(Code.SERVICE_UNAVAILABLE, "服务暂时不可用", retry_after=True),
}


def answers(
    success: Schema, codes: list[Code], example: Any, *, limited: bool = False, limit_code: Code | None = None
) -> dict[str, Any]:
    """Return the answers of an operation.

    Args:
        limit_code: of refusals by rate limits where they are told with HTTP 200; ``None``: they are told with 429.
    """
    if limit_code is not None:
        codes = list(dict.fromkeys([*codes, limit_code]))
    examples = {"成功": example} | {
        str(code): {"code": str(code), "msg": format_message(code, Language.ZH)} for code in codes
    }
    whole: dict[str, Any] = {
        "description": "成功时 `code` 为整数 0；失败时 `code` 为字符串，HTTP 状态仍为 200",
        "content": json_content({"oneOf": [success, failure(codes)]}, examples),
    }
    if limit_code is None:
        return {"200": whole, **(LIMITED if limited else {}), **FAULTS}
    whole["description"] += f"；请求过于频繁时 `code` 为 {limit_code}，`msg` 和 `Retry-After` 给出等待的秒数"
    whole["headers"] = LIMITED["429"]["headers"]
    return {"200": whole, **{status: fault for status, fault in FAULTS.items() if status != "429"}}


API_KEY: Schema = {
    "type": "http",
    "scheme": "bearer",
    "description": "API 密钥 `sk-…`。使用密钥时不需要 uuid 和 username，给出也不会查看",
}


def by_key(operation: dict[str, Any], *, may_spend: bool) -> dict[str, Any]:
    """Return an operation with what an API key adds to it.

    Args:
        may_spend: it consumes what a key can be held to.
    """
    more = {
        "401": fault(Code.NOT_SIGNED_IN, "密钥无效、已过期或已吊销"),
        "403": fault(Code.PERMISSION_NOT_ALLOW, "密钥不能用于此接口、模型或地址"),
    }
    if may_spend:
        is_limited = "429" in operation["responses"]
        codes = [*([Code.TOO_MANY_REQUESTS] if is_limited else []), Code.KEY_LIMIT_REACHED]
        examples = {str(code): {"code": str(code), "msg": format_message(code, Language.ZH)} for code in codes}
        more["429"] = {
            **LIMITED["429"],
            "description": "请求过于频繁，或密钥的额度已用完" if is_limited else "密钥的额度已用完",
            "content": json_content(failure(codes), examples),
        }
    return {
        **operation,
        "security": [{"apiKey": []}, {}],
        "responses": dict(sorted({**operation["responses"], **more}.items())),
    }


def identity_headers(needed: bool) -> list[dict[str, Any]]:
    """Args: needed: by whoever shows no API key, for whom no header is required."""
    when = "；不使用 API 密钥时必填" if needed else ""
    return [
        {
            "name": "uuid",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": f"用户唯一id标识{when}",
        },
        {
            "name": "username",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": f"用户名{when}；中文可用 UTF-8 原始字节或百分号编码",
        },
    ]


def upload(description: str, *types: str) -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    content: dict[str, Any] = {media_type: {"schema": binary} for media_type in types}
    content["multipart/form-data"] = {"schema": object_of({"file": binary})}
    return {"required": True, "description": description, "content": content}
