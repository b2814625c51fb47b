"""Types of fields that several operations of an account have, as they are described to callers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from aiproject.accounts.login.password_policy import LEAST_MIN_LENGTH, MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH
from aiproject.adapters.http.fields import document

__all__ = [
    "PASSWORD_RULE",
    "UUID_EXAMPLE",
    "Academy",
    "Confirmation",
    "CsrfToken",
    "Email",
    "NewPassword",
    "Password",
    "Pictures",
    "Tokens",
    "Username",
    "Uuid",
    "VoiceMilliseconds",
]

PASSWORD_RULE = f"至少 {MIN_PASSWORD_LENGTH} 个字符，除非 AIPROJECT_PASSWORD_MIN_LENGTH 另有规定"
UUID_EXAMPLE = "0b9f2c7d4e8a4f7f9a3d5c1e6b8a7f20"

Username = Annotated[str, Meta(description="用户名", examples=["小明"]), document(minLength=1, maxLength=50)]
Email = Annotated[str, Meta(description="邮箱地址", examples=["ming@example.com"]), document(maxLength=254)]
Academy = Annotated[str, Meta(description="学院", examples=["计算机学院"]), document(maxLength=100)]
Password = Annotated[
    str,
    Meta(description="用户密码", examples=["correct horse"]),
    document(minLength=1, maxLength=MAX_PASSWORD_LENGTH, format="password"),
]
# Described with the least that the setting allows, since one description serves every installation.
NewPassword = Annotated[
    str,
    Meta(description=f"新密码，{PASSWORD_RULE}", examples=["another long passphrase"]),
    document(minLength=LEAST_MIN_LENGTH, maxLength=MAX_PASSWORD_LENGTH, format="password"),
]
Uuid = Annotated[
    str, Meta(description="用户唯一id标识；也是调用凭证，请妥善保管", examples=[UUID_EXAMPLE])
]  # fmt: skip
CsrfToken = Annotated[
    str,
    Meta(
        description="用 Cookie 发起修改时放在 X-CSRF-Token 请求头中",
        examples=["9f2c7d4e8a4f7f9a3d5c1e6b8a7f200b9f2c7d4e8a4f7f9a3d5c1e6b8a7f200b"],
    ),
]
Tokens = Annotated[
    int, Meta(description="余额，单位为 token", examples=[9946]), document(minimum=0, **{"x-unit": "token"})
]  # fmt: skip
Pictures = Annotated[
    int, Meta(description="余额，单位为图片（张）", examples=[8]), document(minimum=0, **{"x-unit": "picture"})
]  # fmt: skip
VoiceMilliseconds = Annotated[
    Annotated[int, document(minimum=0, **{"x-unit": "millisecond"})] | None,
    Meta(description="余额，单位为毫秒；null 表示不计量", examples=[60_000]),
]


class Confirmation(Struct, kw_only=True):
    """A body with the account's password, which some credentials need."""

    password: Annotated[
        Annotated[str, document(minLength=1, maxLength=MAX_PASSWORD_LENGTH, format="password")] | None,
        Meta(description="账号密码，用于确认；哪些凭证需要它见操作的说明", examples=["correct horse"]),
    ] = None
