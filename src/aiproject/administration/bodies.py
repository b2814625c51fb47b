"""Requests and answers of the administration, as the original's console and operators' scripts write and read them.

Forms send numbers as text and fill fields with blanks, so some fields are read more leniently than their JSON type;
what reads them stands in their type. Members that are not declared are ignored, as the original ignores them. Source:
the original's clients, section 8.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from aiproject.accounts.login.password_policy import LEAST_MIN_LENGTH, MAX_PASSWORD_LENGTH
from aiproject.accounts.routes.field_types import PASSWORD_RULE
from aiproject.adapters.http.fields import described_as, document, reads
from aiproject.adapters.http.timestamps import Timestamp
from aiproject.administration.model import Role
from aiproject.administration.readers import (
    read_filled,
    read_filter,
    read_flag,
    read_moment,
    read_role,
    read_slider,
    read_trimmed,
    read_units,
    reads_at_most,
)
from aiproject.administration.table_store import AdministratorRow, UserRow, VoucherRow
from aiproject.api.legacy.bodies import DialogMessage

__all__ = [
    "AddAdministrator",
    "AddUser",
    "AddVoucher",
    "AdministratorLogin",
    "AdministratorSignedIn",
    "AppInfo",
    "AuditExportQuery",
    "AuditFilters",
    "AuditPage",
    "AuditQuery",
    "AuditRecord",
    "CountQuery",
    "DeleteAdministrator",
    "DeleteUser",
    "DeleteVoucher",
    "FirstAdministrator",
    "JwtRefusal",
    "ModifyAdministrator",
    "ModifyUser",
    "ModifyVoucher",
    "OneRow",
    "RenewedToken",
    "RowQuery",
    "SwitchVoucher",
    "TableCount",
    "TablePage",
    "TableQuery",
    "TrialQuestion",
]

MAX_UNITS: Final = 10**15
"""Tokens or pictures of a balance that is typed in: far over what anybody sells."""

MAX_OFFSET: Final = 2**31 - 1
MAX_SEQUENCE: Final = 2**53
MAX_AUDIT_ROWS: Final = 500
DEFAULT_AUDIT_ROWS: Final = 100

MAX_MESSAGES: Final = 2000
"""Turns of a dialog that the text model is tried with."""


# -- types of fields ---------------------------------------------------------------------------------------------------

Filled = Annotated[str, reads(read_filled), document(minLength=1)]
Trimmed = Annotated[str | None, reads(read_trimmed)]
Units = Annotated[int, Meta(ge=0, le=MAX_UNITS), reads(read_units)]
UserName = Annotated[
    str, Meta(description="用户名", examples=["小明"]), reads(read_filled), document(minLength=1, maxLength=50)
]
AdministratorName = Annotated[
    str, Meta(description="管理员用户名", examples=["admin"]), reads(read_filled), document(minLength=1, maxLength=50)
]
Target = Annotated[str, Meta(description="现在的用户名"), reads(read_filled)]
Secret = Annotated[
    str,
    Meta(description="管理员密码", examples=["correct horse"]),
    reads(read_filled),
    document(minLength=1, maxLength=MAX_PASSWORD_LENGTH, format="password"),
]
NewSecret = Annotated[
    str,
    Meta(description=f"管理员密码，{PASSWORD_RULE}", examples=["quite another horse"]),
    reads(read_filled),
    document(minLength=LEAST_MIN_LENGTH, maxLength=MAX_PASSWORD_LENGTH, format="password"),
]
Tokens = Annotated[Units, Meta(description="余额，单位为 token", examples=[10_000]), document(**{"x-unit": "token"})]
Pictures = Annotated[
    Units, Meta(description="余额，单位为图片（张）", examples=[10]), document(**{"x-unit": "picture"})
]
Mail = Annotated[Trimmed, Meta(description="邮箱，可为空", examples=[""])]
Academy = Annotated[Trimmed, Meta(description="学院，可为空", examples=[""])]
RoleField = Annotated[Role | None, Meta(description="角色", examples=["admin"]), reads(read_role)]
Switch = Annotated[
    bool,
    Meta(description="1 启用，0 禁用", examples=[1]),
    reads(read_flag),
    described_as(enum=[0, 1, False, True]),
]
VoucherTarget = Annotated[str, Meta(description="令牌的名称或兑换码", examples=["开学礼包"]), reads(read_filled)]
Audience = Annotated[Trimmed, Meta(description="可兑换的学院；空表示所有人", examples=[""])]
Slider = Annotated[
    int | float,
    Meta(description="超出平台范围时取最近的边界"),
    reads(read_slider),
    described_as(type="number"),
]
Jwt = Annotated[str, Meta(description="JWT", examples=["eyJhbGciOi…"])]


# -- sessions ----------------------------------------------------------------------------------------------------------


class AdministratorLogin(Struct, kw_only=True):
    """The name and password of an administrator."""

    admin: AdministratorName
    password: Secret


class AppInfo(Struct, kw_only=True):
    """The vendor's keys as the console reads them; masked."""

    app_id: Annotated[str, Meta(description="已打码，仅保留前两个字符")]
    api_key: Annotated[str, Meta(description="已打码")]
    api_secret: Annotated[str, Meta(description="已打码")]


