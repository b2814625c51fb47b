"""The frames of a websocket: every split of a stream says the same, and `websockets` says it, too."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from aiproject.protocols.websocket.frames import (
    CLOSE,
    MAX_FRAGMENTS,
    MAX_MESSAGE_BYTES,
    MESSAGE_COST,
    PING,
    PONG,
    TEXT,
    CloseFrame,
    FrameReader,
    ProtocolViolation,
    encode_frame,
)
from websocket_streams import Stream, server_frame, streams


class Heard:
    """What a reader makes of a stream that is cut into pieces.

    Attributes:
        violation: the close code of what the stream broke; ``None``: nothing.
    """

    def __init__(self, pieces: list[bytes], *, takes: bool = False) -> None:
        reader = FrameReader()
        self.messages: list[bytes] = []
        self.violation: int | None = None
        for piece in pieces:
            try:
                reader.receive(piece)
            except ProtocolViolation as found:
                self.violation = found.code
                break
            if reader.close is not None:
                break
            if takes:
                self.messages += reader.take_all()
        assert reader.size == sum(len(message) + MESSAGE_COST for message in reader.messages)
        self.messages += reader.messages
        self.pings = reader.pings
        self.close = reader.close


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a < b]


def by_websockets(data: bytes) -> tuple[list[bytes], list[bytes], tuple[int, str] | None, int | None]:
    """Messages, pings, the close frame, and the close code of a violation, as `websockets` reads them."""
    protocol = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=MAX_MESSAGE_BYTES)
    protocol.receive_data(data)
    messages: list[bytes] = []
    pings: list[bytes] = []
    close: tuple[int, str] | None = None
    fragments: list[bytes] = []
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            fragments.append(bytes(event.data))
            if event.fin:
                messages.append(b"".join(fragments))
                fragments = []
        elif event.opcode is Opcode.PING:
            pings.append(bytes(event.data))
        elif event.opcode is Opcode.CLOSE and protocol.close_rcvd is not None:
            close = protocol.close_rcvd.code, protocol.close_rcvd.reason
    failed = protocol.close_sent.code if protocol.parser_exc is not None and protocol.close_sent is not None else None
    return messages, pings, close, failed


class TestReading:
    @given(streams(), st.lists(st.integers(0, 1 << 20), max_size=12), st.booleans())
    def test_wherever_the_network_cuts(self, stream: Stream, cuts: list[int], takes: bool) -> None:
        heard = Heard(cut(stream.data, cuts), takes=takes)
        assert heard.violation is None
        assert heard.messages == stream.messages
        assert heard.pings == stream.pings
        assert heard.close == stream.close

    @pytest.mark.parametrize("seed", range(5))
    def test_every_split_in_two_and_byte_by_byte(self, seed: int) -> None:
        chance = random.Random(seed)
        texts = ["".join(chance.choices("a汉😀", k=chance.randrange(60))).encode() for _ in range(4)]
        texts[2] += b"x" * 130
        data = b"".join(server_frame(0x81, text) for text in texts[:3])
        data += server_frame(0x01, texts[3][:4]) + server_frame(0x89, b"?") + server_frame(0x80, texts[3][4:])
        splits = [[data[:at], data[at:]] for at in range(len(data) + 1)]
        for pieces in [*splits, [bytes((byte,)) for byte in data]]:
            heard = Heard(pieces)
            assert (heard.violation, heard.messages, heard.pings) == (None, texts, [b"?"])

    @given(streams())
    def test_websockets_reads_the_same(self, stream: Stream) -> None:
        assert by_websockets(stream.data) == (stream.messages, stream.pings, stream.close, None)

    @given(streams(), st.integers(0, 1 << 20), st.integers(1, 255), st.lists(st.integers(0, 1 << 20), max_size=3))
    def test_a_changed_byte_is_read_as_websockets_reads_it(
        self, stream: Stream, at: int, change: int, cuts: list[int]
    ) -> None:
        """Where we are stricter, which is UTF-8 in texts and the form of lengths, it goes on; nowhere else."""
        data = bytearray(stream.data or server_frame(0x81, b""))
        data[at % len(data)] ^= change
        heard = Heard(cut(bytes(data), cuts))
        messages, _, close, failed = by_websockets(bytes(data))
        if heard.violation is None:
            assert failed is None
            assert (heard.messages, heard.close) == (messages, close)
        else:
            assert failed is not None or heard.violation in (1002, 1007)
            assert heard.messages == messages[: len(heard.messages)]

    @pytest.mark.parametrize(
        ("junk", "code"),
        [
            (b"\x83\x00", 1002),  # an opcode that is not defined
            (b"\x8b\x00", 1002),
            (b"\xc1\x00", 1002),  # reserved bits
            (b"\xa1\x00", 1002),
            (b"\x91\x00", 1002),
            (b"\x09\x00", 1002),  # control frames in parts, or long
            (b"\x89\x7e", 1002),
            (b"\x89\x7f", 1002),
            (b"\x88\x01", 1002),  # half a close code
            (b"\x80\x00", 1002),  # fragments out of order
            (b"\x01\x00\x81\x00", 1002),
            (b"\x01\x00\x01\x00", 1002),
            (b"\x01\x00\x82\x00", 1002),
            (b"\x81\x80", 1002),  # masked
            (b"\x81\xfe", 1002),
            (b"\x89\x80", 1002),
            (b"\x81\x7e\x00\x7d", 1002),  # lengths that are longer than they need be
            (b"\x81\x7e\x00\x00", 1002),
            (b"\x81\x7f\x00\x00\x00\x00\x00\x00\xff\xff", 1002),
            (b"\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x05", 1002),
            (b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", 1009),
            (b"\x81\x7f" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"), 1009),
            (b"\x01\x00" + b"\x00\x00" * MAX_FRAGMENTS, 1009),
            (server_frame(0x01, b"x" * MAX_MESSAGE_BYTES) + server_frame(0x80, b"x"), 1009),
            (server_frame(0x81, b"\xff"), 1007),  # texts that are not UTF-8
            (server_frame(0x81, "汉".encode()[:2]), 1007),
            (server_frame(0x81, b"\xed\xa0\x80"), 1007),
            (server_frame(0x01, "汉".encode()[:2]) + server_frame(0x80, b"x"), 1007),
            (server_frame(0x88, b"\x03\xe8\xff"), 1007),
        ],
    )
    @pytest.mark.parametrize("step", [1, 1 << 21])
    def test_a_breach_ends_it_at_its_first_sign(self, junk: bytes, code: int, step: int) -> None:
        data = server_frame(0x81, b"before") + junk
        pieces = [data[at : at + step] for at in range(0, len(data), step)]
        heard = Heard(pieces)
        assert (heard.violation, heard.messages) == (code, [b"before"])
        if step == 1:
            assert Heard(pieces[:-1]).violation is None, "it showed sooner"

    def test_halves_of_a_character_in_two_texts_are_none(self) -> None:
        halves = server_frame(0x81, "汉".encode()[:1]) + server_frame(0x81, "汉".encode()[1:])
        assert Heard([halves]).violation == 1007

    @pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535])
    def test_a_close_code_that_there_is_not(self, code: int) -> None:
        assert Heard([server_frame(0x88, code.to_bytes(2, "big"))]).violation == 1002

    def test_a_close_without_a_code(self) -> None:
        assert Heard([server_frame(0x88, b"") + server_frame(0x81, b"more")]).close == CloseFrame(1005, "")

    def test_what_came_before_a_bad_text_is_kept_and_what_comes_behind_is_not(self) -> None:
        data = server_frame(0x81, b"1") + server_frame(0x82, b"\xff") + server_frame(0x81, b"\xff")
        heard = Heard([data + server_frame(0x81, b"2") + server_frame(0x88, b"\x03\xe8") + b"\x83"])
        assert (heard.violation, heard.messages, heard.close) == (1007, [b"1", b"\xff"], None)

    def test_a_binary_message_need_not_be_text_in_fragments_either(self) -> None:
        heard = Heard([server_frame(0x02, b"\xff") + server_frame(0x80, b"\xfe") + server_frame(0x81, b"a")])
        assert (heard.violation, heard.messages) == (None, [b"\xff\xfe", b"a"])

    @pytest.mark.parametrize(
        ("data", "has_begun"),
        [
            (b"", False),
            (server_frame(0x89, b"?"), False),
            (b"\x89", False),
            (b"\x8a\x05abc", False),
            (b"\x88\x02", False),
            (b"\x81", True),
            (b"\x01\x00", True),
            (server_frame(0x81, b""), True),
        ],
    )
    def test_whether_a_message_has_begun(self, data: bytes, has_begun: bool) -> None:
        reader = FrameReader()
        reader.receive(data)
        assert reader.has_begun is has_begun
        reader.clear()
        assert not reader.has_begun


class TestWriting:
    @given(st.sampled_from([TEXT, CLOSE, PING, PONG]), st.binary(max_size=700), st.binary(min_size=4, max_size=4))
    @example(TEXT, b"x" * 65_535, b"\x00\x01\x02\x03")
    @example(TEXT, b"x" * 65_537, b"\xff\x01\x02\x03")
    def test_websockets_reads_what_is_written(self, kind: int, payload: bytes, key: bytes) -> None:
        if kind != TEXT:
            payload = payload[:125]
        if kind == CLOSE:
            payload = b"\x03\xe8"
        server = ServerProtocol(state=State.OPEN)
        server.receive_data(encode_frame(kind, payload, key))
        assert server.parser_exc is None
        (frame,) = server.events_received()
        assert isinstance(frame, Frame)
        assert (frame.opcode, bytes(frame.data), frame.fin) == (Opcode(kind), payload, True)
