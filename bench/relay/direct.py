"""An app that dials the vendor itself: TCP, the websocket's handshake, the question; no gateway."""

from __future__ import annotations

import time

from aiproject.adapters.net.websocket import connect
from aiproject.protocols.chat import ChatMessage, ChatRequest
from aiproject.protocols.iflytek.spark.request import build_request

__all__ = ["first_frames"]


async def first_frames(port: int, orders: str, calls: int) -> list[float]:
    """Return the seconds from the wish to ask to the first frame, for each of ``calls`` questions."""
    found = []
    question = build_request(
        ChatRequest((ChatMessage("user", f"please {orders}"),)), app_id="bench", domain="generalv3.5"
    )
    for _ in range(calls):
        began = time.monotonic()
        connection = await connect(f"ws://127.0.0.1:{port}/v3.5/chat", timeout=10, ssl_context=None)
        connection.send(question)
        await connection.receive(10)
        found.append(time.monotonic() - began)
        connection.close()
    return found
