"""How each address tells what it refuses: the one table of codes and messages.

Source: the original's clients, section 8.3.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiproject.administration.door import Refusals, Told
from aiproject.administration.model import AdministratorUnknown
from aiproject.administration.table_store import TableUnknown
from aiproject.codes import Code
from aiproject.errors import AccountUnknown, AiProjectError, LoginFailed, NameTaken, VoucherUnusable
from aiproject.messages.formatting import Language, format_message
from aiproject.vouchers.model import CodeTaken

__all__ = [
    "ADD_ADMIN",
    "ADD_TOKEN",
    "ADD_USER",
    "CONTROL_TOKEN",
    "COUNT",
    "DELETE_ADMIN",
    "DELETE_TOKEN",
    "DELETE_USER",
    "LOGIN",
    "MODIFY_ADMIN",
    "MODIFY_TOKEN",
    "MODIFY_USER",
    "QUERY",
    "ROW",
    "SESSION",
    "SETUP",
    "TRIAL",
]

Known = Mapping[type[AiProjectError], Told]


def refusal(code: Code, msg: str = "") -> Told:
    return code, msg or format_message(code, Language.ZH)


NAME_REPEATED: Known = {NameTaken: refusal(Code.USER_NAME_REPEAT)}
LOGIN = Refusals(
    refusal(Code.LOGIN_ERROR, "管理员登录错误"), {LoginFailed: refusal(Code.LOGIN_ERROR, "登录失败")}
)  # fmt: skip
SETUP = Refusals(
    refusal(Code.LOGIN_ERROR, "创建首位管理员失败"), {LoginFailed: refusal(Code.LOGIN_ERROR, "初始化代码无效")}
)  # fmt: skip
SESSION = Refusals(refusal(Code.LOGIN_ERROR, "管理员登录错误"))
TRIAL = Refusals(refusal(Code.MODEL_ERROR, "回复失败"))
ADD_USER = Refusals(refusal(Code.ADD_USER_ERROR), NAME_REPEATED)
MODIFY_USER = Refusals(
    refusal(Code.MODIFY_USER_ERROR),
    {AccountUnknown: refusal(Code.USER_NOT_FOUND, "找不到目标用户"), **NAME_REPEATED},
)
DELETE_USER = Refusals(
    refusal(Code.DELETE_USER_ERROR), {AccountUnknown: refusal(Code.USER_NOT_FOUND, "目标用户不存在")}
)  # fmt: skip
ADD_ADMIN = Refusals(
    refusal(Code.ADD_ADMIN_ERROR), {NameTaken: refusal(Code.USER_NAME_REPEAT, "管理员用户名已存在")}
)  # fmt: skip
MODIFY_ADMIN = Refusals(
    refusal(Code.MODIFY_ADMIN_ERROR),
    {AdministratorUnknown: refusal(Code.USER_NOT_FOUND, "找不到目标用户"), **NAME_REPEATED},
)
DELETE_ADMIN = Refusals(
    refusal(Code.DELETE_ADMIN_ERROR),
    {AdministratorUnknown: refusal(Code.USER_NOT_FOUND, "目标用户不存在或权限不足")},
)
ADD_TOKEN = Refusals(refusal(Code.ADD_TOKEN_ERROR), {CodeTaken: refusal(Code.TOKEN_REPEAT)})
TOKEN_MISSING: Known = {VoucherUnusable: refusal(Code.TOKEN_NOT_FOUND)}
MODIFY_TOKEN = Refusals(refusal(Code.MODIFY_TOKEN_ERROR), TOKEN_MISSING)
DELETE_TOKEN = Refusals(
    refusal(Code.DELETE_TOKEN_ERROR),
    {VoucherUnusable: refusal(Code.TOKEN_NOT_FOUND, "目标令牌不存在或权限不足")},
)
CONTROL_TOKEN = Refusals(refusal(Code.CONTROL_TOKEN_ERROR), TOKEN_MISSING)
NO_TABLE: Known = {TableUnknown: refusal(Code.TABLE_NOT_FOUND)}
QUERY = Refusals(refusal(Code.QUERY_TABLE_ERROR), NO_TABLE)
COUNT = Refusals(refusal(Code.QUERY_TABLE_DATA_ERROR), NO_TABLE)
ROW = Refusals(refusal(Code.QUERY_TABLE_DATA_ERROR, "查询时遇到错误"), NO_TABLE)
