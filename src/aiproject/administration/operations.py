"""The operations of the administration: what each takes and answers, who may call it, and how it refuses."""

from __future__ import annotations

from typing import Any, Final

from aiproject.adapters.http.operation import Access, Answer, BodyOperation, Operation
from aiproject.administration.bodies import (
    AddAdministrator,
    AddUser,
    AddVoucher,
    AdministratorLogin,
    AdministratorSignedIn,
    AppInfo,
    AuditExportQuery,
    AuditPage,
    AuditQuery,
    AuditRecord,
    CountQuery,
    DeleteAdministrator,
    DeleteUser,
    DeleteVoucher,
    FirstAdministrator,
    JwtRefusal,
    ModifyAdministrator,
    ModifyUser,
    ModifyVoucher,
    OneRow,
    RenewedToken,
    RowQuery,
    SwitchVoucher,
    TableCount,
    TablePage,
    TableQuery,
    TrialQuestion,
)
from aiproject.administration.model import ALLOWED, EVERYBODY, MASK, Role
from aiproject.administration.refusals import REFUSALS
from aiproject.administration.table_store import AdministratorRow, UserRow, VoucherRow
from aiproject.api.legacy.bodies import WholeAnswer
from aiproject.codes import Code, Success

__all__ = [
    "ADD_ADMINISTRATOR",
    "ADD_USER",
    "ADD_VOUCHER",
    "AUDIT",
    "COUNT",
    "DELETE_ADMINISTRATOR",
    "DELETE_USER",
    "DELETE_VOUCHER",
    "EXPORT_AUDIT",
    "LOGIN",
    "LOGOUT",
    "MODIFY_ADMINISTRATOR",
    "MODIFY_USER",
    "MODIFY_VOUCHER",
    "OPERATIONS",
    "PAGE",
    "REFRESH",
    "ROW",
    "SET_UP",
    "SWITCH_VOUCHER",
    "TRIAL",
]

JWT_REFUSALS: Final = {
    401: ("没有 JWT、已过期或已失效", JwtRefusal(msg="Missing Authorization Header")),
    422: ("JWT 无法识别、签名不符或类型不对", JwtRefusal(msg="Not enough segments")),
}


def _address(method: str, path: str) -> dict[str, Any]:
    """Return what the tables of roles and refusals say of an address, as arguments of `Operation`."""
    refusals = REFUSALS[path]
    said = dict([refusals.otherwise, *refusals.known.values()])
    roles = ALLOWED.get((method, path))
    if roles is None:  # called before a session exists
        access = Access()
    else:
        said[Code.PERMISSION_NOT_ALLOW] = Code.PERMISSION_NOT_ALLOW
        who = "所有管理员" if roles == EVERYBODY else "、".join(role for role in Role if role in roles)
        access = Access(description=f"权限：{who}", security=({"adminJwt": []},), bodies=JWT_REFUSALS)
    return {
        "method": method,
        "path": path,
        "tag": "管理",
        "access": access,
        "failures": {200: tuple(said)},
        "messages": said,
    }


LOGIN = BodyOperation(
    name="adminLogin",
    summary="管理员登录",
    request=AdministratorLogin,
    examples={"例": {"admin": "admin", "password": "correct horse"}},
    answers=(
        Answer(
            message=Success.ADMIN_LOGGED_IN,
            body=AdministratorSignedIn(
                access_token="eyJhbGciOi…",  # noqa: S106 - an example
                refresh_token="eyJhbGciOi…",  # noqa: S106 - an example
                app_info=AppInfo(app_id=f"ab{MASK}", api_key=MASK, api_secret=MASK),
                role=Role.OWNER,
            ),
        ),
    ),
    **_address("POST", "/admin/login"),
)
SET_UP = BodyOperation(
    name="adminSetup",
    summary="创建首位管理员",
    request=FirstAdministrator,
    examples={"例": {"code": "7G3K-QX0N-M2RD-94VB", "admin": "admin", "password": "correct horse"}},
    answers=(Answer(message=Success.FIRST_ADMIN_CREATED),),
    **_address("POST", "/admin/setup"),
)
REFRESH = Operation(
    name="adminRefresh",
    summary="用 refresh token 换取新的 access token",
    answers=(
        Answer(
            message=Success.ADMIN_TOKEN_RENEWED,
            body=RenewedToken(access_token="eyJhbGciOi…"),  # noqa: S106 - an example
        ),
    ),
    **_address("GET", "/admin/refresh"),
)
LOGOUT = Operation(
    name="adminLogout",
    summary="退出登录，两个 JWT 立即失效",
    answers=(Answer(message=Success.ADMIN_LOGGED_OUT),),
    **_address("POST", "/admin/logout"),
)

