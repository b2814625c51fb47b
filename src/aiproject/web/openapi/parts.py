"""What the descriptions of all rooms are made of."""

from __future__ import annotations

from typing import Any

from aiproject.codes import MESSAGES, Code

__all__ = [
    "FAULTS",
    "LIMITED",
    "NAME",
    "PASSWORD",
    "UUID",
    "Schema",
    "answers",
    "failure",
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
        "content": json_content(failure([code]), {"例": {"code": str(code), "msg": MESSAGES[code]}}),
    }
    if retry_after:
        answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return answer


FAULTS = {
    "408": fault(Code.REQUEST_TIMEOUT, "请求体迟迟没有发完；连接随后关闭"),
    "413": fault(Code.REQUEST_TOO_LARGE, "请求体过大"),
    "415": fault(Code.UNSUPPORTED_ENCODING, "不接受压缩过的请求体"),
    "500": fault(Code.APP_INTERNAL_ERROR, "服务器内部错误"),
    "503": fault(Code.SERVICE_UNAVAILABLE, "服务暂时不可用", retry_after=True),
}
LIMITED = {"429": fault(Code.TOO_MANY_REQUESTS, "请求过于频繁", retry_after=True)}


def answers(success: Schema, codes: list[Code], example: Any, *, limited: bool = False) -> dict[str, Any]:
    examples = {"成功": example} | {str(code): {"code": str(code), "msg": MESSAGES[code]} for code in codes}
    return {
        "200": {
            "description": "成功时 `code` 为整数 0；失败时 `code` 为字符串，HTTP 状态仍为 200",
            "content": json_content({"oneOf": [success, failure(codes)]}, examples),
        },
        **(LIMITED if limited else {}),
        **FAULTS,
    }


def identity_headers(required: bool) -> list[dict[str, Any]]:
    return [
        {
            "name": "uuid",
            "in": "header",
            "required": required,
            "schema": {"type": "string"},
            "description": "用户唯一id标识",
        },
        {
            "name": "username",
            "in": "header",
            "required": required,
            "schema": {"type": "string"},
            "description": "用户名；中文可用 UTF-8 原始字节或百分号编码",
        },
    ]


def upload(description: str, *types: str) -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    content: dict[str, Any] = {media_type: {"schema": binary} for media_type in types}
    content["multipart/form-data"] = {"schema": object_of({"file": binary})}
    return {"required": True, "description": description, "content": content}
