"""Clients that do not read: they hold up their own answer and nothing else, and are cut when they have stopped."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import websockets

from system.harness import LocalServer, Platform


class ManyFrames:
    """An upstream whose answer is larger than all buffers on its way; stands in for the sandbox's, whose are small."""

    async def answer(self, websocket: Any) -> None:
        await websocket.recv()
        text = "x" * 60_000
        for number in range(200):
            status = 0 if number == 0 else 1
            await websocket.send(self.frame(number, status, text))
        await websocket.send(self.frame(200, 2, "end", usage=True))
        await websocket.wait_closed()

    @staticmethod
    def frame(seq: int, status: int, text: str, *, usage: bool = False) -> str:
        numbers = {"question_tokens": 1, "prompt_tokens": 1, "completion_tokens": 8, "total_tokens": 9}
        payload: dict[str, Any] = {
            "choices": {"status": status, "seq": seq, "text": [{"content": text, "role": "assistant", "index": 0}]}
        }
        if usage:
            payload["usage"] = {"text": numbers}
        return json.dumps(
            {"header": {"code": 0, "message": "Success", "sid": "cht1", "status": status}, "payload": payload}
        )


async def test_a_reader_that_stopped_is_cut_and_charged_as_gone(
    start_server: Callable[..., LocalServer], platform: Platform
) -> None:
    async with websockets.serve(ManyFrames().answer, "127.0.0.1", 0, compression=None) as upstream:
        port = next(iter(upstream.sockets)).getsockname()[1]
        server = start_server(spark_url=f"ws://127.0.0.1:{port}/v3.5/chat", reader_timeout=1.0)
        person = await server.person()
        before = await person.tokens()
        body = json.dumps(
            {"uuid": person.uuid, "username": person.username, "dialog": [{"role": "user", "content": "hi"}]}
        ).encode()
        loop = asyncio.get_running_loop()
        stopped = socket.socket()
        stopped.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stopped.setblocking(False)
        await loop.sock_connect(stopped, ("127.0.0.1", server.port))
        await loop.sock_sendall(
            stopped,
            b"POST /textModel/stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
        )
        try:
            # Others are served meanwhile, at once.
            assert await asyncio.wait_for(person.tokens(), 5) == before

            async def is_charged() -> None:
                while await person.tokens() == before:  # noqa: ASYNC110 - the server is asked, not a flag
                    await asyncio.sleep(0.1)

            # It hangs, is cut after a second, the answer is read on to its end and charged by what upstream told.
            await asyncio.wait_for(is_charged(), 20)
            assert await person.tokens() == before - 9
        finally:
            stopped.close()
        await server.assert_books_add_up()
