"""The addresses of the seed's door, the receipts and the probes."""

from __future__ import annotations

from typing import Any

from aiproject.codes import Code
from aiproject.protocols.legacy import LIMITS_TOLD_WITH_200
from aiproject.web.openapi.parts import (
    CHOSEN_PASSWORD,
    FAULTS,
    NAME,
    PASSWORD,
    PASSWORD_RULE,
    UUID,
    Schema,
    answers,
    by_key,
    fault,
    identity_headers,
    json_content,
    object_of,
    success,
    upload,
)

__all__ = ["paths"]

DIALOG: Schema = {
    "type": "array",
    "minItems": 1,
    "description": "历史对话消息，最后一条为用户的问题；空内容的消息会被忽略",
    "items": object_of(
        {"role": {"type": "string", "enum": ["system", "user", "assistant"]}, "content": {"type": "string"}}
    ),
}
CHAT: Schema = object_of(
    {"uuid": UUID, "username": NAME, "dialog": DIALOG},
    ["dialog"],
    description="uuid 和 username 在不使用 API 密钥时必填",
)
CHAT_EXAMPLE = {
    "提问": {
        "uuid": "0b9f2c7d4e8a4f7f9a3d5c1e6b8a7f20",
        "username": "小明",
        "dialog": [{"role": "system", "content": ""}, {"role": "user", "content": "你好"}],
    }
}
FRAME_EXAMPLE = {
    "header": {"code": 0, "message": "Success", "sid": "cht000cb087@dx18793cd421fb894542", "status": 2},
    "payload": {
        "choices": {"status": 2, "seq": 0, "text": [{"content": "你好！", "role": "assistant", "index": 0}]},
        "usage": {"text": {"question_tokens": 4, "prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}},
    },
}
CHAT_CODES = [Code.USER_NOT_FOUND, Code.TOKEN_NOT_ENOUGH, Code.MODEL_ERROR]
CONTENT: dict[str, Schema] = {"content": {"type": "string"}}


def _auth_paths() -> dict[str, Any]:
    register = object_of(
        {
            "username": NAME,
            "password": {**CHOSEN_PASSWORD, "description": PASSWORD_RULE},
            "email": {"type": "string", "maxLength": 254},
        },
    )
    register["properties"]["academy"] = {"type": ["string", "null"], "maxLength": 100, "description": "学院，可不填"}
    account: dict[str, Schema] = {
        "uuid": UUID,
        "username": {"type": "string"},
        "email": {"type": "string"},
        "tokens": {"type": "integer", "minimum": 0},
        "picTimes": {"type": "integer", "minimum": 0},
    }
    return {
        "/auth/register": {
            "post": {
                "tags": ["用户鉴权"],
                "summary": "注册",
                "operationId": "register",
                "requestBody": {
                    "required": True,
                    "content": json_content(
                        register,
                        {"注册": {"username": "小明", "password": "correct horse", "email": "ming@example.com"}},
                    ),
                },
                "responses": answers(
                    success("用户注册成功", {}),
                    [Code.USER_NAME_REPEAT, Code.REGISTRATION_CLOSED, Code.APP_QUERY_METHOD_ERROR],
                    {"code": 0, "msg": "用户注册成功"},
                    limited=True,
                ),
            }
        },
        "/auth/login": {
            "post": {
                "tags": ["用户鉴权"],
                "summary": "登录",
                "operationId": "login",
                "requestBody": {
                    "required": True,
                    "content": json_content(
                        object_of({"username": NAME, "password": PASSWORD}),
                        {"登录": {"username": "小明", "password": "correct horse"}},
                    ),
                },
                "responses": answers(
                    success("用户登录成功", account, {"academy": {"type": "string"}}),
                    [Code.LOGIN_ERROR, Code.APP_QUERY_METHOD_ERROR],
                    {
                        "code": 0,
                        "msg": "用户登录成功",
                        "uuid": "0b9f2c7d4e8a4f7f9a3d5c1e6b8a7f20",
                        "username": "小明",
                        "email": "ming@example.com",
                        "tokens": 10000,
                        "picTimes": 10,
                    },
                    limit_code=LIMITS_TOLD_WITH_200["/auth/login"],
                ),
            }
        },
    }


def _text_paths() -> dict[str, Any]:
    body = {"required": True, "content": json_content(CHAT, CHAT_EXAMPLE)}
    frame = {"title": "帧", **object_of({"header": {"type": "object"}, "payload": {"type": "object"}}, ["header"])}
    stream = answers(frame, CHAT_CODES, FRAME_EXAMPLE)
    stream["200"]["description"] = (
        "成功时为讯飞星火原样的帧，每个 HTTP 分块恰好一帧，以换行结束；`Accept: text/event-stream` 时为 SSE。"
        "首帧之前的失败是 `{code, msg}`；之后的失败是 `header.code` 非 0 的一帧，然后结束。"
    )
    stream["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "/textModel/chat": {
            "post": {
                "tags": ["大模型"],
                "summary": "文本模型（非流式）",
                "operationId": "textChat",
                "requestBody": body,
                "responses": answers(
                    success("文本大模型回复成功", {**CONTENT, "consume_token": {"type": "integer", "minimum": 0}}),
                    CHAT_CODES,
                    {"code": 0, "msg": "文本大模型回复成功", "content": "你好！", "consume_token": 14},
                ),
            }
        },
        "/textModel/stream": {
            "post": {
                "tags": ["大模型"],
                "summary": "文本模型（流式，推荐）",
                "operationId": "textStream",
                "requestBody": body,
                "responses": stream,
            }
        },
    }


def _file_paths() -> dict[str, Any]:
    done = success("请求成功", CONTENT)
    return {
        "/voiceModel/chat": {
            "post": {
                "tags": ["大模型"],
                "summary": "语音识别，最长 60 秒",
                "operationId": "voice",
                "parameters": [
                    {
                        "name": "rate",
                        "in": "query",
                        "required": False,
                        "schema": {"type": "integer", "enum": [16000, 8000], "default": 16000},
                        "description": "裸 PCM 的采样率；WAV 以文件头为准",
                    },
                    *identity_headers(False),
                ],
                "requestBody": upload(
                    "16 位单声道 PCM 或 WAV；表单中的空文件视为静音", "application/octet-stream", "audio/wav"
                ),
                "responses": answers(
                    done,
                    [
                        Code.AUDIO_TO_TEXT_ERROR,
                        Code.FILE_FORMAT_ILLEGAL,
                        Code.GET_FILE_FAIL,
                        Code.USER_NOT_FOUND,
                        Code.VOICE_SECONDS_NOT_ENOUGH,
                    ],
                    {"code": 0, "msg": "请求成功", "content": "今天天气怎么样？"},
                    limit_code=LIMITS_TOLD_WITH_200["/voiceModel/chat"],
                ),
            }
        },
        "/PictureToTextModel/chat": {
            "post": {
                "tags": ["大模型"],
                "summary": "图片识别文字",
                "operationId": "picture",
                "parameters": identity_headers(True),
                "requestBody": upload("jpg、jpeg、png 或 bmp 图片，最大 16 MB", "image/jpeg", "image/png", "image/bmp"),
                "responses": answers(
                    done,
                    [
                        Code.USER_NOT_FOUND,
                        Code.PIC_TIMES_NOT_ENOUGH,
                        Code.FILE_FORMAT_ILLEGAL,
                        Code.GET_FILE_FAIL,
                        Code.PICTURE_TO_TEXT_ERROR,
                    ],
                    {"code": 0, "msg": "请求成功", "content": "第一行\n第二行"},
                    limit_code=LIMITS_TOLD_WITH_200["/PictureToTextModel/chat"],
                ),
            }
        },
    }


def _voucher_paths() -> dict[str, Any]:
    return {
        "/user/get_token": {
            "post": {
                "tags": ["用户"],
                "summary": "兑换令牌",
                "operationId": "redeem",
                "requestBody": {
                    "required": True,
                    "content": json_content(
                        object_of(
                            {
                                "token_id": {
                                    "type": "string",
                                    "maxLength": 56,
                                    "description": "令牌的兑换码，不分大小写",
                                },
                                "user_id": UUID,
                                "user_academy": {
                                    "type": ["string", "null"],
                                    "description": "用户的学院；仅在账户没有登记学院时采用",
                                },
                            },
                            ["token_id", "user_id"],
                        ),
                        {
                            "兑换": {
                                "token_id": "7G3K-QX0N-M2RD-94VB",
                                "user_id": "0b9f2c7d4e8a4f7f9a3d5c1e6b8a7f20",
                                "user_academy": "计算机学院",
                            }
                        },
                    ),
                },
                "responses": answers(
                    success("兑换令牌成功", {}),
                    [Code.TOKEN_NOT_FOUNDUSER_NOT_FOUND, Code.TOKEN_ALREADY_GET, Code.USER_GET_TOKEN_ERROR],
                    {"code": 0, "msg": "兑换令牌成功"},
                    limit_code=LIMITS_TOLD_WITH_200["/user/get_token"],
                ),
            }
        },
    }


CAPABILITY: dict[str, Schema] = {
    "capability": {"type": "string", "enum": ["tokens", "pic_times", "voice_seconds"]},
    "unit": {"type": "string", "enum": ["token", "picture", "millisecond"], "description": "数量的单位"},
}
MOMENT: Schema = {"type": "string", "format": "date-time", "description": "UTC"}
RULE: Schema = {"type": "object", "description": "当时的计费规则及其依据"}
USAGE_EXAMPLE = {
    "code": 0,
    "msg": "查询成功",
    "entries": [
        {
            "seq": 2,
            "time": "2026-05-01T08:30:00.123Z",
            "kind": "charge",
            "capability": "tokens",
            "unit": "token",
            "amount": -14,
            "balance": 9986,
            "request_id": "5f0c3d9a7b1e4c2d8f6a0b3e",
            "attempt": 1,
            "rule": {"completion_limit": 4096, "prompt_estimate": 5, "rule": 1},
            "hash": "9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab",
        },
        {
            "seq": 1,
            "time": "2026-05-01T08:00:00.000Z",
            "kind": "signup",
            "capability": "tokens",
            "unit": "token",
            "amount": 10000,
            "balance": 10000,
            "reference": "signup",
            "rule": {},
            "hash": "4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce",
        },
    ],
    "next": None,
}
RECEIPT_EXAMPLE = {
    "code": 0,
    "msg": "查询成功",
    "request_id": "5f0c3d9a7b1e4c2d8f6a0b3e",
    "attempts": [
        {
            "attempt": 1,
            "capability": "tokens",
            "unit": "token",
            "state": "captured",
            "stage": "last frame",
            "outcome": "finished",
            "held": 4101,
            "reported": 14,
            "charged": 14,
            "lost": 0,
            "unpaid": 0,
            "refunded": 0,
            "explanation": {
                "zh": "调用已完成。按平台报告的用量扣除 14 个 token。",
                "en": "The call was finished. Charged 14 tokens, as the platform reported.",
            },
            "sid": "cht000cb087@dx18793cd421fb894542",
            "rule": {"completion_limit": 4096, "prompt_estimate": 5, "rule": 1},
            "opened_at": "2026-05-01T08:29:58.020Z",
            "closed_at": "2026-05-01T08:30:00.123Z",
        }
    ],
}


def _usage_paths() -> dict[str, Any]:
    integer: Schema = {"type": "integer"}
    maybe_integer: Schema = {"type": ["integer", "null"]}
    entry = object_of(
        {
            "seq": {"type": "integer", "minimum": 1, "description": "账户内从 1 起连续编号"},
            "time": MOMENT,
            "kind": {"type": "string", "enum": ["opening", "signup", "grant", "voucher", "charge", "refund"]},
            **CAPABILITY,
            "amount": {"type": "integer", "description": "余额的变化；负数为扣费"},
            "balance": {"type": ["integer", "null"], "description": "变化后的余额；`null` 为不计量"},
            "rule": RULE,
            "hash": {"type": "string", "description": "本条与上一条的 SHA-256 链"},
        }
    )
    entry["properties"] |= {
        "request_id": {"type": "string", "description": "扣费的调用（应答头 `X-Request-Id`）"},
        "attempt": integer,
        "reference": {"type": "string", "description": "其它变动的来由"},
    }
    attempt = object_of(
        {
            "attempt": integer,
            **CAPABILITY,
            "state": {"type": "string", "enum": ["open", "captured", "released"]},
            "stage": {"type": "string", "description": "调用进行到哪一步"},
            "outcome": {"type": ["string", "null"], "description": "调用如何结束；`null` 为仍在进行"},
            "held": {"type": "integer", "description": "调用前预留的数量"},
            "reported": {"type": ["integer", "null"], "description": "平台报告的用量"},
            "charged": maybe_integer,
            "lost": {"type": "integer", "description": "平台可能计费而未扣除、由运营方承担的数量"},
            "unpaid": {"type": "integer", "description": "其中计入当日免付用量的数量"},
            "refunded": {"type": "integer", "description": "之后退还的数量"},
            "explanation": object_of({"zh": {"type": "string"}, "en": {"type": "string"}}),
            "sid": {"type": ["string", "null"], "description": "平台的会话号"},
            "rule": RULE,
            "opened_at": MOMENT,
            "closed_at": {**MOMENT, "type": ["string", "null"]},
        }
    )
    page = success("查询成功", {"entries": {"type": "array", "items": entry}, "next": maybe_integer})
    receipt = success("查询成功", {"request_id": {"type": "string"}, "attempts": {"type": "array", "items": attempt}})
    told = answers(receipt, [Code.USER_NOT_FOUND], RECEIPT_EXAMPLE)
    told["404"] = fault(Code.RECEIPT_NOT_FOUND, "该账户没有这次调用")
    return {
        "/v1/usage": {
            "get": {
                "tags": ["用户"],
                "summary": "账目，从新到旧",
                "operationId": "usage",
                "parameters": [
                    {
                        "name": "limit",
                        "in": "query",
                        "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
                    },
                    {
                        "name": "before",
                        "in": "query",
                        "schema": {"type": "integer", "minimum": 1},
                        "description": "只要编号更小的；取上一页的 `next`",
                    },
                    *identity_headers(True),
                ],
                "responses": answers(page, [Code.USER_NOT_FOUND, Code.APP_QUERY_METHOD_ERROR], USAGE_EXAMPLE),
            }
        },
        "/v1/usage/{request_id}": {
            "get": {
                "tags": ["用户"],
                "summary": "一次调用为何扣费",
                "operationId": "receipt",
                "parameters": [
                    {
                        "name": "request_id",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "string"},
                        "description": "调用的 `X-Request-Id`",
                    },
                    *identity_headers(True),
                ],
                "responses": told,
            }
        },
    }


def _probe_paths() -> dict[str, Any]:
    alive = success("ok", {"status": {"type": "string"}})
    return {
        "/health": {
            "get": {
                "tags": ["运维"],
                "summary": "进程存活",
                "operationId": "health",
                "responses": {"200": {"description": "alive", "content": json_content(alive)}},
            }
        },
        "/ready": {
            "get": {
                "tags": ["运维"],
                "summary": "数据库与表结构就绪",
                "operationId": "ready",
                "responses": {
                    "200": {"description": "ready", "content": json_content(alive)},
                    "503": FAULTS["503"],
                },
            }
        },
    }


def paths() -> dict[str, Any]:
    """Return the paths of this part."""
    charging = {**_text_paths(), **_file_paths()}
    return {
        **_auth_paths(),
        **{path: {"post": by_key(item["post"], may_spend=True)} for path, item in charging.items()},
        **_voucher_paths(),
        **{path: {"get": by_key(item["get"], may_spend=False)} for path, item in _usage_paths().items()},
        **_probe_paths(),
    }
