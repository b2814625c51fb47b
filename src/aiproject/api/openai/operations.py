"""The addresses of OpenAI's API as they are described."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from aiproject.adapters.http.operation import Access, Answer, BodyOperation, Operation
from aiproject.protocols.openai.body import ChatCompletion

__all__ = ["CHAT_COMPLETIONS", "LIST_MODELS", "OPERATIONS", "SHOW_MODEL"]

TAG: Final = "OpenAI"


class OpenAIFault(Struct, kw_only=True):
    """A failure, as the SDKs read it."""

    message: Annotated[str, Meta(description="给用户看的一句话，语言由 `Accept-Language` 决定")]
    type: Annotated[str, Meta(description="失败的种类")]
    param: Annotated[str | None, Meta(description="有误的字段")] = None
    code: Annotated[str, Meta(description="失败的代码")]


class OpenAIError(Struct, kw_only=True):
    """The answer to a call that failed."""

    error: Annotated[OpenAIFault, Meta(description="失败")]


class OpenAIModel(Struct, kw_only=True):
    """A model."""

    id: Annotated[str, Meta(description="公开名字")]
    object: Annotated[str, Meta(description="总是 `model`")] = "model"
    created: Annotated[int, Meta(description="总是 0")] = 0
    owned_by: Annotated[str, Meta(description="总是 `aiproject`")] = "aiproject"


class OpenAIModels(Struct, kw_only=True):
    """All models."""

    object: Annotated[str, Meta(description="总是 `list`")] = "list"
    data: Annotated[list[OpenAIModel], Meta(description="模型")]


class OpenAICompletion(Struct, kw_only=True):
    """A whole answer."""

    id: Annotated[str, Meta(description="唯一的 id")]
    object: Annotated[str, Meta(description="总是 `chat.completion`")] = "chat.completion"
    created: Annotated[int, Meta(description="Unix 时间，秒", extra_json_schema={"x-unit": "second"})]
    model: Annotated[str, Meta(description="回答的模型")]
    choices: Annotated[list[dict[str, Any]], Meta(description="唯一的一个回答")]
    usage: Annotated[dict[str, Any], Meta(description="用量，token")]


def _error(kind: str, code: str, message: str, param: str | None = None) -> OpenAIError:
    return OpenAIError(error=OpenAIFault(message=message, type=kind, param=param, code=code))


_INPUT: Final = "invalid_request_error"

_BODIES: Final = {
    401: ("没有密钥，或密钥无效", _error(_INPUT, "invalid_api_key", "请先登录，或提供有效的密钥")),
    403: ("密钥不可使用该模型，或不可来自这个地址", _error(_INPUT, "model_not_allowed", "权限不足")),
    404: ("没有这个模型", _error(_INPUT, "model_not_found", "找不到模型 gpt-0")),
    429: ("请求过于频繁", _error("rate_limit_error", "rate_limit_exceeded", "请求过于频繁，请稍后再试")),
    500: ("服务器内部错误", _error("server_error", "internal_error", "500错误 服务器内部错误")),
    503: ("服务暂时不可用", _error("server_error", "service_unavailable", "服务暂时不可用，请稍后再试")),
}

_CHAT_BODIES: Final = {
    **_BODIES,
    400: ("请求有误，或内容未通过审核", _error(_INPUT, "field_missing", "缺少 messages", "messages")),
    408: ("请求体发送太慢", _error(_INPUT, "request_timeout", "408错误 请求发送超时")),
    413: ("请求体过大", _error(_INPUT, "request_too_large", "请求体超过上限（32 MB）")),
    415: ("请求体被压缩", _error(_INPUT, "unsupported_encoding", "415错误 不接受压缩或编码过的请求体")),
    429: (
        "请求过于频繁；额度用完时 `type` 与 `code` 为 `insufficient_quota`，`x-should-retry` 为 false",
        _error("insufficient_quota", "insufficient_quota", "用户token额度不足"),
    ),
    502: ("模型服务失败", _error("upstream_error", "upstream_failed", "模型的回答中断，请稍后再试")),
    504: ("模型服务超时", _error("upstream_error", "upstream_timeout", "模型响应超时，请稍后再试")),
}

_SECURITY: Final[tuple[dict[str, list[str]], ...]] = ({"apiKey": []},)
_MODEL: Final = OpenAIModel(id="spark")

CHAT_COMPLETIONS: Final = BodyOperation(
    name="createChatCompletion",
    method="POST",
    path="/v1/chat/completions",
    summary="对话（OpenAI 格式）",
    tag=TAG,
    access=Access(security=_SECURITY, bodies=_CHAT_BODIES),
    request=ChatCompletion,
    examples={"提问": {"model": "spark", "messages": [{"role": "user", "content": "你好"}]}},
    answers=(
        Answer(
            description="整个回答；`stream` 为 true 时为 SSE，以 `data: [DONE]` 结束，中断时以带 `error` 的事件结束",
            body=OpenAICompletion(
                id="chatcmpl-1a2242175d1210b73a3eb002",
                created=1795902502,
                model="spark",
                choices=[
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "你好！", "refusal": None},
                        "logprobs": None,
                        "finish_reason": "stop",
                    }
                ],
                usage={"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14},
            ),
            has_envelope=False,
            media_types=("text/event-stream",),
        ),
    ),
    has_faults=False,
)
LIST_MODELS: Final = Operation(
    name="listModels",
    method="GET",
    path="/v1/models",
    summary="模型列表（OpenAI 格式）",
    tag=TAG,
    access=Access(security=_SECURITY, bodies={status: body for status, body in _BODIES.items() if status != 404}),
    answers=(Answer(description="所有模型", body=OpenAIModels(data=[_MODEL]), has_envelope=False),),
    has_faults=False,
)
SHOW_MODEL: Final = Operation(
    name="retrieveModel",
    method="GET",
    path="/v1/models/{model}",
    summary="一个模型（OpenAI 格式）",
    tag=TAG,
    access=Access(security=_SECURITY, bodies=_BODIES),
    path_parameters={"model": "公开名字"},
    answers=(Answer(description="模型", body=_MODEL, has_envelope=False),),
    has_faults=False,
)

OPERATIONS: Final = (CHAT_COMPLETIONS, LIST_MODELS, SHOW_MODEL)
