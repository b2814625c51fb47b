"""The descriptions of the legacy API's calls; `aiproject.web.app` mounts their endpoints."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from aiproject.accounts.routes.field_types import UUID_EXAMPLE
from aiproject.accounts.routes.operations import caller
from aiproject.adapters.http.operation import Answer, BodyOperation, UploadOperation
from aiproject.api.legacy.bodies import BrowserChat, Transcript, WholeAnswer
from aiproject.codes import Code, Success

__all__ = ["OPERATIONS"]

TAG = "大模型"
DIALOG = {
    "提问": {
        "uuid": UUID_EXAMPLE,
        "username": "小明",
        "dialog": [{"role": "system", "content": ""}, {"role": "user", "content": "你好"}],
    }
}
CHAT_CODES = (Code.USER_NOT_FOUND, Code.TOKEN_NOT_ENOUGH, Code.MODEL_ERROR)


class VoiceQuery(Struct, kw_only=True):
    """How a bare clip is to be read."""

    rate: Annotated[Literal[16000, 8000], Meta(description="裸 PCM 的采样率，单位为 Hz；WAV 以文件头为准")] = 16000


class Frame(Struct, kw_only=True):
    """A frame of iFlytek's Spark."""

    header: Annotated[dict[str, Any], Meta(description="code 为 0 表示成功；status 为 2 的是最后一帧")]
    payload: Annotated[dict[str, Any], Meta(description="回答的一段，最后一帧带有用量")]


FRAME = Frame(
    header={"code": 0, "message": "Success", "sid": "cht000cb087@dx18793cd421fb894542", "status": 2},
    payload={
        "choices": {"status": 2, "seq": 0, "text": [{"content": "你好！", "role": "assistant", "index": 0}]},
        "usage": {"text": {"question_tokens": 4, "prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}},
    },
)

CHAT = BodyOperation(
    name="textChat",
    method="POST",
    path="/textModel/chat",
    summary="文本模型（非流式）",
    tag=TAG,
    access=caller(in_headers=False),
    request=BrowserChat,
    examples=DIALOG,
    answers=(Answer(message=Success.CHAT_ANSWERED, body=WholeAnswer(content="你好！", consume_token=14)),),
    failures={200: CHAT_CODES},
)
STREAM = BodyOperation(
    name="textStream",
    method="POST",
    path="/textModel/stream",
    summary="文本模型（流式，推荐）",
    tag=TAG,
    access=caller(in_headers=False),
    request=BrowserChat,
    examples=DIALOG,
    answers=(
        Answer(
            description=(
                "成功时为讯飞星火原样的帧，每个 HTTP 分块恰好一帧，以换行结束；`Accept: text/event-stream` 时为 SSE。"
                "首帧之前的失败是 `{code, msg}`；之后的失败是 `header.code` 非 0 的一帧，然后结束。"
            ),
            body=FRAME,
            has_envelope=False,
            media_types=("text/event-stream",),
        ),
    ),
    failures={200: CHAT_CODES},
)
VOICE = UploadOperation(
    name="voice",
    method="POST",
    path="/voiceModel/chat",
    summary="语音识别，最长 60 秒",
    tag=TAG,
    access=caller(in_headers=True, is_needed=False),
    query=VoiceQuery,
    media_types=("application/octet-stream", "audio/wav"),
    upload="16 位单声道 PCM 或 WAV；表单中的空文件视为静音",
    answers=(Answer(message=Success.DONE, body=Transcript(content="今天天气怎么样？")),),
    failures={
        200: (
            Code.AUDIO_TO_TEXT_ERROR,
            Code.FILE_FORMAT_ILLEGAL,
            Code.GET_FILE_FAIL,
            Code.USER_NOT_FOUND,
            Code.VOICE_SECONDS_NOT_ENOUGH,
        )
    },
)
PICTURE = UploadOperation(
    name="picture",
    method="POST",
    path="/PictureToTextModel/chat",
    summary="图片识别文字",
    tag=TAG,
    access=caller(in_headers=True),
    media_types=("image/jpeg", "image/png", "image/bmp"),
    upload="jpg、jpeg、png 或 bmp 图片，最大 16 MB",
    answers=(Answer(message=Success.DONE, body=Transcript(content="第一行\n第二行")),),
    failures={
        200: (
            Code.USER_NOT_FOUND,
            Code.PIC_TIMES_NOT_ENOUGH,
            Code.FILE_FORMAT_ILLEGAL,
            Code.GET_FILE_FAIL,
            Code.PICTURE_TO_TEXT_ERROR,
        )
    },
)

OPERATIONS = (CHAT, STREAM, VOICE, PICTURE)
"""For the description, see `aiproject.web.openapi`."""
