"""The client's side of OCR: one request with the whole picture, one answer with its text, three services.

Sources: iFlytek, 《通用文字识别 intsig API 文档》 (``hh_ocr_recognize_doc``), 《通用文字识别 API 文档》 (``sf8e6aca1``)
and 《通用文档识别(OCR大模型) API 文档》 (``se75ocrbm``); observed answers where the documents say nothing.
"""

from __future__ import annotations

import base64
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec

from aiproject import errors
from aiproject.codes import Detail
from aiproject.protocols.iflytek import error_codes as vendor_codes

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_IMAGE_BASE64",
    "MAX_IMAGE_BYTES",
    "MAX_TEXT",
    "OCR_SERVICES",
    "ImageEncoding",
    "OcrService",
    "OcrText",
    "ocr_service",
]

ImageEncoding = Literal["jpg", "png", "bmp"]

MAX_IMAGE_BASE64 = 4 * 1024 * 1024
"""Base64 characters of a picture. Some versions of the documents allow more; all of them allow this size."""

MAX_IMAGE_BYTES = MAX_IMAGE_BASE64 // 4 * 3
"""The same limit before Base64: 3 MiB."""

MAX_BODY_BYTES = 16 * 1024 * 1024
"""The largest answer in bytes. A page with the position of each line stays far below 1 MiB."""

MAX_TEXT = 1024 * 1024
"""The longest text of one picture in characters."""

_MAX_SID = 64
_MAX_CODE = 10**9
_MAX_DEPTH = 128  # observed trees have about ten levels
_MAX_NODES = 500_000
_PADDING = b"\x00 \t\r\n"

_GATEWAY_REFUSALS = frozenset({401, 403, 404})
_TEMPORARY_STATUSES = frozenset({429, 502, 503, 504})


class OcrText(msgspec.Struct, frozen=True):
    """The text of a picture.

    Attributes:
        text: lines separated by ``\\n``; Markdown from ``se75ocrbm``; empty if the picture contains no text.
        sid: the platform's session id, if it sent one.
    """

    text: str
    sid: str | None


