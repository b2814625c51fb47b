"""The platform's side of image understanding (图片理解), and the size of a picture without an imaging library.

Source: iFlytek, 《图片理解 API 文档》.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

import msgspec

from aiproject.protocols.iflytek.spark.estimate import estimate_tokens
from aiproject.protocols.iflytek.spark.server import SparkRequestError

__all__ = ["ImageQuestion", "parse_image_question"]

_MAX_FILE: Final = 4 * 1024 * 1024
_MAX_SIDE: Final = 12_800
_MIN_PIXELS: Final = 50 * 50
_MAX_PIXELS: Final = 6000 * 6000
_CONTEXT: Final = 8192  # tokens, input and output together
_BASIC_IMAGE_TOKENS: Final = 273  # the document's figure for domain "general"
_DOMAINS: Final = ("general", "imagev3", "image")  # "image": sent by the old Python SDK


class _Chat(msgspec.Struct):
    domain: str = "general"
    temperature: float = 0.5
    top_k: int = 4
    max_tokens: int = 2048


class _Parameter(msgspec.Struct):
    chat: _Chat


class _Text(msgspec.Struct):
    role: str
    content: str
    content_type: str = "text"


class _Message(msgspec.Struct):
    text: list[_Text]


class _Payload(msgspec.Struct):
    message: _Message


class _Request(msgspec.Struct):
    parameter: _Parameter
    payload: _Payload


@dataclass(frozen=True)
class ImageQuestion:
    """A question that the platform accepts.

    Attributes:
        image: the picture file.
        kind: ``jpg`` or ``png``.
        size: width and height in pixels.
        prompt: the last user message.
        roles: the roles of all messages, the picture included.
        prompt_tokens: tokens of picture and dialog.
        max_tokens: the limit of the answer, in tokens.
        domain: the version of the model.
    """

    image: bytes
    kind: str
    size: tuple[int, int]
    prompt: str
    roles: tuple[str, ...]
    prompt_tokens: int
    max_tokens: int
    domain: str


def parse_image_question(frame: bytes, *, app_id: str) -> ImageQuestion:
    """Parse a question as strictly as the document defines it.

    Where the document leaves the error code open, a plausible one is used.

    Raises:
        SparkRequestError: 10003 not JSON, not a usable picture file, or an unknown domain; 10313 application id; 10163
            a member is missing or of the wrong type; 10004 order of messages; 10005 a value out of range; 10029 a side
            is too long; 10041 too few or too many pixels; 10907 too many tokens.
    """
    try:
        loaded = msgspec.json.decode(frame)
    except (ValueError, RecursionError):
        raise SparkRequestError(10003, "ClientMsgError: the message is not valid JSON") from None
    header = loaded.get("header") if isinstance(loaded, dict) else None
    given = header.get("app_id") if isinstance(header, dict) else None
    if not given:
        raise SparkRequestError(10313, "appid cannot be empty")
    if given != app_id:
        raise SparkRequestError(10313, "app_id and api_key does not match")
    try:
        parsed = msgspec.convert(loaded, _Request)
    except msgspec.ValidationError as error:
        raise SparkRequestError(10163, f"param validate error: {error}") from None
    chat, dialog = parsed.parameter.chat, parsed.payload.message.text
    _check(chat, dialog)
    image, kind, size = _read_picture(dialog[0].content)
    if max(size) > _MAX_SIDE:
        raise SparkRequestError(10029, f"a side of the image is longer than {_MAX_SIDE}")
    if not _MIN_PIXELS < size[0] * size[1] < _MAX_PIXELS:
        raise SparkRequestError(10041, "image resolution out of range")
    tokens = sum(estimate_tokens(text.content) for text in dialog[1:])
    # The token count of the advanced version is not published. This one grows with the picture and stays near the
    # figure of the basic version.
    tokens += _BASIC_IMAGE_TOKENS if chat.domain == "general" else 200 + min(size[0] * size[1] // 4096, 1800)
    if tokens > _CONTEXT:
        raise SparkRequestError(10907, "the dialog is over the token limit of the model")
    roles = tuple(text.role for text in dialog)
    return ImageQuestion(
        image, kind, size, dialog[-1].content, roles, tokens, min(chat.max_tokens, _CONTEXT - tokens + 1), chat.domain
    )


def picture_size(file: bytes) -> tuple[str, tuple[int, int]] | None:
    """Return the kind (``png`` or ``jpg``), width and height from a picture's header; ``None`` if it has none."""
    if file.startswith(b"\x89PNG\r\n\x1a\n") and file[12:16] == b"IHDR" and len(file) >= 24:
        return "png", (int.from_bytes(file[16:20], "big"), int.from_bytes(file[20:24], "big"))
    if not file.startswith(b"\xff\xd8"):
        return None
    position = 2
    while position + 9 <= len(file):
        if file[position] != 0xFF:
            return None
        marker = file[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a length
            position += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame: it holds the size
            height = int.from_bytes(file[position + 5 : position + 7], "big")
            return "jpg", (int.from_bytes(file[position + 7 : position + 9], "big"), height)
        else:
            position += 2 + int.from_bytes(file[position + 2 : position + 4], "big")
    return None


def _check(chat: _Chat, dialog: list[_Text]) -> None:
    if chat.domain not in _DOMAINS:
        raise SparkRequestError(10003, "ClientMsgError: invalid model domain")
    if not 0 < chat.temperature <= 1 or not 1 <= chat.top_k <= 6 or not 1 <= chat.max_tokens <= 8192:
        raise SparkRequestError(10005, "param validate error: temperature, top_k or max_tokens out of range")
    if not dialog or dialog[0].content_type != "image" or dialog[0].role != "user":
        raise SparkRequestError(10004, "schema error: the first element must be the image")
    turns = dialog[1:]
    in_turn = all(text.role == ("user", "assistant")[position % 2] for position, text in enumerate(turns))
    if len(turns) % 2 == 0 or not in_turn:
        raise SparkRequestError(10004, "schema error: user and assistant must alternate and the last must be user")
    if any(text.content_type != "text" or not text.content for text in turns):
        raise SparkRequestError(10004, "schema error: the image is followed by texts that are not empty")


def _read_picture(content: str) -> tuple[bytes, str, tuple[int, int]]:
    try:
        image = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise SparkRequestError(10003, "ClientMsgError: the image is not valid Base64") from None
    if len(image) > _MAX_FILE:
        raise SparkRequestError(10003, "ClientMsgError: the image is larger than 4 MB")
    found = picture_size(image)
    if found is None:
        raise SparkRequestError(10003, "ClientMsgError: the image is neither jpg nor png")
    return image, *found
