"""The platform's half of reading a picture, for the sandbox: checks a request as the gateway does, builds answers.

Sources: iFlytek, the documents named in `aiproject.protocols.iflytek.ocr.client`; the platform's error code table
(平台通用错误码) for texts; the public source of the gateway family for HTTP statuses.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from aiproject.protocols.iflytek.ocr.client import MAX_IMAGE_BASE64, ImageEncoding, OcrService

__all__ = ["OcrRequestError", "answer_body", "error_body", "parse_ocr_request"]

_ENCODINGS = ("jpg", "jpeg", "png", "bmp")
_MAGIC: tuple[tuple[bytes, ImageEncoding], ...] = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"BM", "bmp"),
)
# Where the three services keep their options; the block must be there, though its members have defaults.
_PARAMETER_BLOCK = {"hh_ocr_recognize_doc": "hh_ocr_recognize_doc", "sf8e6aca1": "sf8e6aca1", "se75ocrbm": "ocr"}

# The platform's words carry no spaces; a reader has to put them back between Latin words.
_BETWEEN_LATIN_WORDS = re.compile(r"(?<=[0-9A-Za-z]) (?=[0-9A-Za-z])")


class OcrRequestError(Exception):
    """The request is refused.

    Args:
        http_status: status of the answer.
        code: the platform's code, to be sent with `error_body`.
        message: the platform's message text.
    """

    def __init__(self, http_status: int, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.http_status = http_status
        self.code = code
        self.message = message


def parse_ocr_request(service: OcrService, body: bytes, *, app_ids: Collection[str]) -> tuple[bytes, ImageEncoding]:
    """Read a request strictly; gives the picture and what kind of file its first bytes say it is.

    The declared ``encoding`` need not match: clients that always say ``jpg`` are served by the real platform.

    Args:
        service: which service the URL named.
        body: the body of the POST. The media type, which the gateway wants to be ``application/json``, is the
            sandbox's affair.
        app_ids: application ids that belong to the key which signed the request.

    Raises:
        OcrRequestError: the gateway's refusals have HTTP 400, the engine's HTTP 502.
    """
    try:
        request = msgspec.json.decode(body)
    except (ValueError, RecursionError) as broken:
        raise OcrRequestError(400, 10163, "request body must be json") from broken
    if not isinstance(request, dict):
        raise OcrRequestError(400, 10163, "request body must be json")
    app_id = _object(request, "header", "$.header").get("app_id")
    if not isinstance(app_id, str) or not app_id:
        raise OcrRequestError(400, 10313, "appid cannot be empty")
    if app_id not in app_ids:
        raise OcrRequestError(400, 10313, "app_id and api_key does not match")
    block = _PARAMETER_BLOCK[service.name]
    _object(_object(request, "parameter", "$.parameter"), block, f"$.parameter.{block}")
    path = f"$.payload.{service.image_field}"
    holder = _object(_object(request, "payload", "$.payload"), service.image_field, path)
    if holder.get("encoding", "jpg") not in _ENCODINGS:
        raise _schema_error(f"{path}.encoding must be one of {', '.join(_ENCODINGS)}")
    text = holder.get("image")
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_IMAGE_BASE64:
        raise _schema_error(f"length of {path}.image must be between 1,{MAX_IMAGE_BASE64}")
    try:
        image = base64.b64decode(text, validate=True)
    except ValueError as broken:  # binascii.Error is one
        raise OcrRequestError(502, 10161, "parse base64 string error") from broken
    for magic, encoding in _MAGIC:
        if image.startswith(magic):
            return image, encoding
    raise OcrRequestError(502, 10009, "input invalid data")


def answer_body(
    service: OcrService,
    lines: Sequence[str],
    *,
    sid: str,
    has_payload: bool = True,
    nul_padding: int = 0,
) -> bytes:
    """Build the answer to an accepted request, sent with HTTP 200.

    Args:
        service: whose form the answer takes.
        lines: lines of text in the picture; none for a picture without text.
        sid: session id.
        has_payload: without it the answer is a bare header, as the platform sometimes sends for no text.
        nul_padding: NUL bytes behind the document, seen in the field.
    """
    answer: dict[str, Any] = {"header": {"code": 0, "message": "success", "sid": sid}}
    if has_payload:
        document = msgspec.json.encode(_document(service, lines)) + b"\x00" * nul_padding
        form = "plain" if service.name == "se75ocrbm" else "json"
        result = {"compress": "raw", "encoding": "utf8", "format": form, "text": base64.b64encode(document).decode()}
        answer["payload"] = {service.result_field: result}
    return msgspec.json.encode(answer)


def error_body(code: int, message: str, sid: str, *, is_flat: bool = False) -> bytes:
    """Build an error answer; flat without a header, as some documents print it."""
    error = {"code": code, "message": message, "sid": sid}
    return msgspec.json.encode(error if is_flat else {"header": error})


def _document(service: OcrService, lines: Sequence[str]) -> dict[str, Any]:
    if service.name == "hh_ocr_recognize_doc":
        boxes = [(10, 10 + 40 * row, 10 + 20 * len(line), 42 + 40 * row) for row, line in enumerate(lines)]
        positions = [[left, top, right, top, right, bottom, left, bottom] for left, top, right, bottom in boxes]
        return {
            "whole_text": "\n".join(lines),
            "lines": [{"text": line, "position": at} for line, at in zip(lines, positions, strict=True)],
        }
    if service.name == "sf8e6aca1":
        rows = [{"words": [{"content": word} for word in _BETWEEN_LATIN_WORDS.split(line)]} for line in lines]
        return {"category": "ch_en_public_cloud", "pages": [{"lines": rows} if rows else {}]}
    blocks = [{"type": "text_block", "text": [line]} for line in lines]
    return {
        "document": [{"name": "markdown", "value": "\n".join(lines)}],
        "image": [{"content": [blocks]}],
    }


def _object(holder: Mapping[str, Any], name: str, path: str) -> Mapping[str, Any]:
    value = holder.get(name)
    if not isinstance(value, dict):
        raise _schema_error(f"{path} is required")
    return value


def _schema_error(detail: str) -> OcrRequestError:
    return OcrRequestError(400, 10163, f"parameter schema validate error: {detail}")
