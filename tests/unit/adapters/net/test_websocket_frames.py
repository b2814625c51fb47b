"""The websocket client's reading and writing, byte by byte, without a network."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from typing import cast

import pytest

from aiproject.adapters.net import websocket
from aiproject.adapters.net.websocket import MAX_QUEUED_BYTES, ConnectionEnded, WebSocketConnection
from aiproject.errors import UpstreamUnreachable
from aiproject.protocols.websocket.frames import MAX_FRAGMENTS, MAX_MESSAGE_BYTES
from aiproject.protocols.websocket.handshake import MAX_HANDSHAKE_BODY, MAX_HANDSHAKE_HEAD

ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
)
"""The answer of RFC 6455, section 1.3, to the key below."""

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_closed = False
        self.is_aborted = False
        self.is_reading = True

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def frames(self) -> list[tuple[int, bytes]]:
        """First byte and unmasked payload of each frame that was written."""
        found, data = [], bytes(self.written)
        while data:
            first, length = data[0], data[1]
            assert length & 0x80, "a client's frame is masked"
            length &= 0x7F
            at = 2 if length < 126 else 4 if length == 126 else 10
            if at > 2:
                length = int.from_bytes(data[2:at], "big")
            key, masked = data[at : at + 4], data[at + 4 : at + 4 + length]
            assert len(masked) == length
            found.append((first, bytes(a ^ b for a, b in zip(masked, itertools.cycle(key), strict=False))))
            data = data[at + 4 + length :]
        return found


def text_of(chance: random.Random, size: int) -> bytes:
    """``size`` bytes of UTF-8, since a text must be that."""
    return "".join(chance.choices("a\x00\x7f", k=size)).encode()


def frame(first: int, payload: bytes) -> bytes:
    """A server's frame."""
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big") + payload
    return bytes((first, 127)) + length.to_bytes(8, "big") + payload


@pytest.fixture
async def wire() -> Wire:
    return Wire()


