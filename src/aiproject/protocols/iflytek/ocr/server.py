"""The platform's side of OCR, for the sandbox: validates requests as the gateway does, and builds answers.

Sources: iFlytek, the documents named in `aiproject.protocols.iflytek.ocr.client`; the platform's error code table
(平台通用错误码) for texts; the published source of the gateway family for HTTP statuses.
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
# The member that holds each service's options. It is required, although its members have defaults.
_PARAMETER_BLOCK = {"hh_ocr_recognize_doc": "hh_ocr_recognize_doc", "sf8e6aca1": "sf8e6aca1", "se75ocrbm": "ocr"}

# The platform's words contain no spaces; clients must restore them between Latin words.
_BETWEEN_LATIN_WORDS = re.compile(r"(?<=[0-9A-Za-z]) (?=[0-9A-Za-z])")


class OcrRequestError(Exception):
    """A request that the platform refuses.

    Args:
        http_status: the status of the answer.
        code: the platform's code, for `error_body`.
        message: the platform's message text.
    """

    def __init__(self, http_status: int, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.http_status = http_status
        self.code = code
        self.message = message


def parse_ocr_request(service: OcrService, body: bytes, *, app_ids: Collection[str]) -> tuple[bytes, ImageEncoding]:
    """Parse a request strictly; returns the picture and the format that its first bytes indicate.

    The declared ``encoding`` need not match: the platform accepts clients that always declare ``jpg``.

    Args:
        service: the service that the URL names.
        body: the body of the POST. The sandbox checks the media type, which must be ``application/json``.
        app_ids: the application ids that belong to the key that signed the request.

    Raises:
        OcrRequestError: with HTTP 400 for the gateway's refusals, HTTP 502 for the engine's.
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
    except ValueError as broken:  # includes binascii.Error
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
    """Build the answer to an accepted request, to be sent with HTTP 200.

    Args:
        service: the service, which determines the form of the answer.
        lines: the lines of text in the picture; empty for a picture without text.
        sid: the session id.
        has_payload: if false, the answer is a bare header, which the platform sometimes sends for no text.
        nul_padding: the number of NUL bytes after the document, which the platform has been observed to append.
    """
    answer: dict[str, Any] = {"header": {"code": 0, "message": "success", "sid": sid}}
    if has_payload:
        document = msgspec.json.encode(_document(service, lines)) + b"\x00" * nul_padding
        form = "plain" if service.name == "se75ocrbm" else "json"
        result = {"compress": "raw", "encoding": "utf8", "format": form, "text": base64.b64encode(document).decode()}
        answer["payload"] = {service.result_field: result}
    return msgspec.json.encode(answer)


def error_body(code: int, message: str, sid: str, *, is_flat: bool = False) -> bytes:
    """Build an error answer; a flat one has no header, as some documents print it."""
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