class OcrService(ABC):
    """One of the platform's services. Stateless; obtained from `ocr_service`.

    Attributes:
        name: the last element of the URL's path, which is also a key in the requests.
        image_field: the member of ``payload`` that holds the picture.
        result_field: the member of ``payload`` that holds the result.
    """

    name: ClassVar[str]
    image_field: ClassVar[str]
    result_field: ClassVar[str]

    def build_request(self, image: bytes, *, encoding: ImageEncoding, app_id: str, uid: str | None = None) -> bytes:
        """Build the JSON body of the POST.

        Args:
            image: the bytes of the file.
            encoding: the format of the file.
            app_id: the application.
            uid: an id for the end user, where the service takes one (``se75ocrbm``); never an account's secret.

        Raises:
            errors.UnusableFile: the file is empty or larger than `MAX_IMAGE_BYTES`.
        """
        if not image:
            raise errors.UnusableFile(Detail.OCR_PICTURE_EMPTY)
        if len(image) > MAX_IMAGE_BYTES:
            raise errors.UnusableFile(Detail.OCR_PICTURE_TOO_LARGE, megabytes=MAX_IMAGE_BYTES // 1024 // 1024)
        request = self._request(app_id, uid)
        # Plain Base64: the platform refuses a "data:" prefix with 10161.
        request["payload"][self.image_field] |= {"encoding": encoding, "image": base64.b64encode(image).decode("ascii")}
        return msgspec.json.encode(request)

    def read_answer(self, status: int, body: bytes) -> OcrText:
        """Parse the answer to a request, whatever its HTTP status.

        Raises:
            errors.UpstreamRefused: the platform reports an error code, or refuses the form of our request.
            errors.UpstreamUnreachable: the gateway in front of the service refused the request or failed.
            errors.UpstreamProtocolViolation: not an answer of this service; retryable if the status indicates a
                temporary condition (429, 502, 503, 504), as with the HTML page of a proxy.
        """
        if len(body) > MAX_BODY_BYTES:
            raise errors.UpstreamProtocolViolation(f"ocr: an answer of {len(body)} bytes, over {MAX_BODY_BYTES}")
        try:
            answer = msgspec.json.decode(body)
        except (ValueError, RecursionError) as broken:
            raise _not_an_answer(status, "not JSON") from broken
        if not isinstance(answer, dict):
            raise _not_an_answer(status, "not a JSON object")
        # Error codes are in the header or at the top level. Their HTTP status is not documented: 200 has been observed,
        # the gateway's published source uses 502.
        header = answer.get("header")
        envelope = header if isinstance(header, dict) and "code" in header else answer
        sid = vendor_codes.quotable(_string(envelope.get("sid")), _MAX_SID) or None
        if "code" not in envelope:
            raise _refused_by_gateway(status, _string(answer.get("message")))
        code = _read_code(envelope["code"], status)
        if code != 0:
            message = _string(envelope.get("message"))
            raise vendor_codes.refusal(vendor_codes.Service.OCR, code, message, sid)
        document = self._decode_result(answer.get("payload"))
        if not document:
            if status >= 400:  # success in the body but not in the status: the picture is not known to be empty
                raise _not_an_answer(status, "no result in it")
            return OcrText("", sid)
        text = self._read_document(document).rstrip("\x00 \t\r\n")
        if len(text) > MAX_TEXT:
            raise errors.UpstreamProtocolViolation(f"ocr: a text of {len(text)} characters, over {MAX_TEXT}", sid=sid)
        return OcrText(text, sid)

    def _decode_result(self, payload: object) -> bytes:
        """Return the result document without padding; empty if the platform omits it, as it does for no text."""
        result = payload.get(self.result_field) if isinstance(payload, dict) else payload
        text = result.get("text") if isinstance(result, dict) else result
        if text is None:
            return b""
        if not isinstance(text, str):
            raise errors.UpstreamProtocolViolation("ocr: the result is not as documented")
        try:
            return base64.b64decode(text, validate=True).rstrip(_PADDING)
        except ValueError as broken:  # includes binascii.Error
            raise errors.UpstreamProtocolViolation("ocr: the result is not Base64") from broken

    @abstractmethod
    def _request(self, app_id: str, uid: str | None) -> dict[str, Any]:
        """Return the request without the picture."""

    @abstractmethod
    def _read_document(self, document: bytes) -> str:
        """Return the text in a result document."""


class _Intsig(OcrService):
    """通用文字识别 intsig: printed and handwritten text, 52 languages."""

    name = "hh_ocr_recognize_doc"
    image_field = "image"
    result_field = "recognizeDocumentRes"

    def _request(self, app_id: str, uid: str | None) -> dict[str, Any]:
        form = {"encoding": "utf8", "compress": "raw", "format": "json"}
        return {
            "header": {"app_id": app_id, "status": 3},
            "parameter": {self.name: {self.result_field: form}},
            "payload": {self.image_field: {"status": 3}},
        }

    def _read_document(self, document: bytes) -> str:
        page = _decode_object(document)
        whole = page.get("whole_text")
        if isinstance(whole, str):
            return whole
        lines = page.get("lines")
        if not isinstance(lines, list):
            raise errors.UpstreamProtocolViolation("ocr: a result with neither whole_text nor lines")
        return "\n".join(_string(line.get("text")) for line in lines if isinstance(line, dict))


class _ImageWord(OcrService):
    """通用文字识别: printed and handwritten text, Chinese and English."""

    name = "sf8e6aca1"
    image_field = "sf8e6aca1_data_1"
    result_field = "result"

    def _request(self, app_id: str, uid: str | None) -> dict[str, Any]:
        form = {"encoding": "utf8", "compress": "raw", "format": "json"}
        return {
            "header": {"app_id": app_id, "status": 3},
            "parameter": {self.name: {"category": "ch_en_public_cloud", self.result_field: form}},
            "payload": {self.image_field: {"status": 3}},
        }

    def _read_document(self, document: bytes) -> str:
        result = _decode_object(document)
        if "pages" not in result:
            raise errors.UpstreamProtocolViolation("ocr: a result without pages")
        lines = []
        for page in _objects(result["pages"]):
            for line in _objects(page.get("lines")):  # an empty page has no lines
                words = [_string(word.get("content")) for word in _objects(line.get("words"))]
                lines.append(_join_words(words))
        return "\n".join(line for line in lines if line)


class _LargeModel(OcrService):
    """通用文档识别 (OCR 大模型): whole documents, returned as Markdown."""

    name = "se75ocrbm"
    image_field = "image"
    result_field = "result"

    def _request(self, app_id: str, uid: str | None) -> dict[str, Any]:
        header: dict[str, Any] = {"app_id": app_id, "status": 0}
        if uid:
            header["uid"] = uid
        return {
            "header": header,
            "parameter": {
                "ocr": {
                    "result_option": "normal",
                    "result_format": "json,markdown",
                    "output_type": "one_shot",
                    "exif_option": "1",
                    "json_element_option": "",
                    "markdown_element_option": "watermark=0,page_header=0,page_footer=0,page_number=0,graph=0",
                    "sed_element_option": "",
                    "alpha_option": "0",
                    "rotation_min_angle": 5,
                    self.result_field: {"encoding": "utf8", "compress": "raw", "format": "plain"},
                }
            },
            "payload": {self.image_field: {"status": 0, "seq": 0}},
        }

    def _read_document(self, document: bytes) -> str:
        try:
            plain = document.decode("utf-8")
        except UnicodeDecodeError as broken:
            raise errors.UpstreamProtocolViolation("ocr: the result is not UTF-8") from broken
        try:
            tree = msgspec.json.decode(document)
        except RecursionError as broken:
            raise errors.UpstreamProtocolViolation("ocr: the result is nested too deep") from broken
        except ValueError as broken:
            if plain.startswith('{"'):  # truncated JSON is not a plain-text result
                raise errors.UpstreamProtocolViolation("ocr: the result is broken JSON") from broken
            return plain
        if not isinstance(tree, dict):
            return plain  # a page that contains only a number is text, too
        for form in _objects(tree.get("document")):
            if rendered := _string(form.get("value")):
                return rendered
        return "\n".join(_text_blocks(tree))


OCR_SERVICES: dict[str, OcrService] = {service.name: service for service in (_Intsig(), _ImageWord(), _LargeModel())}
"""The supported services, by name."""


def ocr_service(url: str) -> OcrService:
    """Return the service for the last element of a URL's path. Host and port are not checked, so that other
    implementations of the platform work.

    Raises:
        errors.Misconfigured: the URL cannot be parsed, or its service is unknown.
    """
    try:
        name = urlsplit(url).path.rstrip("/").rpartition("/")[2]
    except ValueError as broken:
        raise errors.Misconfigured(Detail.OCR_URL_MALFORMED) from broken
    service = OCR_SERVICES.get(name)
    if service is None:
        raise errors.Misconfigured(Detail.OCR_SERVICE_UNKNOWN, name=repr(name[:64]), names=tuple(OCR_SERVICES))
    return service


# -- envelopes ---------------------------------------------------------------------------------------------------------


def _read_code(code: object, status: int) -> int:
    if isinstance(code, str) and re.fullmatch(r"-?[0-9]{1,9}", code):
        code = int(code)
    if isinstance(code, bool) or not isinstance(code, int) or abs(code) > _MAX_CODE:
        raise _not_an_answer(status, "its code is no number")
    return code


def _not_an_answer(status: int, why: str) -> errors.UpstreamProtocolViolation:
    detail = f"ocr: HTTP {status} with a body that is no answer: {why}"
    return errors.UpstreamProtocolViolation(detail, retryable=status in _TEMPORARY_STATUSES)


def _refused_by_gateway(status: int, message: str) -> errors.UpstreamFailed:
    """Return the error for a JSON object without a code: the gateway's ``{"message": …}``, or an unknown form."""
    if status < 400:
        return _not_an_answer(status, "no code in it")
    detail = f"ocr: the gateway answered HTTP {status}: {vendor_codes.quote(message) or 'no message'}"
    if status in _GATEWAY_REFUSALS or status in _TEMPORARY_STATUSES or status >= 500:
        return errors.UpstreamUnreachable(detail, status=status, retryable=status in _TEMPORARY_STATUSES)
    return errors.UpstreamRefused(detail)  # other 4xx, such as 400: the form of our request


# -- documents ---------------------------------------------------------------------------------------------------------


def _decode_object(document: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(document)
    except (ValueError, RecursionError) as broken:
        raise errors.UpstreamProtocolViolation("ocr: the result is not JSON") from broken
    if not isinstance(value, dict):
        raise errors.UpstreamProtocolViolation("ocr: the result is not a JSON object")
    return value


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _objects(value: object) -> Iterator[dict[str, Any]]:
    """Iterate over the objects in a list; nothing if the list is absent."""
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _join_words(words: list[str]) -> str:
    """Join the words of a line: no separator between Chinese words, a space between Latin words and numbers."""
    line = ""
    for word in words:
        if line and word and _is_latin(line[-1]) and _is_latin(word[0]):
            line += " "
        line += word
    return line


def _is_latin(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _text_blocks(tree: dict[str, Any]) -> Iterator[str]:
    """Yield the lines in nodes of type ``text_block``, at any depth, in document order."""
    stack: list[tuple[object, int]] = [(tree, 0)]
    visited = 0
    while stack:
        node, depth = stack.pop()
        visited += 1
        if depth > _MAX_DEPTH or visited > _MAX_NODES:
            raise errors.UpstreamProtocolViolation("ocr: the result is a tree too large to search")
        if isinstance(node, dict) and node.get("type") == "text_block":
            text = node.get("text")
            yield from filter(None, map(_string, text if isinstance(text, list) else [text]))
            continue
        children = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
        stack.extend((child, depth + 1) for child in reversed(children) if isinstance(child, dict | list))
