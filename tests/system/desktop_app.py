"""How the existing desktop app reads a stream, written from the description of its behaviour.

It asks by `requests` with ``stream=True``, takes pieces of 2048 bytes, decodes each piece alone, appends it to a text,
and tries to read JSON from the text's first ``{`` to its last ``}``. A piece that ends inside a character ends the
program; two frames in one piece lose the rest of the answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import requests

__all__ = ["Shown", "ask", "take"]


@dataclass
class Shown:
    """What the person at the app gets to see.

    Attributes:
        error: the message of an error box.
        total_tokens: what the app takes off its own count; ``None``: it could not.
        unread: text that never became a frame.
    """

    text: str = ""
    error: str | None = None
    total_tokens: int | None = None
    is_last_seen: bool = False
    unread: str = ""
    frames: list[dict[str, Any]] = field(default_factory=list)


def ask(port: int, uuid: str, username: str, text: str) -> Shown:
    """Ask and read as the app does.

    Raises:
        UnicodeDecodeError: the app would have crashed: a character was cut in two.
        requests.exceptions.ChunkedEncodingError: it would have crashed: the body was not ended.
    """
    call = {
        "uuid": uuid,
        "username": username,
        "dialog": [{"role": "system", "content": ""}, {"role": "user", "content": text}],
    }
    shown = Shown()
    with requests.post(f"http://127.0.0.1:{port}/textModel/stream", json=call, stream=True, timeout=30) as response:
        for piece in response.iter_content(chunk_size=2048):
            take(shown, piece)
            if shown.error is not None:
                break
    return shown


def take(shown: Shown, piece: bytes) -> None:
    """Take one piece of the body. Raises UnicodeDecodeError as `ask` does."""
    shown.unread += piece.decode("utf-8")
    begin, end = shown.unread.find("{"), shown.unread.rfind("}")
    if begin < 0 or end < begin:
        return
    try:
        frame = json.loads(shown.unread[begin : end + 1])
        if "code" in frame:
            shown.error = frame["msg"]
            return
        if frame["header"]["code"] != 0:
            shown.error = frame["header"]["message"]
            return
        for element in frame["payload"]["choices"]["text"]:
            shown.text += element["content"]
        if frame["header"]["status"] == 2:
            shown.is_last_seen = True
            usage = frame["payload"]["usage"]["text"]
            numbers = [usage[name] for name in ("question_tokens", "prompt_tokens", "completion_tokens")]
            assert all(type(number) is int for number in numbers)
            shown.total_tokens = usage["total_tokens"]
    except (ValueError, KeyError, TypeError):
        return  # the app keeps its buffer and goes on
    shown.frames.append(frame)
    shown.unread = shown.unread[end + 1 :]
