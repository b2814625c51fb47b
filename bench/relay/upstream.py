"""A Spark stand-in that costs next to nothing: frames are rendered once and sent as bytes.

It does what a question's text orders, for example ``frames=50 every=100 delay=300``:

- ``frames``: how many are sent (50);
- ``every``: milliseconds between two of them (0: all at once);
- ``delay``: milliseconds of thinking before the first (0);
- ``stamps``: 1 puts the moment of sending (nanoseconds of the monotonic clock, which all processes of a machine share)
  into each frame's text, so that the reader knows how long it was on its way.

``--rtt`` puts the stand-in that many milliseconds away: TCP's handshake, TLS' (where there is one), the websocket's and
each frame then take as long as over such a line. A delay in user space can only be added where user space is asked, so
the accepted connection is read half a round trip late for TCP, and everything that is sent leaves a round trip late.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import sys
import time
from collections.abc import Callable
from typing import ClassVar

import picows
import uvloop

__all__ = ["Orders", "main", "parse_fault_requests", "render"]

ORDER = re.compile(rb"(frames|every|delay|stamps)=(\d+)")
PIECE = "twenty characters of"


class Orders:
    """What a question orders; see the module."""

    __slots__ = ("delay", "every", "frames", "stamps")

    def __init__(self, frames: int = 50, every: int = 0, delay: int = 0, stamps: int = 0) -> None:
        self.frames = frames
        self.every = every
        self.delay = delay
        self.stamps = stamps


def parse_fault_requests(question: bytes) -> Orders:
    """Read the last order of each kind in a question."""
    orders = Orders()
    for name, value in ORDER.findall(question):
        setattr(orders, name.decode(), int(value))
    return orders


def render(number: int, count: int, text: str = PIECE) -> bytes:
    """Return frame ``number`` of ``count``, as Spark writes it."""
    status = 2 if number == count - 1 else 1 if number else 0
    usage = ""
    if status == 2:
        tokens = f'"question_tokens":4,"prompt_tokens":5,"completion_tokens":{count * 4},"total_tokens":{count * 4 + 5}'
        usage = f',"usage":{{"text":{{{tokens}}}}}'
    header = f'{{"code":0,"message":"Success","sid":"cht000cb087@dx18793cd421fb894542","status":{status}}}'
    piece = f'{{"content":"{text}","role":"assistant","index":0}}'
    choices = f'{{"status":{status},"seq":{number},"text":[{piece}]}}'
    return f'{{"header":{header},"payload":{{"choices":{choices}{usage}}}}}'.encode()


class _Conversation(picows.WSListener):
    rendered: ClassVar[dict[int, list[bytes]]] = {}

    def __init__(self, later: Callable[[Callable[[], None]], None]) -> None:
        self._later = later

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.TEXT:
            orders = parse_fault_requests(frame.get_payload_as_bytes())
            self._later(lambda: self._begin(transport, orders))
        elif frame.msg_type == picows.WSMsgType.CLOSE:
            with contextlib.suppress(Exception):  # the other side may be gone already
                transport.send_close(picows.WSCloseCode.OK)
                transport.disconnect()

    def _begin(self, transport: picows.WSTransport, orders: Orders) -> None:
        frames = self.rendered.get(orders.frames)
        if frames is None:
            frames = self.rendered[orders.frames] = [render(n, orders.frames) for n in range(orders.frames)]
        if not orders.every and not orders.delay and not orders.stamps:
            for one in frames:
                transport.send(picows.WSMsgType.TEXT, one)
            return
        loop = asyncio.get_running_loop()
        begin = loop.time() + orders.delay / 1000

        def send(number: int) -> None:
            if transport.is_disconnected:
                return
            stamped = render(number, orders.frames, str(time.monotonic_ns())) if orders.stamps else frames[number]
            transport.send(picows.WSMsgType.TEXT, stamped)
            if number + 1 < orders.frames:
                loop.call_at(begin + (number + 1) * orders.every / 1000, send, number + 1)

        loop.call_at(begin, send, 0)


class _FarAway:
    """A line with a round trip time between us and a server on this machine."""

    def __init__(self, port: int, rtt: float) -> None:
        self._port = port
        self._half = rtt / 2

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # TCP's own handshake is done by the kernel without delay: charge it here, once.
        await asyncio.sleep(self._half * 2)
        here, there = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(self._pump(reader, there), self._pump(here, writer))
        finally:
            for side in (writer, there):
                side.close()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()

        def deliver(data: bytes) -> None:
            if not target.is_closing():
                target.write(data)

        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                loop.call_later(self._half, deliver, data)
        loop.call_later(self._half, target.close)


async def _serve(rtt: float) -> None:
    loop = asyncio.get_running_loop()
    server = await picows.ws_create_server(
        lambda request: _Conversation(lambda work: work()), "127.0.0.1", 0, backlog=4096
    )
    port = server.sockets[0].getsockname()[1]
    if rtt:
        line = _FarAway(port, rtt)
        far = await asyncio.start_server(line.carry, "127.0.0.1", 0, backlog=4096)
        port = far.sockets[0].getsockname()[1]
    print(port, flush=True)
    # Lives as long as whoever started it holds the other end of its standard input.
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    os._exit(0)


def main() -> None:
    """Serve; print the port."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rtt", type=float, default=0.0, help="milliseconds")
    uvloop.run(_serve(parser.parse_args().rtt / 1000))


if __name__ == "__main__":
    main()
