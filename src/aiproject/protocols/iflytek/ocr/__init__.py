"""Reading the text in a picture: one POST with the whole picture, one answer.

`client` is our side, `server` the platform's (for the sandbox).
"""

from aiproject.protocols.iflytek.ocr.client import (
    MAX_BODY_BYTES,
    MAX_IMAGE_BASE64,
    MAX_IMAGE_BYTES,
    MAX_TEXT,
    OCR_SERVICES,
    ImageEncoding,
    OcrService,
    OcrText,
    ocr_service,
)
from aiproject.protocols.iflytek.ocr.server import OcrRequestError, answer_body, error_body, parse_ocr_request

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_IMAGE_BASE64",
    "MAX_IMAGE_BYTES",
    "MAX_TEXT",
    "OCR_SERVICES",
    "ImageEncoding",
    "OcrRequestError",
    "OcrService",
    "OcrText",
    "answer_body",
    "error_body",
    "ocr_service",
    "parse_ocr_request",
]
