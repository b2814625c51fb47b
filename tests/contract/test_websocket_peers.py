"""The same streams of bytes over real sockets: what our client, picows and `websockets` make of them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import picows
import pytest
from websockets.asyncio.client import connect as websockets_connect
from websockets.exceptions import ConnectionClosed

from aiproject.adapters.net.websocket import ConnectionEnded, connect
from websocket_streams import Stream, server_frame

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def stream_of(seed: int) -> Stream:
    """A long stream with all kinds of frames; it ends with a close frame."""
    chance = random.Random(seed)
    stream = Stream()
    for _ in range(80):
        text = "".join(chance.choices("a汉😀é\x00", k=chance.choice([0, 1, 40, 125, 126, 300, 20_000]))).encode()
        match chance.choice(["text", "text", "binary", "fragments", "ping"]):
            case "text":
                stream.data += server_frame(0x81, text)
                stream.messages.append(text)
            case "binary":
                blob = chance.randbytes(chance.choice([0, 5, 70_000]))
                stream.data += server_frame(0x82, blob)
                stream.messages.append(blob)
            case "fragments":
                at = chance.randrange(len(text) + 1)
                stream.data += server_frame(0x01, text[:at]) + server_frame(0x89, b"between")
                stream.data += server_frame(0x00, b"") + server_frame(0x80, text[at:])
                stream.messages.append(text)
                stream.pings.append(b"between")
            case "ping":
                stream.data += server_frame(0x89, text[:3])
                stream.pings.append(text[:3])
    stream.data += server_frame(0x88, b"\x03\xe8bye")
    stream.close = 1000, "bye"
    return stream


@asynccontextmanager
async def playing(data: bytes, seed: int) -> AsyncIterator[str]:
    """A server that answers every handshake and then sends these bytes, in pieces that the seed chooses."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(
            line.partition(b":")[2].strip()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())  # noqa: S324 - as the RFC has it
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        chance = random.Random(seed)
        at = 0
        with suppress(ConnectionError, TimeoutError):
            while at < len(data):
                size = chance.choice([1, 3, 100, 5000, 60_000])
                writer.write(data[at : at + size])
                at += size
                await writer.drain()
                await asyncio.sleep(0)
            async with asyncio.timeout(0.3):  # some clients wait for the server to close
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        await server.wait_closed()


async def by_ours(url: str) -> tuple[list[bytes], int]:
    connection = await connect(url, timeout=5, ssl_context=None)
    messages: list[bytes] = []
    try:
        while True:
            messages += await connection.receive_all(5)
    except ConnectionEnded as end:
        return messages, end.code
    finally:
        connection.close()


async def by_websockets(url: str) -> tuple[list[bytes], int]:
    messages: list[bytes] = []
    async with websockets_connect(url, compression=None, max_size=None, proxy=None, ping_interval=None) as connection:
        with suppress(ConnectionClosed):
            while True:
                message = await connection.recv()
                messages.append(message.encode() if isinstance(message, str) else message)
        assert connection.close_code is not None
        return messages, connection.close_code


class _Listener(picows.WSListener):
    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.fragments: list[bytes] = []
        self.code = 1006

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        kind = frame.msg_type
        if kind in (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION):
            self.fragments.append(frame.get_payload_as_bytes())
            if frame.fin:
                self.messages.append(b"".join(self.fragments))
                self.fragments = []
        elif kind is picows.WSMsgType.CLOSE:
            self.code = int.from_bytes(frame.get_payload_as_bytes()[:2], "big")
            transport.disconnect()


async def by_picows(url: str) -> tuple[list[bytes], int]:
    transport, listener = await picows.ws_connect(_Listener, url)
    assert isinstance(listener, _Listener)
    await transport.wait_disconnected()
    return listener.messages, listener.code


@pytest.mark.parametrize("seed", range(4))
async def test_all_three_read_the_same(seed: int) -> None:
    stream = stream_of(seed)
    async with playing(stream.data, seed) as url:
        for read in (by_ours, by_websockets, by_picows):
            assert await read(url) == (stream.messages, 1000), read.__name__


async def test_a_text_that_is_not_utf_8_ends_ours_as_it_ends_websockets() -> None:
    data = server_frame(0x81, b"before") + server_frame(0x81, b"\xff")
    async with playing(data, 0) as url:
        assert await by_ours(url) == ([b"before"], 1007)
        async with websockets_connect(url, compression=None, proxy=None, ping_interval=None) as connection:
            assert await connection.recv() == "before"
            with pytest.raises(ConnectionClosed) as caught:
                await connection.recv()
        assert caught.value.sent is not None
        assert caught.value.sent.code == 1007
