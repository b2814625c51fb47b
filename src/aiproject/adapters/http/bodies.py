"""Read uploads directly from ASGI messages: with a size limit, in memory, never on disk.

The same address accepts two forms: the file as the bare body, with any content type that the client's library chooses,
and a ``multipart/form-data`` form with the field ``file``. Clients send the form's part without a content type and with
file names in raw UTF-8. Neither matters here, since files are recognised by their content, and a client's file name is
never used.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterable
from typing import Any, Final, NoReturn
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from aiproject.adapters.http.asgi import Receive
from aiproject.adapters.http.receiving import forget_body
from aiproject.codes import Detail
from aiproject.errors import AiProjectError, BodyTooLarge, FileMissing, Refused

__all__ = ["ClientGone", "header_candidates", "read_body", "read_upload", "refuse_body"]

Headers = Iterable[tuple[bytes, bytes]]

# Bytes and seconds that are read and discarded after a refusal while the client is still sending. Closing at once would
# reset the connection, whereupon most clients drop the response they had received and report a broken connection
# instead of our reason (RFC 9112, section 9.6). Both are limited, so that a refused client cannot occupy the server.
_DISCARD_BYTES: Final = 64 * 1024 * 1024
_DISCARD_SECONDS: Final = 5.0

# Limits on what a form adds to its file: boundaries, part headers and other fields.
_ENVELOPE_BYTES: Final = 64 * 1024
_MAX_PARTS: Final = 64
_PART_HEADER_BYTES: Final = 8 * 1024

# The longest header value that is read: 64 Chinese characters, percent-encoded, take 576 bytes.
_HEADER_BYTES: Final = 1024
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


class ClientGone(Exception):
    """The client disconnected before its request was complete, so no response can be sent."""


async def read_body(receive: Receive, headers: Headers, *, limit: int) -> bytes:
    """Read the whole request body.

    Args:
        receive: the ASGI channel.
        headers: the ASGI header list, names in lower case.
        limit: maximum number of bytes.

    Raises:
        BodyTooLarge: more than ``limit``, declared or received; a limited amount of the rest was read and discarded.
        ClientGone: the client disconnected.
    """
    body = _Body(receive, headers)
    await body.check_declared(limit, limit)
    pieces: list[bytes] = []
    received = 0
    while not body.ended:
        piece = await body.next_piece()
        received += len(piece)
        if received > limit:
            pieces.clear()
            await body.refuse(BodyTooLarge(limit))
        pieces.append(piece)
    return b"".join(pieces)


async def read_upload(receive: Receive, headers: Headers, *, limit: int, may_be_empty: bool = False) -> bytes:
    """Read an uploaded file: the form field ``file`` of ``multipart/form-data``, or the body under any other type.

    Of several fields ``file`` the first is used. Other fields are read and ignored; together with the form's own bytes
    they may take 64 KiB in addition to the file.

    Args:
        receive: the ASGI channel.
        headers: the ASGI header list, names in lower case.
        limit: maximum number of bytes of the file.
        may_be_empty: whether a form's file may be empty. An empty bare body is not a file in either case.

    Returns:
        The file's bytes.

    Raises:
        FileMissing: no bytes, no field ``file``, or a form that is damaged or incomplete; the detail says which.
        BodyTooLarge: the file is over ``limit``, or the form around it is too large.
        ClientGone: the client disconnected.
    """
    headers = list(headers)
    content_type, options = parse_options_header(_first(headers, b"content-type"))
    if content_type != b"multipart/form-data":
        content = await read_body(receive, headers, limit=limit)
        if not content:
            raise FileMissing(Detail.UPLOAD_EMPTY)
        return content
    boundary = {name.strip().lower(): value for name, value in options.items()}.get(b"boundary", b"")
    content = await _read_form(_Body(receive, headers), boundary, limit)
    if not content and not may_be_empty:
        raise FileMissing(Detail.FORM_FILE_EMPTY)
    return content


async def refuse_body(receive: Receive, headers: Headers, refusal: AiProjectError) -> NoReturn:
    """Refuse a request before its body is read: discard a limited amount of the body, then raise ``refusal``.

    Raises:
        ClientGone: the client disconnected meanwhile.
    """
    try:
        await _Body(receive, headers).refuse(refusal)
    finally:
        del refusal  # see `_Body.refuse`


async def _read_form(body: _Body, boundary: bytes, limit: int) -> bytes:
    await body.check_declared(limit + _ENVELOPE_BYTES, limit)
    if not boundary:
        await body.refuse(FileMissing(Detail.FORM_WITHOUT_BOUNDARY))
    form = _Form(limit)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        received = 0
        while not body.ended:
            piece = await body.next_piece()
            received += len(piece)
            if received > limit + _ENVELOPE_BYTES:
                raise BodyTooLarge(limit)
            if piece:
                parser.write(piece)
    except FormParserError:
        form.content.clear()
        await body.refuse(FileMissing(Detail.FORM_MALFORMED))
    except Refused as refusal:
        form.content.clear()
        await body.refuse(refusal)
    if not form.is_complete:
        raise FileMissing(Detail.FORM_INCOMPLETE)
    if not form.is_file_found:
        raise FileMissing(Detail.FORM_WITHOUT_FILE)
    return bytes(form.content)


class _Body:
    """A request body that arrives in ASGI messages."""

    def __init__(self, receive: Receive, headers: Headers) -> None:
        self._receive = receive
        self._headers = list(headers)
        self._is_begun = False
        self.ended = False

    async def next_piece(self) -> bytes:
        """Return the next bytes, possibly none; `ended` says whether more follow."""
        self._is_begun = True
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self.ended = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def check_declared(self, most: int, limit: int) -> None:
        """Refuse a Content-Length over ``most`` before the first byte, reporting ``limit`` to the caller."""
        declared = (_first(self._headers, b"content-length") or b"").strip()
        # A number of more than 18 digits is too large in any case; Python refuses to convert more than 4300.
        if not declared.isdigit() or (len(declared.lstrip(b"0")) <= 18 and int(declared) <= most):
            return
        await self.refuse(BodyTooLarge(limit))

    async def refuse(self, refusal: AiProjectError) -> NoReturn:
        """Discard a limited amount of the body, so that the client reads the response, then raise ``refusal``."""
        try:
            await self._discard()
            raise refusal
        finally:
            # Its traceback refers to this frame: the reference cycle would keep the request until garbage collection.
            del refusal

    async def _discard(self) -> None:
        if not self._is_begun and (_first(self._headers, b"expect") or b"").strip().lower() == b"100-continue":
            # The client waits for "100 Continue", which calling `receive` would send. Nothing has to be discarded.
            return
        left = _DISCARD_BYTES
        forget_body(self._receive)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                while left > 0 and not self.ended:
                    left -= len(await self.next_piece())


class _Form:
    """Collects the events of the multipart parser; keeps the first field ``file`` and nothing else."""

    def __init__(self, limit: int) -> None:
        self.content = bytearray()
        self.is_file_found = False
        self.is_complete = False
        self._limit = limit
        self._parts = 0
        self._header_bytes = 0
        self._name = bytearray()
        self._value = bytearray()
        self._disposition: bytes | None = None
        self._is_in_file = False

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_content,
            "on_part_data": self._add_content,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise FileMissing(Detail.FORM_TOO_MANY_PARTS)
        self._header_bytes = 0
        self._disposition = None

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._value += data[start:end]

    def _count_header(self, length: int) -> None:
        self._header_bytes += length
        if self._header_bytes > _PART_HEADER_BYTES:
            raise FileMissing(Detail.FORM_PART_HEADER_TOO_LONG)

    def _end_header(self) -> None:
        if bytes(self._name).lower() == b"content-disposition" and self._disposition is None:
            self._disposition = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _begin_content(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if not self.is_file_found and kind == b"form-data" and options.get(b"name") == b"file":
            self.is_file_found = self._is_in_file = True

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        if not self._is_in_file:
            return
        if len(self.content) + end - start > self._limit:
            raise BodyTooLarge(self._limit)
        self.content += memoryview(data)[start:end]

    def _end_part(self) -> None:
        self._is_in_file = False

    def _end(self) -> None:
        self.is_complete = True


def header_candidates(headers: Headers, name: bytes) -> tuple[str, ...]:
    """Return all possible decodings of a header that may hold any text, the most likely one first.

    HTTP does not define the encoding of header values. Some clients send Chinese names as raw UTF-8, some
    percent-encode them because their library accepts only Latin-1, and some send Latin-1. A name can also contain a
    percent sign. So the caller tries each decoding; the key that is sent with the name decides which account is meant.

    Args:
        headers: the ASGI header list, names in lower case; the first of that name is used.
        name: in lower case.

    Returns:
        The raw UTF-8 text (Latin-1 if the bytes are not UTF-8), then its percent-decoded form if that is UTF-8 and
        differs. All are trimmed. Decodings with control characters are left out, since no name contains them and
        databases fail on NUL. Empty if the header is absent, blank or over 1024 bytes.
    """
    value = (_first(headers, name) or b"").strip()
    if not value or len(value) > _HEADER_BYTES:
        return ()
    readings = [_utf8(value), _utf8(unquote_to_bytes(value))]
    if readings[0] is None:
        readings.append(value.decode("latin-1"))
    trimmed = (reading.strip() for reading in readings if reading is not None)
    return tuple(dict.fromkeys(reading for reading in trimmed if reading and not _CONTROLS.search(reading)))


def _utf8(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _first(headers: Headers, name: bytes) -> bytes | None:
    return next((value for key, value in headers if key == name), None)