@pytest.fixture
async def fresh(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> WebSocketConnection:
    """A connection that has asked for its handshake."""
    connection = WebSocketConnection(asyncio.get_running_loop(), b"GET / HTTP/1.1\r\nSec-WebSocket-Key: ")
    with monkeypatch.context() as patch:
        patch.setattr(websocket, "_random", lambda _: b"the sample nonce")
        connection.connection_made(cast("asyncio.Transport", wire))
    assert bytes(wire.written).endswith(KEY + b"\r\n\r\n")
    wire.written.clear()
    return connection


@pytest.fixture
async def connection(fresh: WebSocketConnection) -> WebSocketConnection:
    fresh.data_received(ACCEPTED + b"\r\n")
    await fresh.opened()
    return fresh


async def messages(connection: WebSocketConnection) -> list[bytes]:
    return list(await connection.receive_all(0.01))


async def end_of(connection: WebSocketConnection) -> int:
    with pytest.raises(ConnectionEnded) as caught:
        await connection.receive(0.01)
    return caught.value.code


class TestReading:
    @pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, MAX_MESSAGE_BYTES])
    async def test_every_length(self, connection: WebSocketConnection, size: int) -> None:
        payload = text_of(random.Random(size), size)
        connection.data_received(frame(0x81, payload) + frame(0x82, b"next"))
        assert await messages(connection) == [payload, b"next"]

    @pytest.mark.parametrize("seed", range(40))
    async def test_wherever_the_network_cuts(self, connection: WebSocketConnection, wire: Wire, seed: int) -> None:
        chance = random.Random(seed)
        sent, expected, pings = bytearray(), [], []
        for _ in range(60):
            kind = chance.choice(["text", "binary", "fragments", "ping", "pong"])
            payload = text_of(chance, chance.choice([0, 1, 5, 124, 125, 126, 300, 70_000]))
            if kind == "text":
                sent += frame(0x81, payload)
                expected.append(payload)
            elif kind == "binary":
                sent += frame(0x82, payload)
                expected.append(payload)
            elif kind == "fragments":
                sent += frame(0x01, payload[:3]) + frame(0x89, b"between") + frame(0x00, b"") + frame(0x80, payload[3:])
                expected.append(payload)
                pings.append(b"between")
            elif kind == "ping":
                sent += frame(0x89, payload[:125])
                pings.append(payload[:125])
            else:
                sent += frame(0x8A, payload[:125])
        sent += frame(0x88, b"\x03\xf0bye")
        data = bytes(sent)
        got: list[bytes] = []
        while data:
            cut = chance.choice([1, 2, 3, 7, 100, 1000, 60_000])
            connection.data_received(data[:cut])
            data = data[cut:]
            if connection._reader.messages:
                got += await messages(connection)
        assert got == expected
        assert await end_of(connection) == 1008
        assert wire.frames() == [(0x8A, ping) for ping in pings] + [(0x88, b"\x03\xe8")]
        assert wire.is_closed
        assert not wire.is_aborted

    @pytest.mark.parametrize(
        ("junk", "code"),
        [
            (b"\x83\x00", 1002),
            (b"\x8b\x00", 1002),
            (b"\xc1\x00", 1002),
            (b"\xa1\x00", 1002),
            (b"\x91\x00", 1002),
            (b"\x09\x00", 1002),
            (b"\x89\x7e", 1002),
            (b"\x88\x01", 1002),
            (b"\x80\x00", 1002),
            (b"\x01\x00\x81\x00", 1002),
            (b"\x01\x00\x01\x00", 1002),
            (b"\x81\x80", 1002),
            (b"\x81\xfe", 1002),
            (b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", 1009),
            (b"\x81\x7f" + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"), 1009),
            (b"\x01\x00" + b"\x00\x00" * MAX_FRAGMENTS, 1009),
        ],
    )
    @pytest.mark.parametrize("step", [1, 1 << 20])
    async def test_a_breach_ends_it_at_its_first_sign(
        self, connection: WebSocketConnection, wire: Wire, junk: bytes, code: int, step: int
    ) -> None:
        data = frame(0x81, b"before") + junk
        for at in range(0, len(data), step):
            assert not wire.is_closed
            connection.data_received(data[at : at + step])
        connection.data_received(frame(0x81, b"after"))
        assert wire.is_aborted
        assert await messages(connection) == [b"before"]
        assert await end_of(connection) == code
        assert not wire.written

    async def test_a_big_message_in_drops_takes_no_longer_than_its_bytes(self, connection: WebSocketConnection) -> None:
        data = frame(0x81, b"x" * MAX_MESSAGE_BYTES)
        began = time.process_time()
        for at in range(0, len(data), 16):
            connection.data_received(data[at : at + 16])
        # A tenth of a second; more than ten, if each drop were put behind a copy of what came before.
        assert time.process_time() - began < 3
        assert [len(message) for message in await messages(connection)] == [MAX_MESSAGE_BYTES]

    async def test_empty_messages_fill_the_queue_too(self, connection: WebSocketConnection, wire: Wire) -> None:
        count = 0
        while wire.is_reading:
            connection.data_received(frame(0x81, b"") * 100)
            count += 100
            assert count < MAX_QUEUED_BYTES
        assert await connection.receive(0.01) == b""
        assert not wire.is_reading
        assert len(await messages(connection)) == count - 1
        assert wire.is_reading

    async def test_one_by_one_they_leave_the_queue_as_they_came(
        self, connection: WebSocketConnection, wire: Wire
    ) -> None:
        connection.data_received((frame(0x81, b"x" * 1000) + frame(0x01, b"") + frame(0x80, b"y")) * 300)
        assert not wire.is_reading
        for _ in range(600):
            await connection.receive(0.01)
        assert connection._reader.size == 0
        assert wire.is_reading

    async def test_questions_of_a_peer_that_does_not_listen_are_not_piled_up(
        self, connection: WebSocketConnection, wire: Wire
    ) -> None:
        connection.data_received(frame(0x89, b"1"))
        connection.pause_writing()
        connection.data_received(frame(0x89, b"2") * 1000)
        connection.resume_writing()
        connection.data_received(frame(0x89, b"3"))
        assert wire.frames() == [(0x8A, b"1"), (0x8A, b"3")]

    async def test_nothing_is_answered_after_the_end(self, connection: WebSocketConnection, wire: Wire) -> None:
        connection.close()
        connection.data_received(frame(0x89, b"still there?") + frame(0x81, b"more") + frame(0x88, b""))
        assert wire.frames() == [(0x88, b"\x03\xe8")]
        assert await end_of(connection) == 1000


class TestWriting:
    @pytest.mark.parametrize("size", [0, 1, 3, 125, 126, 511, 512, 513, 514, 515, 516, 65_535, 65_536, 200_003])
    async def test_every_length(self, connection: WebSocketConnection, wire: Wire, size: int) -> None:
        message = random.Random(size).randbytes(size)
        connection.send(message)
        connection.send(message)
        assert wire.frames() == [(0x81, message)] * 2

    async def test_no_two_masks_are_the_same(self, connection: WebSocketConnection, wire: Wire) -> None:
        for _ in range(3000):  # several pages of randomness
            connection.send(b"")
        keys = {bytes(wire.written[at + 2 : at + 6]) for at in range(0, len(wire.written), 6)}
        assert len(keys) > 2990  # of 2**32, two may meet


async def failure_of(fresh: WebSocketConnection) -> UpstreamUnreachable:
    with pytest.raises(UpstreamUnreachable) as caught:
        await asyncio.wait_for(fresh.opened(), 0.1)
    return caught.value


class TestHandshake:
    async def test_the_answer_may_come_in_drops_with_frames_behind_it(self, fresh: WebSocketConnection) -> None:
        for byte in ACCEPTED + b"\r\n" + frame(0x81, b"first"):
            fresh.data_received(bytes((byte,)))
        await fresh.opened()
        assert await messages(fresh) == [b"first"]

    @pytest.mark.parametrize(
        "answer",
        [
            ACCEPTED.replace(b"s3pP", b"s3pp") + b"\r\n",
            ACCEPTED.replace(b"WebSocket\r", b"h2c\r") + b"\r\n",
            ACCEPTED.replace(b"Upgrade\r", b"close\r") + b"\r\n",
            ACCEPTED + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            ACCEPTED + b"Sec-WebSocket-Protocol: chat\r\n\r\n",
            ACCEPTED + b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            ACCEPTED + b" folded: line\r\n\r\n",
            ACCEPTED + b"no colon\r\n\r\n",
            ACCEPTED + b"X: y\r\n" * 100 + b"\r\n",
            ACCEPTED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n",
            b"SSH-2.0-OpenSSH_9\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"x" * (MAX_HANDSHAKE_HEAD + 1),
            ACCEPTED + b"X: " + b"y" * MAX_HANDSHAKE_HEAD + b"\r\n\r\n",
        ],
    )
    async def test_what_is_no_answer_to_it(self, fresh: WebSocketConnection, wire: Wire, answer: bytes) -> None:
        fresh.data_received(answer)
        failure = await failure_of(fresh)
        assert failure.detail.startswith("handshake failed")
        assert failure.retryable
        assert wire.is_aborted

    async def test_a_refusal_waits_for_its_body(self, fresh: WebSocketConnection) -> None:
        for piece in (b"HTTP/1.1 403 Forbidden\r\nDate: today\r\nContent-", b"Length: 9\r\n\r\n", b"no ", b"date"):
            fresh.data_received(piece)
            await asyncio.sleep(0)
        assert fresh.is_open
        fresh.data_received(b"!!" + b"the next answer")
        failure = await failure_of(fresh)
        assert (failure.status, failure.server_date, failure.retryable) == (403, "today", False)
        assert "no date!!" in failure.detail

    @pytest.mark.parametrize(
        ("head", "body"),
        [
            (b"Transfer-Encoding: chunked\r\n", b"4\r\nbusy\r\n0\r\n\r\n"),
            (b"Content-Length: 0\r\n", b""),
            (b"Content-Length: 99999999999\r\n", b"x" * MAX_HANDSHAKE_BODY),
            (b"", b"x" * MAX_HANDSHAKE_BODY),
        ],
        ids=["chunked", "none", "endless", "without a length"],
    )
    async def test_a_refusal_ends_with_its_body(self, fresh: WebSocketConnection, head: bytes, body: bytes) -> None:
        whole = b"HTTP/1.1 503 Busy\r\n" + head + b"\r\n" + body
        fresh.data_received(whole[:-1])
        assert fresh.is_open
        fresh.data_received(whole[-1:])
        failure = await failure_of(fresh)
        assert failure.status == 503
        assert len(failure.detail) < 300

    async def test_an_answer_before_the_answer_is_none(self, fresh: WebSocketConnection) -> None:
        fresh.data_received(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        assert (await failure_of(fresh)).status == 103

    @pytest.mark.parametrize("how", ["end", "reset"])
    async def test_a_refusal_without_a_length_ends_with_the_connection(
        self, fresh: WebSocketConnection, how: str
    ) -> None:
        fresh.data_received(b"HTTP/1.1 503\r\n\r\nbusy")
        assert fresh.is_open
        fresh.connection_lost(None if how == "end" else ConnectionResetError())
        failure = await failure_of(fresh)
        assert (failure.status, failure.detail, failure.retryable) == (
            503,
            "handshake refused with HTTP 503: busy",
            True,
        )

    async def test_an_end_without_an_answer(self, fresh: WebSocketConnection) -> None:
        fresh.data_received(b"HTTP/1.1 101")
        fresh.connection_lost(None)
        failure = await failure_of(fresh)
        assert failure.retryable
        assert failure.status is None

    async def test_giving_up_may_come_late(self, fresh: WebSocketConnection, wire: Wire) -> None:
        fresh.data_received(b"nonsense\r\n\r\n")
        fresh.give_up()
        fresh.give_up()
        fresh.connection_lost(None)
        assert wire.is_aborted
