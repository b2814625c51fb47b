"""Frames of RFC 6455, as a client reads and writes them, without I/O.

No extension is known: `FrameReader` refuses whatever needs one, and anything else that the RFC forbids, at the first
byte that shows it. What a reader keeps is bounded (a message, its fragments) or counted (`FrameReader.size`), so that
its owner can stop reading.

What a relay's stream costs depends on this module, since each of its messages passes here. The usual one, a text in a
frame of its own, is therefore read in a loop with local names, and UTF-8 is checked for all messages of a reading at
once.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import numpy as np

__all__ = [
    "CLOSE",
    "MAX_FRAGMENTS",
    "MAX_MESSAGE_BYTES",
    "MESSAGE_COST",
    "PING",
    "PONG",
    "TEXT",
    "CloseFrame",
    "FrameReader",
    "ProtocolViolation",
    "encode_frame",
]

MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""A vendor's frame is some hundred bytes; a megabyte leaves room for whole answers and stops a flood."""

MAX_FRAGMENTS: Final = 10_000
"""Frames of one message; a bound on empty ones, which have no size."""

MESSAGE_COST: Final = 32
"""What a waiting message counts beside its bytes, so that empty ones are bounded, too."""

LONG: Final = 512
"""Bytes of a message from which on numpy masks it sooner than a long integer does, which takes 3 µs for a kilobyte."""

TEXT: Final = 0x1
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
_CONTINUATION: Final = 0x0
_BINARY: Final = 0x2
_FIN: Final = 0x80
_WHOLE_TEXT: Final = _FIN | TEXT

_NOT_SHORTEST: Final = "a length that is not in its shortest form"  # RFC 6455, section 5.2: "the minimal number"
_NO_STATUS: Final = 1005  # a close frame without a code; never on the wire (RFC 6455, section 7.4.1)


class ProtocolViolation(Exception):
    """The peer did what the protocol forbids, or more than is read of it; nothing more of it is to be read.

    Attributes:
        code: the websocket close code that says why; 1002, 1007 or 1009.
        reason: for the log; holds nothing that the peer sent.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class CloseFrame(NamedTuple):
    """How the peer ended the connection.

    Attributes:
        code: the close code; 1005 where it gave none.
        reason: at most 123 bytes in UTF-8.
    """

    code: int
    reason: str


class FrameReader:
    """Makes messages of the bytes that a server sends behind its handshake, wherever the network cuts them.

    Attributes:
        messages: whole messages that nobody has taken yet, texts and binary ones alike.
        size: their bytes, and `MESSAGE_COST` for each; whoever takes messages subtracts them.
        pings: payloads that are to be answered by pongs; whoever answers them clears the list.
        close: the peer's close frame; what came behind it was not read.
    """

    __slots__ = (
        "_fragments",
        "_fragments_size",
        "_is_text",
        "_needed",
        "_rest",
        "close",
        "messages",
        "pings",
        "size",
    )

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self.size = 0
        self.pings: list[bytes] = []
        self.close: CloseFrame | None = None
        # Bytes of a frame that is not whole yet, and how many it takes to go on: bytes that come one by one are put
        # together once, not anew with each of them.
        self._rest = bytearray()
        self._needed = 0
        self._fragments: list[bytes] = []
        self._fragments_size = 0
        self._is_text = False  # of the message that the fragments belong to

    @property
    def has_begun(self) -> bool:
        """Whether a message waits, or has come in part. Pings and pongs are none (RFC 6455, section 5.5)."""
        if self.messages or self._fragments:
            return True
        return bool(self._rest) and self._rest[0] & 0x0F not in (PING, PONG, CLOSE)

    def take_all(self) -> deque[bytes]:
        """Return the messages that wait, which then are the caller's."""
        messages, self.messages = self.messages, deque()
        self.size = 0
        return messages

    def take(self) -> bytes:
        """Return the first of the messages that wait. Raises IndexError where there is none."""
        message = self.messages.popleft()
        self.size -= len(message) + MESSAGE_COST
        return message

    def clear(self) -> None:
        """Forget everything that has come; for a connection that is given up."""
        self.messages.clear()
        self.size = 0
        self.forget_parts()

    def forget_parts(self) -> None:
        """Forget what has come in part; messages that are whole can still be taken."""
        self._fragments.clear()
        self._rest.clear()

    def receive(self, data: bytes) -> None:
        """Read the next bytes.

        Raises:
            ProtocolViolation: the messages before it are in `messages`. Nothing more may be read.
        """
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return
            data = bytes(rest)
            rest.clear()
        known = len(self.messages)
        binary: list[int] = []
        violation: ProtocolViolation | None = None
        try:
            self._read(data, binary)
        except ProtocolViolation as found:
            violation = found
        # A text that is none comes before whatever was wrong behind it.
        self._check_texts(known, binary)
        if violation is not None:
            raise violation

    def _read(self, data: bytes, binary: list[int]) -> None:
        messages = self.messages
        size = len(data)
        at = queued = 0
        needed = 2
        try:
            while size - at >= 2:
                first = data[at]
                length = data[at + 1]
                start = at + 2
                if first != _WHOLE_TEXT:
                    _check_head(first, length)
                if length == 126:  # nearly all of Spark's frames
                    start = at + 4
                    if start > size:
                        needed = 4
                        break
                    length = data[at + 2] << 8 | data[at + 3]
                    if length < 126:
                        raise ProtocolViolation(1002, _NOT_SHORTEST)
                elif length > 126:
                    if length > 127:
                        raise ProtocolViolation(1002, "masked")
                    start = at + 10
                    if start > size:
                        needed = 10
                        break
                    length = _long_length(data[at + 2 : start])
                end = start + length
                if end > size:
                    needed = end - at
                    break
                at = end
                needed = 2
                payload = data[start:end]
                if first == _WHOLE_TEXT and not self._fragments:
                    messages.append(payload)
                    queued += length + MESSAGE_COST
                else:
                    queued += self._take(first, payload, binary)
                    if self.close is not None:
                        return
        finally:
            self.size += queued
        if at < size:
            self._rest += data[at:]
            self._needed = needed

    def _take(self, first: int, payload: bytes, binary: list[int]) -> int:
        """Take any frame; returns by how much `size` grew."""
        kind = first & 0x0F
        if kind == PING:
            self.pings.append(payload)
            return 0
        if kind == PONG:
            return 0
        if kind == CLOSE:
            self.close = _parse_close(payload)
            return 0
        if (kind == _CONTINUATION) != bool(self._fragments):
            raise ProtocolViolation(1002, "fragments out of order")
        if kind != _CONTINUATION:
            self._is_text = kind == TEXT
        if not first & _FIN or self._fragments:
            self._fragments.append(payload)
            self._fragments_size += len(payload)
            if self._fragments_size > MAX_MESSAGE_BYTES or len(self._fragments) > MAX_FRAGMENTS:
                raise ProtocolViolation(1009, "message too big")
            if not first & _FIN:
                return 0
            payload = b"".join(self._fragments)
            self._fragments = []
            self._fragments_size = 0
        if not self._is_text:
            binary.append(len(self.messages))
        self.messages.append(payload)
        return len(payload) + MESSAGE_COST

    def _check_texts(self, known: int, binary: list[int]) -> None:
        """Check that the texts among the messages from number ``known`` on are UTF-8 (RFC 6455, section 8.1)."""
        messages = self.messages
        if len(messages) == known:
            return
        new = list(messages)[known:] if known or binary else messages
        for number in binary:
            new[number - known] = b""
        joined = b" ".join(new)  # the spaces keep halves of a character apart
        if joined.isascii() or _is_utf8(joined):
            return
        valid = next(count for count, text in enumerate(new) if not _is_utf8(text))
        while len(messages) > known + valid:
            self.size -= len(messages.pop()) + MESSAGE_COST
        self.close = None  # it came behind
        raise ProtocolViolation(1007, "a text that is not UTF-8")


