"""The OpenAPI description of the documented endpoints, with examples; at ``/openapi.json``, shown at ``/docs``.

Written by hand, since the endpoints are plain ASGI: what they take and answer is a contract, not something to be
derived from signatures. Each module here describes one door and returns its ``paths()``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from aiproject import __version__
from aiproject.web.openapi import account, admin, seed
from aiproject.web.openapi.parts import API_KEY

__all__ = ["describe"]


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
        "components": {"securitySchemes": {"apiKey": API_KEY, **admin.SECURITY_SCHEMES}},
        "paths": {**seed.paths(), **account.paths(), **admin.paths()},
    }
