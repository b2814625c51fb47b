"""Frames of RFC 6455 as a client reads and writes them, without I/O.

No extension is supported: `FrameReader` refuses a frame that needs one, and anything else that the RFC forbids, at the
first byte that shows it. What a reader holds is bounded (a message, its fragments) or counted (`FrameReader.size`), so
that its owner can stop reading.

This module determines much of the cost of a relayed stream, because each of its messages passes here. The usual
message, a text in a single frame, is therefore read in a loop over local variables, and UTF-8 is validated once for all
messages of a read.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

__all__ = [
    "CLOSE",
    "MAX_MESSAGE_BYTES",
    "PONG",
    "TEXT",
    "CloseFrame",
    "FrameReader",
    "ProtocolViolation",
    "encode_frame",
]

MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""A vendor's frame has some hundred bytes; a megabyte is enough for whole answers and stops a flood."""

MAX_FRAGMENTS: Final = 10_000
"""Frames of one message; this bounds empty fragments, which add nothing to the size."""

MESSAGE_COST: Final = 32
"""Bytes that a waiting message counts in addition to its content, so that empty messages are bounded as well."""

LONG: Final = 512
"""Bytes above which numpy masks a message faster than a long integer does, which takes 3 µs for a kilobyte."""

TEXT: Final = 0x1
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
_CONTINUATION: Final = 0x0
_BINARY: Final = 0x2
_FIN: Final = 0x80
_WHOLE_TEXT: Final = _FIN | TEXT

_NOT_SHORTEST: Final = "a length that is not in its shortest form"  # RFC 6455, section 5.2: "the minimal number"
_NO_STATUS: Final = 1005  # a close frame without a code; never sent (RFC 6455, section 7.4.1)