class AdministratorSignedIn(Struct, kw_only=True):
    """The two tokens of a session."""

    access_token: Jwt
    refresh_token: Jwt
    app_info: AppInfo
    role: Annotated[Role, Meta(description="角色")]


class FirstAdministrator(Struct, kw_only=True):
    """The first administrator, and the one-time code."""

    code: Annotated[Filled, Meta(description="终端上显示的一次性代码", examples=["7G3K-QX0N-M2RD-94VB"])]
    admin: AdministratorName
    password: NewSecret


class RenewedToken(Struct, kw_only=True):
    """A new access token."""

    access_token: Jwt


class JwtRefusal(Struct, kw_only=True):
    """What the original's JWT layer answers; its console shows nothing else."""

    msg: Annotated[str, Meta(description="原因，英文", examples=["Missing Authorization Header"])]


# -- the model ---------------------------------------------------------------------------------------------------------


class TrialQuestion(Struct, kw_only=True):
    """A dialog, and the sliders of the console."""

    dialog: Annotated[
        list[DialogMessage], Meta(min_length=1, max_length=MAX_MESSAGES, description="对话，最后一条为问题")
    ]
    limit: Annotated[Slider, Meta(examples=[4096])]
    top_k: Annotated[Slider, Meta(examples=[4])]
    temperature: Annotated[Slider, Meta(examples=[0.5])]


# -- accounts ----------------------------------------------------------------------------------------------------------


class AddUser(Struct, kw_only=True):
    """A new account. All fields are required, as in the original."""

    username: UserName
    password: Annotated[
        str,
        Meta(description=PASSWORD_RULE, examples=["correct horse"]),
        reads(read_filled),
        document(minLength=LEAST_MIN_LENGTH, maxLength=MAX_PASSWORD_LENGTH, format="password"),
    ]
    tokens: Tokens
    email: Mail
    pictimes: Pictures
    academy: Academy


class UserFields(Struct, kw_only=True):
    """The new properties of an account. All fields are required, as in the original."""

    new_username: UserName
    new_password: Annotated[
        str,
        Meta(description="空或 ******** 表示不修改", examples=["correct horse"]),
        document(maxLength=MAX_PASSWORD_LENGTH, format="password"),
    ]
    new_tokens: Annotated[Tokens, Meta(description="修改后的余额，单位为 token，不是增加的数量")]
    new_email: Mail
    new_pictimes: Annotated[Pictures, Meta(description="修改后的余额，单位为图片（张），不是增加的数量")]
    new_academy: Academy


