"""An OpenAI-style stand-in: chat completions, whole or as events, of as many pieces as the question orders.

The number of pieces and their size are those of `bench.relay.upstream`, so that a gateway for OpenAI's dialect gets the
same answers; but no two pieces are alike, because LiteLLM cuts an answer that repeats itself a hundred times.
Frames are rendered once for each number of them and sent as bytes, each as a chunk of its own.

Source: OpenAI API reference, "Chat Completions", "Streaming".
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import ClassVar, cast

import httptools
import uvloop

from bench.relay.upstream import parse_fault_requests

__all__ = ["events", "main", "piece", "response", "whole"]

USAGE = {"prompt_tokens": 5, "completion_tokens": 200, "total_tokens": 205}


def piece(number: int) -> str:
    """Return piece ``number``: twenty characters."""
    return f"{number:06d} characters of"


def whole(count: int) -> bytes:
    """Return a completion of ``count`` pieces."""
    message = {"role": "assistant", "content": "".join(map(piece, range(count)))}
    return json.dumps(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "bench",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": USAGE,
        }
    ).encode()


def events(count: int) -> list[bytes]:
    """Return ``count`` server-sent events, the last with the reason of the end, and the mark of the end."""
    found = []
    for number in range(count):
        delta = {"content": piece(number), **({"role": "assistant"} if number == 0 else {})}
        choice = {"index": 0, "delta": delta, "finish_reason": "stop" if number == count - 1 else None}
        chunk = {
            "id": "chatcmpl-bench",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": "bench",
            "choices": [choice],
        }
        found.append(f"data: {json.dumps(chunk)}\n\n".encode())
    return [*found, b"data: [DONE]\n\n"]


class _Conversation(asyncio.Protocol):
    answers: ClassVar[dict[tuple[int, bool], bytes]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods and not the class
        self._transport = cast("asyncio.Transport", transport)
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        is_stream = bool(json.loads(self._body).get("stream"))
        count = parse_fault_requests(self._body).frames
        answer = self.answers.get((count, is_stream))
        if answer is None:
            answer = self.answers[count, is_stream] = response(count, is_stream=is_stream)
        self._transport.write(answer)
        self._begin()


def response(count: int, *, is_stream: bool) -> bytes:
    """Return a whole HTTP answer."""
    if not is_stream:
        body = whole(count)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in events(count)]
    return head.encode() + b"".join(chunks) + b"0\r\n\r\n"


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Conversation, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Lives as long as whoever started it holds the other end of its standard input.
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    os._exit(0)


def main() -> None:
    """Serve; print the port."""
    uvloop.run(_serve())


if __name__ == "__main__":
    main()
