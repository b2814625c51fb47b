"""Read what a client uploads, straight from the ASGI messages: bounded, in memory, never on disk.

Two shapes arrive at the same address: the file as the bare body, with whatever content type the client's library
picks, and a ``multipart/form-data`` form with the field ``file``. Clients send the form's part without a content type
and with file names in raw UTF-8; neither matters here, for files are recognised by content. Nothing is named after
what a client calls it.
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

# What is read and thrown away after a refusal while the client is still sending. Closing at once would make the
# client's system answer our bytes with a reset, on which most clients forget what they had received and report a broken
# connection instead of our reason (RFC 9112, 9.6). Bounded, because nobody is owed a terabyte of patience.
_DISCARD_BYTES: Final = 64 * 1024 * 1024
_DISCARD_SECONDS: Final = 5.0

# What a form may add to its file: boundaries, part headers, other fields.
_ENVELOPE_BYTES: Final = 64 * 1024
_MAX_PARTS: Final = 64
_PART_HEADER_BYTES: Final = 8 * 1024

# The longest header value that is read at all: 64 Chinese characters, percent-encoded, take 576 bytes.
_HEADER_BYTES: Final = 1024
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")


class ClientGone(Exception):
    """The client hung up before its request was complete. Nobody is left to be answered."""


async def read_body(receive: Receive, headers: Headers, *, limit: int) -> bytes:
    """Read the whole request body.

    Args:
        receive: the ASGI channel.
        headers: the ASGI header list, names in lower case.
        limit: most bytes.

    Raises:
        BodyTooLarge: more than ``limit``, declared or received; a bounded rest was read and thrown away.
        ClientGone: the client hung up.
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

    Of several fields ``file`` the first counts. Other fields are read and forgotten; they and the form's own bytes may
    take 64 KiB beside the file.

    Args:
        receive: the ASGI channel.
        headers: the ASGI header list, names in lower case.
        limit: most bytes of the file.
        may_be_empty: whether a form's file may have no bytes. A bare body without any is no file in either case.

    Returns:
        The file's bytes.

    Raises:
        FileMissing: no bytes, no field ``file``, or a form that is damaged or incomplete; the detail says which.
        BodyTooLarge: the file is over ``limit``, or the form around it is too large.
        ClientGone: the client hung up.
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
    """Raise ``refusal`` of a request whose body nobody has asked for; a bounded rest is read and thrown away before.

    Raises:
        ClientGone: the client hung up meanwhile.
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
        """The next bytes, possibly none; `ended` tells whether more follow."""
        self._is_begun = True
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self.ended = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def check_declared(self, most: int, limit: int) -> None:
        """Refuse by Content-Length before the first byte, with ``limit`` as what the caller is told."""
        declared = (_first(self._headers, b"content-length") or b"").strip()
        # Numbers beyond 18 digits are not worth converting; Python refuses beyond 4300.
        if not declared.isdigit() or (len(declared.lstrip(b"0")) <= 18 and int(declared) <= most):
            return
        await self.refuse(BodyTooLarge(limit))

    async def refuse(self, refusal: AiProjectError) -> NoReturn:
        """Throw away a bounded rest of the body, so that the client gets to hear our reason, then raise it."""
        try:
            await self._discard()
            raise refusal
        finally:
            # Its traceback leads to this frame: a reference cycle would keep the request until garbage is collected.
            del refusal

    async def _discard(self) -> None:
        if not self._is_begun and (_first(self._headers, b"expect") or b"").strip().lower() == b"100-continue":
            # The client waits for leave to send. Asking for the body, only to drop it, would be giving that leave.
            return
        left = _DISCARD_BYTES
        forget_body(self._receive)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                while left > 0 and not self.ended:
                    left -= len(await self.next_piece())


class _Form:
    """What the parser reports of one form; keeps the first field ``file`` and nothing else."""

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
    """All readings of a header that may hold any text, the most likely first.

    HTTP leaves the encoding of header values open. Some clients send Chinese names as raw UTF-8, some percent-encode
    them because their library takes Latin-1 only, some send Latin-1. A name can also truly hold a percent sign. So
    the caller tries each reading; the key beside the name decides which account is meant.

    Args:
        headers: the ASGI header list, names in lower case; the first of that name counts.
        name: in lower case.

    Returns:
        The raw UTF-8 text (Latin-1 if the bytes are not UTF-8), then what percent-decoding makes of it if that is
        UTF-8 and differs. Trimmed; readings with control characters are left out, since no name holds them and
        databases choke on NUL. Empty if the header is absent, blank or over 1024 bytes.
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
