"""The codes of the seed's HTTP contract, each with its Chinese message: the one table.

`code` is the integer 0 on success and one of these strings on failure. The names up to ``QUERY_TABLE_DATA_ERROR`` are
the original project's (its apps may compare them); those after it are ours, for cases that the original answered with
an HTML page or not at all.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["COME_BACK", "MESSAGES", "Code"]

COME_BACK = "请稍后再试"
"""The end of every message about a rate limit that time lifts; where the seconds are told, they stand in its place."""


class Code(StrEnum):
    """A failure, as the value of ``code`` in an answer."""

    APP_NOT_FOUND_ERROR = "APP_NOT_FOUND_ERROR"
    APP_QUERY_METHOD_ERROR = "APP_QUERY_METHOD_ERROR"
    APP_INTERNAL_ERROR = "APP_INTERNAL_ERROR"
    REGISTER_ERROR = "REGISTER_ERROR"
    USER_NAME_REPEAT = "USER_NAME_REPEAT"
    LOGIN_ERROR = "LOGIN_ERROR"
    USER_NOT_FOUND = "USER_NOT_FOUND"
    PERMISSION_NOT_ALLOW = "PERMISSION_NOT_ALLOW"
    TOKEN_NOT_ENOUGH = "TOKEN_NOT_ENOUGH"  # noqa: S105 - a code, not a password
    MODEL_ERROR = "MODEL_ERROR"
    AUDIO_TO_TEXT_ERROR = "AUDIO_TO_TEXT_ERROR"
    FILE_FORMAT_ILLEGAL = "FILE_FORMAT_ILLEGAL"
    GET_FILE_FAIL = "GET_FILE_FAIL"
    PIC_TIMES_NOT_ENOUGH = "PIC_TIMES_NOT_ENOUGH"
    PICTURE_TO_TEXT_ERROR = "PICTURE_TO_TEXT_ERROR"
    ADD_USER_ERROR = "ADD_USER_ERROR"
    MODIFY_USER_ERROR = "MODIFY_USER_ERROR"
    DELETE_USER_ERROR = "DELETE_USER_ERROR"
    ADD_ADMIN_ERROR = "ADD_ADMIN_ERROR"
    MODIFY_ADMIN_ERROR = "MODIFY_ADMIN_ERROR"
    DELETE_ADMIN_ERROR = "DELETE_ADMIN_ERROR"
    ADD_TOKEN_ERROR = "ADD_TOKEN_ERROR"  # noqa: S105
    TOKEN_REPEAT = "TOKEN_REPEAT"  # noqa: S105
    TOKEN_NOT_FOUND = "TOKEN_NOT_FOUND"  # noqa: S105
    MODIFY_TOKEN_ERROR = "MODIFY_TOKEN_ERROR"  # noqa: S105
    DELETE_TOKEN_ERROR = "DELETE_TOKEN_ERROR"  # noqa: S105
    CONTROL_TOKEN_ERROR = "CONTROL_TOKEN_ERROR"  # noqa: S105
    USER_GET_TOKEN_ERROR = "USER_GET_TOKEN_ERROR"  # noqa: S105
    TOKEN_ALREADY_GET = "TOKEN_ALREADY_GET"  # noqa: S105
    # Two constants of the original, run together; its app compares nothing, but others may.
    TOKEN_NOT_FOUNDUSER_NOT_FOUND = "TOKEN_NOT_FOUNDUSER_NOT_FOUND"  # noqa: S105
    TOKEN_NOT_AVAILABLE = "TOKEN_NOT_AVAILABLE"  # noqa: S105
    TABLE_NOT_FOUND = "TABLE_NOT_FOUND"
    QUERY_TABLE_ERROR = "QUERY_TABLE_ERROR"
    QUERY_TABLE_DATA_ERROR = "QUERY_TABLE_DATA_ERROR"
    # Ours.
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"
    UNSUPPORTED_ENCODING = "UNSUPPORTED_ENCODING"
    TOO_MANY_REQUESTS = "TOO_MANY_REQUESTS"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    VOICE_SECONDS_NOT_ENOUGH = "VOICE_SECONDS_NOT_ENOUGH"
    REGISTRATION_CLOSED = "REGISTRATION_CLOSED"
    RECEIPT_NOT_FOUND = "RECEIPT_NOT_FOUND"
    NOT_SIGNED_IN = "NOT_SIGNED_IN"
    ITEM_NOT_FOUND = "ITEM_NOT_FOUND"
    KEY_LIMIT_REACHED = "KEY_LIMIT_REACHED"


MESSAGES: dict[Code, str] = {
    Code.APP_NOT_FOUND_ERROR: "404错误 请求的地址不存在",
    Code.APP_QUERY_METHOD_ERROR: "400错误 客户端请求方式错误",
    Code.APP_INTERNAL_ERROR: "500错误 服务器内部错误",
    Code.REGISTER_ERROR: "用户注册失败",
    Code.USER_NAME_REPEAT: "用户名已存在",
    Code.LOGIN_ERROR: "用户登录失败",
    Code.USER_NOT_FOUND: "找不到指定用户",
    Code.PERMISSION_NOT_ALLOW: "权限不足",
    Code.TOKEN_NOT_ENOUGH: "用户token额度不足",
    Code.MODEL_ERROR: "文本大模型接口错误",
    Code.AUDIO_TO_TEXT_ERROR: "语音识别请求失败",
    Code.FILE_FORMAT_ILLEGAL: "文件格式不合法",
    Code.GET_FILE_FAIL: "获取文件失败",
    Code.PIC_TIMES_NOT_ENOUGH: "用户文字识别可用额度不足",
    Code.PICTURE_TO_TEXT_ERROR: "文字识别接口请求错误",
    Code.ADD_USER_ERROR: "添加用户失败",
    Code.MODIFY_USER_ERROR: "修改用户消息错误",
    Code.DELETE_USER_ERROR: "目标用户删除失败",
    Code.ADD_ADMIN_ERROR: "添加管理员失败",
    Code.MODIFY_ADMIN_ERROR: "修改管理员信息错误",
    Code.DELETE_ADMIN_ERROR: "目标管理员删除失败",
    Code.ADD_TOKEN_ERROR: "添加令牌失败",
    Code.TOKEN_REPEAT: "令牌重名",
    Code.TOKEN_NOT_FOUND: "找不到目标令牌",
    Code.MODIFY_TOKEN_ERROR: "修改令牌错误",
    Code.DELETE_TOKEN_ERROR: "删除令牌时出现错误",
    Code.CONTROL_TOKEN_ERROR: "修改令牌状态信息失败",
    Code.USER_GET_TOKEN_ERROR: "用户兑换令牌错误",
    Code.TOKEN_ALREADY_GET: "用户已兑换过该令牌",
    Code.TOKEN_NOT_FOUNDUSER_NOT_FOUND: "找不到对应的令牌或找不到对应的用户",
    Code.TOKEN_NOT_AVAILABLE: "令牌不可用",
    Code.TABLE_NOT_FOUND: "未查询到指定表",
    Code.QUERY_TABLE_ERROR: "查询时遇到错误",
    Code.QUERY_TABLE_DATA_ERROR: "查询表中数据总数失败",
    Code.METHOD_NOT_ALLOWED: "405错误 该地址不支持这种请求方法",
    Code.REQUEST_TOO_LARGE: "413错误 请求体过大",
    Code.REQUEST_TIMEOUT: "408错误 请求发送超时",
    Code.UNSUPPORTED_ENCODING: "415错误 不接受压缩或编码过的请求体",
    Code.TOO_MANY_REQUESTS: f"请求过于频繁，{COME_BACK}",
    Code.SERVICE_UNAVAILABLE: "服务暂时不可用，请稍后再试",
    Code.VOICE_SECONDS_NOT_ENOUGH: "用户语音识别可用时长不足",
    Code.REGISTRATION_CLOSED: "当前不开放注册",
    Code.RECEIPT_NOT_FOUND: "找不到该次调用的记录",
    Code.NOT_SIGNED_IN: "请先登录，或提供有效的密钥",
    Code.ITEM_NOT_FOUND: "找不到指定的对象",
    Code.KEY_LIMIT_REACHED: "该密钥的额度已用完",
}