class ProtocolViolation(Exception):
    """The peer violated the protocol or a limit; nothing more of it may be read.

    Attributes:
        code: the websocket close code for the reason: 1002, 1007 or 1009.
        reason: text for the log; contains nothing that the peer sent.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class CloseFrame(NamedTuple):
    """The peer's end of the connection.

    Attributes:
        code: the close code; 1005 if the peer sent none.
        reason: at most 123 bytes in UTF-8.
    """

    code: int
    reason: str


class FrameReader:
    """Converts the bytes that a server sends after its handshake to messages, however the network splits them.

    Attributes:
        messages: complete messages that have not been taken yet, texts and binary ones alike.
        size: their bytes, plus `MESSAGE_COST` for each; code that removes messages subtracts them.
        pings: payloads to be answered by pongs; code that answers them clears the list.
        close: the peer's close frame; anything after it is not read.
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
        # The bytes of an incomplete frame, and how many are needed to continue. A frame that arrives byte by byte is
        # assembled once, not again with each byte.
        self._rest = bytearray()
        self._needed = 0
        self._fragments: list[bytes] = []
        self._fragments_size = 0
        self._is_text = False  # of the message that the fragments belong to

    @property
    def has_begun(self) -> bool:
        """Whether a message waits or has arrived in part. Control frames do not count (RFC 6455, section 5.5)."""
        if self.messages or self._fragments:
            return True
        return bool(self._rest) and self._rest[0] & 0x0F not in (PING, PONG, CLOSE)

    def take_all(self) -> deque[bytes]:
        """Remove and return all waiting messages."""
        messages, self.messages = self.messages, deque()
        self.size = 0
        return messages

    def take(self) -> bytes:
        """Remove and return the first waiting message. Raises `IndexError` if there is none."""
        message = self.messages.popleft()
        self.size -= len(message) + MESSAGE_COST
        return message

    def clear(self) -> None:
        """Discard everything received, for a connection that is no longer used."""
        self.messages.clear()
        self.size = 0
        self.forget_parts()

    def forget_parts(self) -> None:
        """Discard what has arrived in part; complete messages can still be taken."""
        self._fragments.clear()
        self._rest.clear()

    def receive(self, data: bytes) -> None:
        """Process the next bytes.

        Raises:
            ProtocolViolation: the messages before the violation are in `messages`. Nothing more may be read.
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
        # Reported only after the texts before it have been validated, so that the first violation is the one raised.
        violation: ProtocolViolation | None = None
        try:
            self._read(data, binary)
        except ProtocolViolation as found:
            violation = found
        # An invalid text precedes any violation that was found after it.
        self._check_texts(known, binary)
        if violation is not None:
            raise violation

    def _read(self, data: bytes, binary: list[int]) -> None:
        messages = self.messages
        size = len(data)
        at = queued = 0
        needed = 2
        # The loop is inline and uses local variables only: it runs for every message of every stream.
        try:
            while size - at >= 2:
                first = data[at]
                length = data[at + 1]  # above 127 with the mask bit
                start = at + 2
                if first != _WHOLE_TEXT:
                    # Before the length is complete, so that a breach shows with the first byte that makes it one.
                    _check_head(first, length)
                # The length has 7, 16 or 64 bits (RFC 6455, section 5.2); a server must not mask its frames, so a
                # value above 127 is a violation.
                if length == 126:  # the length of nearly all of Spark's frames
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
                # A whole text amid the fragments of another message is an error, which `_take` finds.
                if first == _WHOLE_TEXT and not self._fragments:
                    messages.append(payload)
                    queued += length + MESSAGE_COST
                else:
                    queued += self._take(first, payload, binary)
                    if self.close is not None:
                        return  # section 5.5.1: nothing that comes after it is of any meaning
        finally:
            # Also after a violation: the messages before it stay available and must be counted.
            self.size += queued
        if at < size:
            self._rest += data[at:]
            self._needed = needed

    def _take(self, first: int, payload: bytes, binary: list[int]) -> int:
        """Process a frame of any kind; return the growth of `size`."""
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
            # A continuation needs a message to continue, and a new message must not begin inside another one.
            raise ProtocolViolation(1002, "fragments out of order")
        if kind != _CONTINUATION:
            self._is_text = kind == TEXT
        if not first & _FIN or self._fragments:
            # Counted as they come: a message without end must not be collected first and judged at its end.
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
            # Its place in the queue: `_check_texts` leaves it out.
            binary.append(len(self.messages))
        self.messages.append(payload)
        return len(payload) + MESSAGE_COST

    def _check_texts(self, known: int, binary: list[int]) -> None:
        """Validate that the texts among the messages from number ``known`` on are UTF-8 (RFC 6455, section 8.1)."""
        messages = self.messages
        if len(messages) == known:
            return
        new = list(messages)[known:] if known or binary else messages
        for number in binary:
            new[number - known] = b""
        joined = b" ".join(new)  # the spaces keep a truncated character from being completed by the next text
        if joined.isascii() or _is_utf8(joined):
            return
        valid = next(count for count, text in enumerate(new) if not _is_utf8(text))
        # The invalid text and everything after it are removed; the messages before it remain valid.
        while len(messages) > known + valid:
            self.size -= len(messages.pop()) + MESSAGE_COST
        self.close = None  # it came after the invalid text
        raise ProtocolViolation(1007, "a text that is not UTF-8")


def encode_frame(kind: int, payload: bytes, key: bytes) -> bytes:
    """Return one complete frame, masked as a client must mask it.

    Args:
        kind: `TEXT`, `CLOSE`, `PING` or `PONG`.
        key: four bytes that the peer cannot predict, used once (RFC 6455, section 5.3).
    """
    length = len(payload)
    if length < 126:
        head = bytes((_FIN | kind, 0x80 | length))
    elif length < 65536:
        head = bytes((_FIN | kind, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((_FIN | kind, 0x80 | 127)) + length.to_bytes(8, "big")
    if length > LONG:
        import numpy as np  # 15 MB, with the first long frame only

        # Padded to whole words of four bytes, which is what the key is; the padding is cut off again.
        words = np.frombuffer(payload + bytes(-length % 4), np.uint32)
        return head + key + (words ^ np.frombuffer(key, np.uint32)).tobytes()[:length]
    # XOR of two long integers is the fastest way through Python for short messages: one operation, no loop.
    mask = int.from_bytes((key * (length // 4 + 1))[:length], "big")
    return head + key + (int.from_bytes(payload, "big") ^ mask).to_bytes(length, "big")


def _check_head(first: int, length: int) -> None:
    """Validate a frame's first two bytes: no extension was negotiated, and control frames are short and complete."""
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
    # Section 7.4: 1004 to 1006 and 1015 must not be sent; the other codes below 3000 are not defined.
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