TRIAL = BodyOperation(
    name="adminConsoleTest",
    summary="试用文本模型，不扣任何人的额度",
    request=TrialQuestion,
    examples={
        "例": {"dialog": [{"role": "user", "content": "你好"}], "limit": 4096, "top_k": 4, "temperature": 0.5},
    },
    answers=(Answer(message=Success.TRIAL_ANSWERED, body=WholeAnswer(content="你好！", consume_token=12)),),
    **_address("POST", "/admin/console_test"),
)

USER: Final = {
    "username": "小明",
    "password": "correct horse",
    "tokens": 10_000,
    "email": "",
    "pictimes": 10,
    "academy": "",
}
ADD_USER = BodyOperation(
    name="adminAddUser",
    summary="添加用户",
    request=AddUser,
    examples={"例": USER},
    answers=(Answer(message=Success.USER_ADDED),),
    **_address("POST", "/admin/add_normal_user"),
)
MODIFY_USER = BodyOperation(
    name="adminModifyUser",
    summary="修改用户，uuid 不变",
    request=ModifyUser,
    examples={
        "例": {"target_user": "小明", "new_user_info": {f"new_{name}": value for name, value in USER.items()}},
    },
    answers=(Answer(message=Success.USER_CHANGED),),
    **_address("POST", "/admin/modify_normal_user"),
)
DELETE_USER = BodyOperation(
    name="adminDeleteUser",
    summary="删除用户，账目保留",
    request=DeleteUser,
    examples={"例": {"target_username": "小明"}},
    answers=(Answer(message=Success.DELETED, params={"name": "小明"}),),
    **_address("POST", "/admin/delete_normal_user"),
)

ADD_ADMINISTRATOR = BodyOperation(
    name="adminAddAdmin",
    summary="添加管理员",
    request=AddAdministrator,
    examples={"例": {"admin": "auditor", "password": "correct horse", "role": "auditor"}},
    answers=(Answer(message=Success.ADMIN_ADDED),),
    **_address("POST", "/admin/add_admin"),
)
MODIFY_ADMINISTRATOR = BodyOperation(
    name="adminModifyAdmin",
    summary="修改管理员；owner 以外只能修改自己的用户名和密码",
    request=ModifyAdministrator,
    examples={"例": {"target_admin": "admin", "new_password": "quite another horse"}},
    answers=(Answer(message=Success.USER_CHANGED),),
    **_address("POST", "/admin/modify_admin"),
)
DELETE_ADMINISTRATOR = BodyOperation(
    name="adminDeleteAdmin",
    summary="删除管理员（owner 除外）",
    request=DeleteAdministrator,
    examples={"例": {"target_admin": "auditor"}},
    answers=(Answer(message=Success.DELETED, params={"name": "auditor"}),),
    **_address("POST", "/admin/delete_admin"),
)