def encode_frame(kind: int, payload: bytes, key: bytes) -> bytes:
    """Return one whole frame, masked as a client's must be.

    Args:
        kind: `TEXT`, `CLOSE`, `PING` or `PONG`.
        key: four bytes that the peer cannot foresee, used once (RFC 6455, section 5.3).
    """
    length = len(payload)
    if length < 126:
        head = bytes((_FIN | kind, 0x80 | length))
    elif length < 65536:
        head = bytes((_FIN | kind, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((_FIN | kind, 0x80 | 127)) + length.to_bytes(8, "big")
    if length > LONG:
        words = np.frombuffer(payload + bytes(-length % 4), np.uint32)
        return head + key + (words ^ np.frombuffer(key, np.uint32)).tobytes()[:length]
    mask = int.from_bytes((key * (length // 4 + 1))[:length], "big")
    return head + key + (int.from_bytes(payload, "big") ^ mask).to_bytes(length, "big")


def _check_head(first: int, length: int) -> None:
    """Check a frame's first two bytes: no extension was agreed upon, and control frames are short and whole."""
    kind = first & 0x0F
    if kind in (CLOSE, PING, PONG):
        is_allowed = bool(first & _FIN) and (length <= 125 or length > 127) and (kind != CLOSE or length != 1)
    else:
        is_allowed = kind in (_CONTINUATION, TEXT, _BINARY)
    if first & 0x70 or not is_allowed:
        raise ProtocolViolation(1002, "no frame of ours")


def _long_length(written: bytes) -> int:
    length = int.from_bytes(written, "big")
    if length > MAX_MESSAGE_BYTES:
        raise ProtocolViolation(1009, "message too big")
    if length < 65536:
        raise ProtocolViolation(1002, _NOT_SHORTEST)
    return length


def _parse_close(payload: bytes) -> CloseFrame:
    if not payload:
        return CloseFrame(_NO_STATUS, "")
    code = int.from_bytes(payload[:2], "big")
    # Section 7.4: 1004 to 1006 and 1015 never stand in a frame, the rest below 3000 is not defined.
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise ProtocolViolation(1002, "a close code that there is not")
    try:
        return CloseFrame(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise ProtocolViolation(1007, "a close reason that is not UTF-8") from None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
