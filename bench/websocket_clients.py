"""Which outgoing websocket client costs the least CPU for one chat of 50 frames?

Each contender opens a connection to a server in another process, sends a question of 300 bytes, reads 50 frames of 220
bytes and closes; 200 conversations a round, ten at a time. CPU is the client process's own, by the kernel's accounting
(``time.process_time``). Rounds alternate between contenders, the median is reported.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import aiohttp
import picows
import uvloop
import websockets

from aiproject.adapters.net.websocket import connect as adapter_connect

__all__ = ["run"]

FRAMES = 50
QUESTION = b"q" * 300
FRAME = (
    b'{"header":{"code":0,"message":"Success","sid":"cht000example@dx0000000000000000","status":1},'
    b'"payload":{"choices":{"status":1,"seq":1,"text":'
    b'[{"content":"twenty characters of","role":"assistant","index":0}]}}}'
)
CONVERSATIONS = 200
AT_ONCE = 10
ROUNDS = 7


class _Answerer(picows.WSListener):
    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.TEXT:
            for _ in range(FRAMES):
                transport.send(picows.WSMsgType.TEXT, FRAME)
        elif frame.msg_type == picows.WSMsgType.CLOSE:
            transport.send_close(picows.WSCloseCode.OK)
            transport.disconnect()


def _serve(ready: Connection) -> None:
    async def main() -> None:
        server = await picows.ws_create_server(lambda request: _Answerer(), "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


async def _adapter(url: str) -> None:
    connection = await adapter_connect(url, timeout=10, ssl_context=None)
    connection.send(QUESTION)
    for _ in range(FRAMES):
        await connection.receive(120)
    connection.close()


async def _websockets(url: str) -> None:
    async with websockets.connect(url, compression=None, max_size=2**20) as connection:
        await connection.send(QUESTION.decode())
        for _ in range(FRAMES):
            await asyncio.wait_for(connection.recv(decode=False), 120)


def _aiohttp(session: aiohttp.ClientSession) -> Callable[[str], Awaitable[None]]:
    async def converse(url: str) -> None:
        async with session.ws_connect(url, max_msg_size=2**20) as connection:
            await connection.send_str(QUESTION.decode())
            for _ in range(FRAMES):
                await connection.receive(120)

    return converse


async def _round(converse: Callable[[str], Awaitable[None]], url: str) -> float:
    """Return microseconds of CPU a conversation."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with gate:
            await converse(url)

    began = time.process_time()
    await asyncio.gather(*(one() for _ in range(CONVERSATIONS)))
    return (time.process_time() - began) / CONVERSATIONS * 1e6


def run() -> dict[str, float]:
    """Return the median microseconds of CPU a 50-frame chat, by client."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    server.start()
    url = f"ws://127.0.0.1:{here.recv()}/v3.5/chat"

    async def main() -> dict[str, float]:
        results: dict[str, list[float]] = {}
        async with aiohttp.ClientSession() as session:
            contenders: dict[str, Callable[[str], Awaitable[None]]] = {
                "our adapter": _adapter,
                "websockets": _websockets,
                "aiohttp": _aiohttp(session),
            }
            for converse in contenders.values():
                await _round(converse, url)  # warm
            for _ in range(ROUNDS):
                for name, converse in contenders.items():
                    results.setdefault(name, []).append(await _round(converse, url))
        return {name: statistics.median(values) for name, values in results.items()}

    try:
        return uvloop.run(main())
    finally:
        server.terminate()
        server.join()