ADD_VOUCHER = BodyOperation(
    name="adminAddToken",
    summary="创建令牌",
    request=AddVoucher,
    examples={
        "例": {"token_name": "开学礼包", "token_limit": {"tokens": 5000, "pictimes": 5}, "token_range": ""},
    },
    answers=(Answer(message=Success.VOUCHER_CREATED),),
    **_address("POST", "/admin/add_token"),
)
MODIFY_VOUCHER = BodyOperation(
    name="adminModifyToken",
    summary="修改令牌",
    request=ModifyVoucher,
    examples={
        "例": {
            "target_token": "开学礼包",
            "new_token_limit": {"tokens": 8000, "pictimes": 5},
            "new_token_range": "",
            "new_token_is_available": 1,
        },
    },
    answers=(Answer(message=Success.VOUCHER_CHANGED),),
    **_address("POST", "/admin/modify_token"),
)
DELETE_VOUCHER = BodyOperation(
    name="adminDeleteToken",
    summary="删除令牌，已兑换的额度保留",
    request=DeleteVoucher,
    examples={"例": {"target_token": "开学礼包"}},
    answers=(Answer(message=Success.DELETED, params={"name": "开学礼包"}),),
    **_address("POST", "/admin/delete_token"),
)
SWITCH_VOUCHER = Operation(
    name="adminControlToken",
    summary="启用或禁用令牌（会改变状态的 GET，沿用原接口）",
    query=SwitchVoucher,
    answers=(Answer(message=Success.VOUCHER_ENABLED),),
    **_address("GET", "/admin/control_token"),
)

ROWS: Final = (UserRow, AdministratorRow, VoucherRow)
EXAMPLE_ROW: Final = {
    "Id": "452170316148736",
    "UserName": "小明",
    "PassWord": MASK,
    "Tokens": 10_000,
    "Email": "ming@example.com",
    "PicTimes": 10,
    "Academy": "",
}
PAGE = Operation(
    name="adminQueryTable",
    summary="分页查询",
    query=TableQuery,
    models=ROWS,
    answers=(Answer(message=Success.ROWS_FOUND, params={"count": 1}, body=TablePage(data=[EXAMPLE_ROW])),),
    **_address("GET", "/admin/query_table"),
)
COUNT = Operation(
    name="adminQueryTableCount",
    summary="总数",
    query=CountQuery,
    answers=(Answer(message=Success.ROWS_FOUND, params={"count": 1}, body=TableCount(total_count=1)),),
    **_address("GET", "/admin/query_table_count"),
)
ROW = Operation(
    name="adminQueryTableData",
    summary="按名称查询一条",
    query=RowQuery,
    models=ROWS,
    answers=(Answer(message=Success.ROW_FOUND, params={"name": "小明"}, body=OneRow(data=EXAMPLE_ROW)),),
    **_address("GET", "/admin/query_table_data"),
)

ENTRY: Final = AuditRecord(
    seq=12,
    at=1795358811123,
    actor_kind="administrator",
    actor="admin",
    action="user.modify",
    target="小明",
    before='{"tokens":10000}',
    after='{"tokens":20000}',
    address="127.0.0.1",
    request_id="e4f05ebbada8aed8bf690add",
    hash="2b7881c4f8c882b0f925bcefcecf3a077381711a2556397fe80c1a40ea3d5c93",
    time="2026-11-22T14:46:51.123Z",
)
AUDIT = Operation(
    name="adminAudit",
    summary="审计日志，从新到旧",
    query=AuditQuery,
    answers=(Answer(message=Success.ROWS_FOUND, params={"count": 1}, body=AuditPage(data=[ENTRY], next=None)),),
    **_address("GET", "/admin/audit"),
)
EXPORT_AUDIT = Operation(
    name="adminAuditExport",
    summary="导出审计日志，从旧到新",
    query=AuditExportQuery,
    answers=(
        Answer(
            description="每行一条；被拒绝时为 JSON",
            has_envelope=False,
            media_types=("application/x-ndjson", "text/csv"),
        ),
    ),
    **_address("GET", "/admin/audit/export"),
)

OPERATIONS: Final = (
    LOGIN,
    SET_UP,
    REFRESH,
    LOGOUT,
    TRIAL,
    ADD_USER,
    MODIFY_USER,
    DELETE_USER,
    ADD_ADMINISTRATOR,
    MODIFY_ADMINISTRATOR,
    DELETE_ADMINISTRATOR,
    ADD_VOUCHER,
    MODIFY_VOUCHER,
    DELETE_VOUCHER,
    SWITCH_VOUCHER,
    PAGE,
    COUNT,
    ROW,
    AUDIT,
    EXPORT_AUDIT,
)
"""For the description, see `aiproject.web.openapi`."""