class ModifyUser(Struct, kw_only=True):
    """An account and its new properties."""

    target_user: Target
    new_user_info: UserFields


class DeleteUser(Struct, kw_only=True):
    """An account."""

    target_username: Target


# -- administrators ----------------------------------------------------------------------------------------------------


class AddAdministrator(Struct, kw_only=True):
    """A new administrator."""

    admin: AdministratorName
    password: NewSecret
    role: Annotated[RoleField, Meta(description="角色，默认 admin")] = None


class ModifyAdministrator(Struct, kw_only=True):
    """Changes to an administrator; a field that is missing or empty stays as it is."""

    target_admin: Target
    new_name: Annotated[Trimmed, Meta(description="新用户名；空表示不修改")] = None
    new_password: Annotated[Trimmed, Meta(description=f"新密码；空表示不修改；{PASSWORD_RULE}")] = None
    new_role: Annotated[RoleField, Meta(description="新角色；空表示不修改")] = None


class DeleteAdministrator(Struct, kw_only=True):
    """An administrator."""

    target_admin: Target


# -- vouchers ----------------------------------------------------------------------------------------------------------


class NewVoucherLimit(Struct, kw_only=True):
    """What a voucher is worth."""

    tokens: Annotated[Units, Meta(description="单位为 token，默认 0", examples=[5000])] = 0
    pictimes: Annotated[Units, Meta(description="单位为图片（张），默认 0", examples=[5])] = 0


class VoucherLimit(Struct, kw_only=True):
    """The new value of a voucher."""

    tokens: Annotated[Units, Meta(description="单位为 token", examples=[5000])]
    pictimes: Annotated[Units, Meta(description="单位为图片（张）", examples=[5])]


class AddVoucher(Struct, kw_only=True):
    """A new voucher. The list shows its code as ``Id``."""

    token_name: Annotated[
        Filled, Meta(description="令牌的名称，不能用来兑换", examples=["开学礼包"]), document(maxLength=100)
    ]
    token_id: Annotated[
        Annotated[str, document(maxLength=56)] | None,
        reads(read_trimmed),
        Meta(description="自定义兑换码；不填则随机生成"),
    ] = None
    token_limit: NewVoucherLimit
    token_range: Audience


class ModifyVoucher(Struct, kw_only=True):
    """The new properties of a voucher."""

    target_token: VoucherTarget
    new_token_limit: VoucherLimit
    new_token_range: Audience
    new_token_is_available: Switch


class DeleteVoucher(Struct, kw_only=True):
    """A voucher."""

    target_token: VoucherTarget


class SwitchVoucher(Struct, kw_only=True):
    """A voucher, and whether it may be redeemed."""

    is_available: Annotated[
        bool, Meta(description="1 启用，0 禁用"), reads(read_flag), described_as(type="integer", enum=[0, 1])
    ]
    token_name: VoucherTarget


# -- lists -------------------------------------------------------------------------------------------------------------

# Missing, it is refused like a list that does not exist, in the words of that refusal.
TableName = Annotated[str, Meta(description="列表"), document(enum=["user", "admin", "token"], required=True)]
Search = Annotated[str, Meta(description="名称包含此文字；owner 和 admin 也可搜索兑换码")]
ROWS: Final[dict[str, Any]] = {
    "oneOf": [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in (UserRow, AdministratorRow, VoucherRow)]
}
"""msgspec does not support unions of Structs without a tag; which one it is follows from the list's name."""


class TableQuery(Struct, kw_only=True):
    """A page of a list."""

    table: TableName = ""
    query_range: Annotated[int, Meta(ge=0, description="条数，至多 500", examples=[20]), reads_at_most(MAX_OFFSET)]
    start: Annotated[int, Meta(ge=0, description="从第几条开始", examples=[0]), reads_at_most(MAX_OFFSET)]
    search: Search = ""


