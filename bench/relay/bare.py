"""The floor: a relay that does nothing but relay. Bare ASGI on uvicorn, picows towards upstream.

No accounts, no quotas, no signature, no limits, no log, no errors told: what any Python gateway on this event loop pays
at least. The whole answer is put together for ``/textModel/chat``, frames are passed on one by one for
``/textModel/stream``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import threading
from typing import Any

import msgspec
import picows
import uvicorn

logging.getLogger("picows").setLevel(logging.CRITICAL)


class _Header(msgspec.Struct):
    status: int


class _Text(msgspec.Struct):
    content: str


class _Choices(msgspec.Struct):
    text: list[_Text]


class _Payload(msgspec.Struct):
    choices: _Choices


class _Frame(msgspec.Struct):
    header: _Header
    payload: _Payload


_decode = msgspec.json.Decoder(_Frame).decode


class _Upstream(picows.WSListener):
    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.TEXT:
            self.frames.put_nowait(frame.get_payload_as_bytes())


URL = os.environ["BENCH_UPSTREAM"]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    call = json.loads(body)
    question = json.dumps(
        {
            "header": {"app_id": "bench"},
            "parameter": {"chat": {"domain": "generalv3.5", "max_tokens": 4096}},
            "payload": {"message": {"text": call["dialog"]}},
        }
    ).encode()
    transport, listener = await picows.ws_connect(_Upstream, URL, use_aiofastnet=False)
    assert isinstance(listener, _Upstream)
    transport.send(picows.WSMsgType.TEXT, question)
    if scope["path"].endswith("stream"):
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"application/json")],
            }
        )
        while True:
            frame = await listener.frames.get()
            await send({"type": "http.response.body", "body": frame, "more_body": True})
            if _decode(frame).header.status == 2:
                break
        await send({"type": "http.response.body", "body": b""})
    else:
        parts = []
        while True:
            decoded = _decode(await listener.frames.get())
            parts.append(decoded.payload.choices.text[0].content)
            if decoded.header.status == 2:
                break
        answer = json.dumps({"code": 0, "content": "".join(parts)}).encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", str(len(answer)).encode()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer})
    transport.disconnect()


def main() -> None:
    """Serve; print the port; end with standard input."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)

    def watch() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", ws="none", lifespan="off", log_config=None, access_log=False
    )
    asyncio.Runner(loop_factory=config.get_loop_factory()).run(uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    main()
