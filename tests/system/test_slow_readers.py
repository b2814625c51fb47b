"""Clients that do not read: they hold up their own answer and nothing else, and are cut when they have stopped."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import websockets

from system.harness import LocalServer, Person, Platform, estimated, question


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


async def ask_with_a_small_buffer(server: LocalServer, person: Person) -> socket.socket:
    """Ask for a stream on a socket whose system keeps little of it."""
    body = json.dumps(person.call("hi")).encode()
    loop = asyncio.get_running_loop()
    asking = socket.socket()
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    asking.setblocking(False)
    await loop.sock_connect(asking, ("127.0.0.1", server.port))
    await loop.sock_sendall(
        asking,
        b"POST /textModel/stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
    )
    return asking


async def test_a_reader_that_stopped_is_cut_and_charged_as_gone(
    start_server: Callable[..., LocalServer], platform: Platform
) -> None:
    async with websockets.serve(ManyFrames().answer, "127.0.0.1", 0, compression=None) as upstream:
        port = next(iter(upstream.sockets)).getsockname()[1]
        server = start_server(spark_url=f"ws://127.0.0.1:{port}/v3.5/chat", reader_timeout=1.0)
        person = await server.person()
        before = await person.tokens()
        stopped = await ask_with_a_small_buffer(server, person)
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


async def test_a_reader_that_trickles_past_the_limit_of_the_call_is_cut_and_pays(
    start_server: Callable[..., LocalServer],
) -> None:
    """It has not stopped; but it had most of an answer for nothing, since upstream's time ran out meanwhile."""
    limit = 1.5
    async with websockets.serve(ManyFrames().answer, "127.0.0.1", 0, compression=None) as upstream:
        port = next(iter(upstream.sockets)).getsockname()[1]
        server = start_server(spark_url=f"ws://127.0.0.1:{port}/v3.5/chat", upstream_call_timeout=limit)
        person = await server.person()
        before = await person.tokens()
        loop = asyncio.get_running_loop()
        trickling = await ask_with_a_small_buffer(server, person)
        try:
            began, seen = loop.time(), 0
            while await person.tokens() == before:
                seen += len(await loop.sock_recv(trickling, 50_000))
                assert loop.time() < began + 15, "it reads on, and nothing ends its call"
        finally:
            trickling.close()
        assert loop.time() - began > limit
        assert seen > 0
        # What upstream had sent by then is more than was set aside, and that is the most that is taken.
        assert await person.tokens() == before - estimated(question("hi"), "") - 4096
        await server.assert_books_add_up()
