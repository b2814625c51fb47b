"""How each address of the console answers what it refuses: the one table of codes and messages.

Source: the original's clients, section 8.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aiproject.administration.model import AdministratorUnknown, Malformed, NotPermitted
from aiproject.administration.table_store import TableUnknown
from aiproject.codes import Code, Detail
from aiproject.errors import (
    AccountUnknown,
    AiProjectError,
    BodyEncoded,
    BodyTooLarge,
    BodyTooSlow,
    HttpFault,
    InvalidInput,
    LoginFailed,
    Misconfigured,
    NameTaken,
    TooManyRequests,
    Unavailable,
    VoucherUnusable,
)
from aiproject.messages.formatting import Language, format_error, format_message
from aiproject.vouchers.model import CodeTaken

__all__ = ["REFUSALS", "Refusals"]

Refusal = tuple[Code, Code | Detail]
"""A code, and the code of its message."""

_BESIDE = (BodyEncoded, BodyTooLarge, BodyTooSlow, HttpFault, Misconfigured, TooManyRequests, Unavailable)

_NOT_ADDED = frozenset({Detail.LAST_OWNER, *(detail for detail in Detail if detail.startswith("VOUCHER_"))})
"""Reasons that the console never showed, since only the command line had words for them."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """How one address answers what it refuses.

    Attributes:
        otherwise: for everything that is not in ``known``; the reason is added where there is one.
    """

    otherwise: Refusal
    known: Mapping[type[AiProjectError], Refusal] = field(default_factory=dict)

    @staticmethod
    def are_beside(error: AiProjectError) -> bool:
        """Whether an error is answered as on all legacy addresses: it has nothing to do with what the address does."""
        return isinstance(error, _BESIDE)

    def of(self, error: AiProjectError) -> tuple[Code, str]:
        """Return the code and the message."""
        for kind, (code, message) in self.known.items():
            if isinstance(error, kind):
                return code, format_message(message, Language.ZH)
        if isinstance(error, NotPermitted):
            return Code.PERMISSION_NOT_ALLOW, format_message(Code.PERMISSION_NOT_ALLOW, Language.ZH)
        code, message = self.otherwise
        words = format_message(message, Language.ZH)
        # Of a malformed request the console never said what is wrong with it.
        if (
            isinstance(error, InvalidInput)
            and not isinstance(error, Malformed)
            and error.detail
            and error.detail not in _NOT_ADDED
        ):
            return code, f"{words}：{format_error(error, Language.ZH)}"
        return code, words


Known = Mapping[type[AiProjectError], Refusal]

NAME_REPEATED: Known = {NameTaken: (Code.USER_NAME_REPEAT, Code.USER_NAME_REPEAT)}
LOGIN = Refusals(
    (Code.LOGIN_ERROR, Detail.ADMIN_LOGIN_FAILED), {LoginFailed: (Code.LOGIN_ERROR, Detail.ADMIN_CREDENTIALS_WRONG)}
)  # fmt: skip
SETUP = Refusals(
    (Code.LOGIN_ERROR, Detail.FIRST_ADMIN_NOT_CREATED), {LoginFailed: (Code.LOGIN_ERROR, Detail.SETUP_CODE_WRONG)}
)  # fmt: skip
SESSION = Refusals((Code.LOGIN_ERROR, Detail.ADMIN_LOGIN_FAILED))
TRIAL = Refusals((Code.MODEL_ERROR, Detail.TRIAL_FAILED))
ADD_USER = Refusals((Code.ADD_USER_ERROR, Code.ADD_USER_ERROR), NAME_REPEATED)
MODIFY_USER = Refusals(
    (Code.MODIFY_USER_ERROR, Code.MODIFY_USER_ERROR),
    {AccountUnknown: (Code.USER_NOT_FOUND, Detail.TARGET_USER_UNKNOWN), **NAME_REPEATED},
)
DELETE_USER = Refusals(
    (Code.DELETE_USER_ERROR, Code.DELETE_USER_ERROR), {AccountUnknown: (Code.USER_NOT_FOUND, Detail.TARGET_USER_ABSENT)}
)  # fmt: skip
ADD_ADMIN = Refusals(
    (Code.ADD_ADMIN_ERROR, Code.ADD_ADMIN_ERROR), {NameTaken: (Code.USER_NAME_REPEAT, Detail.ADMIN_NAME_TAKEN)}
)  # fmt: skip
MODIFY_ADMIN = Refusals(
    (Code.MODIFY_ADMIN_ERROR, Code.MODIFY_ADMIN_ERROR),
    {AdministratorUnknown: (Code.USER_NOT_FOUND, Detail.TARGET_USER_UNKNOWN), **NAME_REPEATED},
)
DELETE_ADMIN = Refusals(
    (Code.DELETE_ADMIN_ERROR, Code.DELETE_ADMIN_ERROR),
    {AdministratorUnknown: (Code.USER_NOT_FOUND, Detail.TARGET_ADMIN_NOT_REMOVABLE)},
)
ADD_TOKEN = Refusals((Code.ADD_TOKEN_ERROR, Code.ADD_TOKEN_ERROR), {CodeTaken: (Code.TOKEN_REPEAT, Code.TOKEN_REPEAT)})
TOKEN_MISSING: Known = {VoucherUnusable: (Code.TOKEN_NOT_FOUND, Code.TOKEN_NOT_FOUND)}
MODIFY_TOKEN = Refusals((Code.MODIFY_TOKEN_ERROR, Code.MODIFY_TOKEN_ERROR), TOKEN_MISSING)
DELETE_TOKEN = Refusals(
    (Code.DELETE_TOKEN_ERROR, Code.DELETE_TOKEN_ERROR),
    {VoucherUnusable: (Code.TOKEN_NOT_FOUND, Detail.TARGET_VOUCHER_NOT_REMOVABLE)},
)
CONTROL_TOKEN = Refusals((Code.CONTROL_TOKEN_ERROR, Code.CONTROL_TOKEN_ERROR), TOKEN_MISSING)
NO_TABLE: Known = {TableUnknown: (Code.TABLE_NOT_FOUND, Code.TABLE_NOT_FOUND)}
QUERY = Refusals((Code.QUERY_TABLE_ERROR, Code.QUERY_TABLE_ERROR), NO_TABLE)
COUNT = Refusals((Code.QUERY_TABLE_DATA_ERROR, Code.QUERY_TABLE_DATA_ERROR), NO_TABLE)
ROW = Refusals((Code.QUERY_TABLE_DATA_ERROR, Detail.ROW_QUERY_FAILED), NO_TABLE)

REFUSALS: Mapping[str, Refusals] = {
    "/admin/login": LOGIN,
    "/admin/setup": SETUP,
    "/admin/refresh": SESSION,
    "/admin/logout": SESSION,
    "/admin/console_test": TRIAL,
    "/admin/add_normal_user": ADD_USER,
    "/admin/modify_normal_user": MODIFY_USER,
    "/admin/delete_normal_user": DELETE_USER,
    "/admin/add_admin": ADD_ADMIN,
    "/admin/modify_admin": MODIFY_ADMIN,
    "/admin/delete_admin": DELETE_ADMIN,
    "/admin/add_token": ADD_TOKEN,
    "/admin/modify_token": MODIFY_TOKEN,
    "/admin/delete_token": DELETE_TOKEN,
    "/admin/control_token": CONTROL_TOKEN,
    "/admin/query_table": QUERY,
    "/admin/query_table_count": COUNT,
    "/admin/query_table_data": ROW,
    "/admin/audit": QUERY,
    "/admin/audit/export": QUERY,
}
"""The refusals of each address."""
