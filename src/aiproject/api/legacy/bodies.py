"""The bodies of the legacy API's calls, as they are decoded and described."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aiproject.accounts.routes.field_types import Username, Uuid
from aiproject.adapters.http.fields import document

__all__ = [
    "BrowserChat",
    "ChatBody",
    "DialogMessage",
    "KeyChat",
    "PairChat",
    "Transcript",
    "WholeAnswer",
]


class DialogMessage(Struct):
    """A message of a dialog."""

    role: Annotated[Literal["system", "user", "assistant"], Meta(description="谁说的")]
    content: Annotated[str, Meta(description="文字", examples=["你好"])]


Dialog = Annotated[
    list[DialogMessage],
    Meta(description="历史对话消息，最后一条为用户的问题；空内容的消息会被忽略"),
    document(minItems=1),
]


class PairChat(Struct):
    """The body of a call by uuid and name."""

    uuid: Uuid
    username: Username
    dialog: Dialog


class KeyChat(Struct):
    """The body beside an API key: who calls is not looked for in it."""

    dialog: Dialog


class BrowserChat(Struct):
    """A dialog, and who calls. An API key or a session's cookie says so as well; without them, both are required."""

    dialog: Dialog
    uuid: Annotated[Uuid | None, Meta(description="不使用 API 密钥或会话时必填")] = None
    username: Annotated[Username | None, Meta(description="不使用 API 密钥或会话时必填")] = None


ChatBody = PairChat | KeyChat | BrowserChat
"""The credentials in the header fields determine which of these is decoded."""


class WholeAnswer(Struct, kw_only=True):
    """The whole answer of the text model."""

    content: Annotated[str, Meta(description="回答", examples=["你好！"])]
    consume_token: Annotated[
        int, Meta(description="消耗的 token 数", examples=[14]), document(minimum=0, **{"x-unit": "token"})
    ]


class Transcript(Struct, kw_only=True):
    """The words of a picture or of a clip."""

    content: Annotated[str, Meta(description="识别出的文字")]
