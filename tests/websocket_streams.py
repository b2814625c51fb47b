"""Streams of websocket frames for tests, with what a reader must make of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

__all__ = ["Stream", "server_frame", "streams"]

SIZES = (0, 1, 5, 124, 125, 126, 127, 300, 65_535, 65_536)


@dataclass
class Stream:
    """A server's bytes behind the handshake.

    Attributes:
        messages: what a reader must make of them, pings and pongs left out.
        pings: their payloads.
        close: code and reason of the close frame at the end, if there is one.
    """

    data: bytes = b""
    messages: list[bytes] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)
    close: tuple[int, str] | None = None


def server_frame(first: int, payload: bytes) -> bytes:
    """A frame without a mask, its length in the shortest form."""
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 65_536:
        return bytes((first, 126)) + length.to_bytes(2, "big") + payload
    return bytes((first, 127)) + length.to_bytes(8, "big") + payload


_PAYLOADS = st.one_of(
    st.text(max_size=40).map(str.encode),
    st.sampled_from(SIZES).map(lambda size: b"x" * size),
    st.text("汉a😀é", max_size=60).map(str.encode),
)
_CODES = st.sampled_from([1000, 1001, 1002, 1003, 1007, 1011, 1013, 3000, 4999])


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Valid streams of all kinds of frames; texts are cut into fragments anywhere, amid characters too."""
    stream = Stream()
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["text", "text", "binary", "fragments", "ping", "pong"]))
        payload = draw(_PAYLOADS)
        match kind:
            case "text":
                stream.data += server_frame(0x81, payload)
                stream.messages.append(payload)
            case "binary":
                payload = draw(st.binary(max_size=30))
                stream.data += server_frame(0x82, payload)
                stream.messages.append(payload)
            case "fragments":
                cuts = sorted(draw(st.lists(st.integers(0, len(payload)), min_size=1, max_size=4)))
                pieces = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
                for number, piece in enumerate(pieces):
                    is_last = number == len(pieces) - 1
                    stream.data += server_frame((0x80 if is_last else 0) | (0x00 if number else 0x01), piece)
                    if not is_last and draw(st.booleans()):
                        stream.data += server_frame(0x89, b"between")
                        stream.pings.append(b"between")
                stream.messages.append(payload)
            case "ping":
                stream.data += server_frame(0x89, payload[:125])
                stream.pings.append(payload[:125])
            case "pong":
                stream.data += server_frame(0x8A, payload[:125])
    if draw(st.booleans()):
        code, reason = draw(_CODES), draw(st.text(max_size=20))
        stream.data += server_frame(0x88, code.to_bytes(2, "big") + reason.encode())
        stream.close = code, reason
    return stream
