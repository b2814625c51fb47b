"""The body of ``POST /v1/chat/completions``, as the official SDKs send it.

Members without effect on the answer are declared and ignored: OpenAI keeps them for statistics, for its cache or for an
attempt at determinism. Members that no provider here honours are declared so that they can be refused by name.

Source: OpenAI, "API reference", Chat Completions.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

__all__ = [
    "AnswerFormat",
    "ChatCompletion",
    "CompletionMessage",
    "FunctionTool",
    "ImageContent",
    "NamedToolChoice",
    "RefusalContent",
    "TextContent",
    "ToolMode",
]


class TextContent(msgspec.Struct, tag_field="type", tag="text"):
    """一段文本。"""

    text: Annotated[str, Meta(description="文本")]


class ImageUrl(msgspec.Struct):
    """一张图片。"""

    url: Annotated[str, Meta(description="图片的 `data:` 地址，Base64 编码；服务器不会获取其他地址")]
    detail: Annotated[Literal["auto", "low", "high"], Meta(description="清晰度")] = "auto"


class ImageContent(msgspec.Struct, tag_field="type", tag="image_url"):
    """消息中的图片。"""

    image_url: Annotated[ImageUrl, Meta(description="图片")]


class RefusalContent(msgspec.Struct, tag_field="type", tag="refusal"):
    """模型以前的拒绝。"""

    refusal: Annotated[str, Meta(description="拒绝的原话")]


_Role = Literal["system", "developer", "user", "assistant", "tool"]
ToolMode = Literal["auto", "none", "required"]
Content = str | list[TextContent | ImageContent | RefusalContent] | None


class CalledFunction(msgspec.Struct):
    """被调用的函数。"""

    name: Annotated[str, Meta(description="函数名")]
    arguments: Annotated[str, Meta(description="参数，JSON 文本")]


class MessageToolCall(msgspec.Struct):
    """模型要求的一次工具调用。"""

    id: Annotated[str, Meta(description="调用的 id，结果以它对应")]
    function: Annotated[CalledFunction, Meta(description="被调用的函数")]
    type: Annotated[Literal["function"], Meta(description="总是 `function`")] = "function"


class CompletionMessage(msgspec.Struct):
    """对话中的一条消息。"""

    role: Annotated[_Role, Meta(description="说话者；developer 与 system 相同")]
    content: Annotated[Content, Meta(description="文本，或各部分")] = None
    name: Annotated[str | None, Meta(description="说话者的名字，没有作用")] = None
    tool_calls: Annotated[list[MessageToolCall] | None, Meta(description="模型在这一轮要求的调用")] = None
    tool_call_id: Annotated[str | None, Meta(description="`tool` 消息所回答的调用")] = None
    refusal: Annotated[str | None, Meta(description="模型以前的拒绝")] = None
    reasoning_content: Annotated[str | None, Meta(description="模型以前的思考，没有作用")] = None


class FunctionDefinition(msgspec.Struct):
    """模型可以要求调用的函数。"""

    name: Annotated[str, Meta(description="函数名")]
    description: Annotated[str, Meta(description="给模型看的说明")] = ""
    parameters: Annotated[dict[str, Any], Meta(description="参数的 JSON Schema")] = {}
    strict: Annotated[bool | None, Meta(description="没有作用")] = None


class FunctionTool(msgspec.Struct):
    """一个工具。"""

    function: Annotated[FunctionDefinition, Meta(description="函数")]
    type: Annotated[Literal["function"], Meta(description="总是 `function`")] = "function"


class FunctionName(msgspec.Struct):
    """函数的名字。"""

    name: Annotated[str, Meta(description="函数名")]


class NamedToolChoice(msgspec.Struct):
    """必须调用的工具。"""

    function: Annotated[FunctionName, Meta(description="函数")]
    type: Annotated[Literal["function"], Meta(description="总是 `function`")] = "function"


class AnswerSchema(msgspec.Struct):
    """回答必须符合的 JSON Schema。"""

    name: Annotated[str, Meta(description="名字")]
    schema: Annotated[dict[str, Any], Meta(description="JSON Schema")] = {}
    description: Annotated[str | None, Meta(description="给模型看的说明")] = None
    strict: Annotated[bool | None, Meta(description="没有作用")] = None


class AnswerFormat(msgspec.Struct):
    """回答的格式。"""

    type: Annotated[Literal["text", "json_object", "json_schema"], Meta(description="种类")]
    json_schema: Annotated[AnswerSchema | None, Meta(description="只与 `json_schema` 一起使用")] = None


class StreamOptions(msgspec.Struct):
    """流的选项。"""

    include_usage: Annotated[bool, Meta(description="最后另发一个带用量的事件")] = False
    include_obfuscation: Annotated[bool, Meta(description="没有作用")] = False


class ChatCompletion(msgspec.Struct, forbid_unknown_fields=True):
    """The body as sent; `to_chat` is what it asks."""

    model: Annotated[str, Meta(description="模型的公开名字，见 `/v1/models`")]
    messages: Annotated[list[CompletionMessage], Meta(description="对话，由旧到新，最多 2000 条")]
    stream: Annotated[bool | None, Meta(description="是否以 SSE 逐段回答")] = None
    stream_options: Annotated[StreamOptions | None, Meta(description="流的选项")] = None
    max_tokens: Annotated[int | None, Meta(description="回答的上限，token；`max_completion_tokens` 优先")] = None
    max_completion_tokens: Annotated[int | None, Meta(description="回答的上限，token；余额不足时更低")] = None
    temperature: Annotated[float | None, Meta(description="采样温度，0 到 2")] = None
    top_p: Annotated[float | None, Meta(description="核采样，0 到 1")] = None
    stop: Annotated[str | list[str] | None, Meta(description="遇到即停止的文本")] = None
    tools: Annotated[list[FunctionTool] | None, Meta(description="模型可以要求调用的工具")] = None
    tool_choice: Annotated[ToolMode | NamedToolChoice | None, Meta(description="是否调用工具")] = None
    response_format: Annotated[AnswerFormat | None, Meta(description="回答的格式")] = None
    parallel_tool_calls: Annotated[bool | None, Meta(description="没有作用")] = None
    user: Annotated[str | None, Meta(description="没有作用")] = None
    safety_identifier: Annotated[str | None, Meta(description="没有作用")] = None
    prompt_cache_key: Annotated[str | None, Meta(description="没有作用")] = None
    metadata: Annotated[dict[str, str] | None, Meta(description="没有作用")] = None
    seed: Annotated[int | None, Meta(description="没有作用")] = None
    service_tier: Annotated[str | None, Meta(description="没有作用")] = None
    n: Annotated[int | None, Meta(description="只能是 1")] = None
    logprobs: Annotated[bool | None, Meta(description="只能是 false")] = None
    top_logprobs: Annotated[int | None, Meta(description="只能是 0")] = None
    presence_penalty: Annotated[float | None, Meta(description="只能是 0")] = None
    frequency_penalty: Annotated[float | None, Meta(description="只能是 0")] = None
    logit_bias: Annotated[dict[str, float] | None, Meta(description="只能为空")] = None
    modalities: Annotated[list[str] | None, Meta(description="只能是 text 一项")] = None
    audio: Annotated[Any, Meta(description="不支持")] = None
    prediction: Annotated[Any, Meta(description="不支持")] = None
    web_search_options: Annotated[Any, Meta(description="不支持")] = None
    functions: Annotated[list[Any] | None, Meta(description="不支持，用 `tools`")] = None
    function_call: Annotated[Any, Meta(description="不支持，用 `tool_choice`")] = None
    store: Annotated[bool | None, Meta(description="只能是 false")] = None
    reasoning_effort: Annotated[str | None, Meta(description="只能是 `none`")] = None
    verbosity: Annotated[str | None, Meta(description="只能是 `medium`")] = None

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with an event that has the usage."""
        return self.stream_options is not None and self.stream_options.include_usage
