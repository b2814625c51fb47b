"""How the existing desktop app calls and reads, written from the description of its behaviour.

A stream is asked for by `requests` with ``stream=True``; the app takes pieces of 2048 bytes, decodes each piece alone,
appends it to a text, and tries to read JSON from the text's first ``{`` to its last ``}``. A piece that ends inside a
character ends the program; two frames in one piece lose the rest of the answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import requests

__all__ = ["DesktopApp", "Shown", "Told", "ask", "take"]


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


@dataclass
class Told:
    """What a call came to: the body of a 200, or ``None`` where the app shows its own words for a network failure.

    Attributes:
        tries: how often it was sent.
    """

    body: dict[str, Any] | None
    tries: int


class DesktopApp:
    """The calls of the app beside the stream, each as it sends them; the account's fields are what it keeps on disk."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self.uuid = ""
        self.username = ""
        self.tokens = 0
        self.pictures = 0

    def register(self, username: str, password: str, email: str = "", academy: str = "") -> Told:
        """Any one field may be empty; it is never sent twice."""
        entry = {"username": username, "password": password, "email": email, "academy": academy}
        headers = {"Content-Type": "application/json"}
        return self._send("/auth/register", tries=1, data=json.dumps(entry), headers=headers)

    def login(self, username: str, password: str) -> Told:
        """On success all of what it keeps must be there. Raises KeyError where the app would have ended."""
        told = self._send("/auth/login", json={"username": username, "password": password})
        if told.body is not None and told.body["code"] == 0:
            self.uuid, self.username = told.body["uuid"], told.body["username"]
            self.tokens, self.pictures = told.body["tokens"], told.body["picTimes"]
        return told

    def voice(self, pcm: bytes) -> Told:
        return self._upload("/voiceModel/chat", "20240928120000.pcm", pcm)

    def picture(self, data: bytes) -> Told:
        return self._upload("/PictureToTextModel/chat", "图片.jpg", data)

    def redeem(self, code: str, academy: str = "") -> Told:
        return self._send("/user/get_token", json={"token_id": code, "user_id": self.uuid, "user_academy": academy})

    def _upload(self, path: str, name: str, data: bytes) -> Told:
        headers = {"uuid": self.uuid, "username": self.username}
        return self._send(path, files={"file": (name, data)}, headers=headers)

    def _send(self, path: str, *, tries: int = 2, **options: Any) -> Told:
        """Once more on any status but 200, as for a lost connection."""
        for number in range(1, tries + 1):
            answer = requests.post(self._base + path, timeout=30, **options)
            if answer.status_code == 200:
                body = answer.json()
                assert isinstance(body["msg"], str)
                return Told(body, number)
        return Told(None, tries)