class CountQuery(Struct, kw_only=True):
    """A list."""

    table: TableName = ""
    search: Search = ""


class RowQuery(Struct, kw_only=True):
    """A row of a list, by its name."""

    table: TableName = ""
    target_name: Annotated[str, Meta(description="名称", examples=["小明"]), document(required=True)] = ""


class TablePage(Struct, kw_only=True):
    """Rows of a list."""

    data: Annotated[list[dict[str, Any]], described_as(type="array", items=ROWS)]


class TableCount(Struct, kw_only=True):
    """How many rows a list has."""

    total_count: Annotated[int, Meta(description="条数", examples=[1])]


class OneRow(Struct, kw_only=True):
    """A row of a list."""

    data: Annotated[dict[str, Any], described_as(**ROWS)]


# -- the audit log -----------------------------------------------------------------------------------------------------

Filter = Annotated[str | None, reads(read_filter)]
Moment = Annotated[
    int | None,
    Meta(description="毫秒时间戳，或带时区的 ISO 8601", examples=["2026-11-22T00:00:00+08:00"]),
    reads(read_moment),
    described_as(type="string"),
]


class AuditFilters(Struct, kw_only=True):
    """Which entries of the audit log are wanted."""

    actor: Annotated[Filter, Meta(description="操作者，精确匹配")] = None
    action: Annotated[Filter, Meta(description="例如 user.grant；以点结尾（user.）为一类")] = None
    target: Annotated[Filter, Meta(description="对象，精确匹配")] = None
    request_id: Annotated[Filter, Meta(description="X-Request-Id")] = None
    since: Annotated[Moment, Meta(description="此时及以后；毫秒时间戳，或带时区的 ISO 8601")] = None
    until: Annotated[Moment, Meta(description="此时以前；毫秒时间戳，或带时区的 ISO 8601")] = None
    before: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="只要编号更小的；取上一页的 next"),
        reads_at_most(MAX_SEQUENCE),
    ] = None


class AuditExportQuery(AuditFilters, kw_only=True):
    """Which entries of the audit log are wanted, and how they are written."""

    format: Annotated[Literal["jsonl", "csv"], Meta(description="导出的格式")] = "jsonl"


class AuditQuery(AuditFilters, kw_only=True):
    """A page of the entries that are wanted."""

    limit: Annotated[
        int, Meta(ge=1, description=f"条数，至多 {MAX_AUDIT_ROWS}", examples=[100]), reads_at_most(MAX_AUDIT_ROWS)
    ] = DEFAULT_AUDIT_ROWS


class AuditRecord(Struct, kw_only=True):
    """An entry of the audit log."""

    seq: Annotated[int, Meta(description="从 1 起连续编号", examples=[12])]
    at: Annotated[int, Meta(description="毫秒时间戳", examples=[1795358811123])]
    actor_kind: Annotated[str, Meta(description="操作者的种类", examples=["administrator"])]
    actor: Annotated[str, Meta(description="操作者", examples=["admin"])]
    action: Annotated[str, Meta(description="操作", examples=["user.modify"])]
    target: Annotated[str, Meta(description="对象", examples=["小明"])]
    before: Annotated[str, Meta(description="之前的值，JSON", examples=['{"tokens":10000}'])]
    after: Annotated[str, Meta(description="之后的值，JSON", examples=['{"tokens":20000}'])]
    address: Annotated[str, Meta(description="IP 地址", examples=["127.0.0.1"])]
    request_id: Annotated[str, Meta(description="X-Request-Id", examples=["e4f05ebbada8aed8bf690add"])]
    hash: Annotated[str, Meta(description="本条与上一条的 SHA-256 链")]
    time: Annotated[Timestamp, Meta(description="时间")]


class AuditPage(Struct, kw_only=True):
    """Entries of the audit log, the newest first."""

    data: list[AuditRecord]
    next: Annotated[int | None, Meta(description="下一页的 before；null 为没有更早的")]
