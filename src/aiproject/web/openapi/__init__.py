"""The OpenAPI description, generated from the declarations beside the routes; at ``/openapi.json``, shown at ``/docs``.

Texts are in Chinese, as are the operations' messages by default. Why so: docs/decisions/0032-declared-bodies.md.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from aiproject import __version__
from aiproject.accounts.routes import account, api_keys, legacy, mail, sessions
from aiproject.accounts.sessions.cookies import COOKIE
from aiproject.adapters.http.operation import Schema
from aiproject.administration import operations as administration
from aiproject.api.legacy import operations as calls
from aiproject.api.openai import operations as openai
from aiproject.ledger import routes as usage
from aiproject.vouchers import routes as vouchers
from aiproject.web import probes
from aiproject.web.openapi.generate import paths_of, schemas_of

__all__ = ["describe"]

OPERATIONS: Final = (
    *legacy.OPERATIONS,
    *calls.OPERATIONS,
    *openai.OPERATIONS,
    *vouchers.OPERATIONS,
    *usage.OPERATIONS,
    *administration.OPERATIONS,
    *probes.OPERATIONS,
    *sessions.OPERATIONS,
    *account.OPERATIONS,
    *api_keys.OPERATIONS,
    *mail.OPERATIONS,
)

SECURITY_SCHEMES: Final[dict[str, Schema]] = {
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "API 密钥 `sk-…`。使用密钥时不需要 uuid 和 username，给出也不会查看",
    },
    "uuid": {"type": "apiKey", "in": "header", "name": "uuid", "description": "用户唯一id标识，与 username 一起使用"},
    "username": {
        "type": "apiKey",
        "in": "header",
        "name": "username",
        "description": "用户名，与 uuid 一起使用；中文可用 UTF-8 原始字节或百分号编码",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": f"浏览器会话，由 `POST /v1/sessions` 设置；经 HTTPS 时名为 `__Host-{COOKIE}`",
    },
    "adminJwt": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "`/admin/login` 给出的 JWT",
    },
}


@cache
def describe() -> dict[str, Any]:
    """Return the description as OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AiProject",
            "version": __version__,
            "summary": "Accounts, exact quotas and a relay to iFlytek's chat, dictation and picture text.",
            "description": (
                "`code` 为整数 0 表示成功，为字符串表示失败；`msg` 总是存在。每个应答都带有 `X-Request-Id`。"
                "业务上的拒绝和模型平台的失败以 HTTP 200 应答；"
                "400、401、403、404、405、408、413、415、429、431、500、503 保留各自的状态码，结构相同。"
                "`/v1/account` 等账号自助的地址另以 400、409 表示拒绝。"
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "components": {
            "securitySchemes": SECURITY_SCHEMES,
            "schemas": schemas_of(OPERATIONS),
        },
        "paths": paths_of(OPERATIONS),
    }
