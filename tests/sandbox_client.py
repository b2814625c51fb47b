"""A plain client of the platform's protocols for tests: it signs, connects, asks and reads, and tolerates nothing.

It shares no code with the product's own clients, so that both sides of a mistake cannot cancel out; only the signature
is the product's, which has the vendor's published vectors as its tests.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import websockets

from aiproject.protocols.iflytek.signing import http_date, sign_url
from aiproject.sandbox.platform import SandboxOptions
from aiproject.sandbox.running import SandboxAddress

__all__ = [
    "FAST",
    "chat_request",
    "connect",
    "control",
    "dictate",
    "dictation_frames",
    "large_dictation_frames",
    "post",
    "read_all",
    "say",
    "signed",
    "transcript",
]

FAST = SandboxOptions(first_frame_delay=0, frame_gap=0, use_engines=False)
"""For tests that do not look at the spacing of frames."""


def signed(
    address: SandboxAddress, url: str, *, method: Literal["GET", "POST"] = "GET", skew: float = 0.0, secret: str = ""
) -> str:
    """Sign a URL as of now, or ``skew`` seconds from now."""
    date = http_date(datetime.now(UTC) + timedelta(seconds=skew))
    return sign_url(url, method=method, api_key=address.api_key, api_secret=secret or address.api_secret, date=date)


@asynccontextmanager
async def connect(address: SandboxAddress, url: str) -> AsyncIterator[websockets.ClientConnection]:
    """Open a signed websocket."""
    async with websockets.connect(signed(address, url), max_size=None, compression=None, close_timeout=1) as ws:
        yield ws


async def read_all(ws: websockets.ClientConnection) -> list[dict[str, Any]]:
    """Read JSON frames until the server closes."""
    frames = []
    try:
        while True:
            frames.append(json.loads(await ws.recv()))
    except websockets.ConnectionClosed:
        return frames


def chat_request(
    address: SandboxAddress, prompt: str = "你好", *, domain: str = "generalv3.5", **chat: Any
) -> dict[str, Any]:
    """A question without history; ``chat`` adds parameters."""
    return {
        "header": {"app_id": address.app_id, "uid": "user-42"},
        "parameter": {"chat": {"domain": domain, "temperature": 0.5, "max_tokens": 4096, **chat}},
        "payload": {"message": {"text": [{"role": "user", "content": prompt}]}},
    }


async def say(
    address: SandboxAddress, request: object, *, url: str = ""
) -> tuple[list[dict[str, Any]], websockets.ClientConnection]:
    """Ask and read to the end; the connection comes back closed, with its close code and reason."""
    async with connect(address, url or address.spark_url) as ws:
        await ws.send(request if isinstance(request, str) else json.dumps(request, ensure_ascii=False))
        return await read_all(ws), ws


def dictation_frames(
    address: SandboxAddress, pcm: bytes, *, rate: int = 16000, size: int = 8000, **business: Any
) -> list[dict[str, Any]]:
    """A recording in the classic protocol, a frame in each piece and an empty last one."""
    sound = {"format": f"audio/L16;rate={rate}", "encoding": "raw"}
    pieces = [pcm[i : i + size] for i in range(0, len(pcm), size)] or [b""]
    frames: list[dict[str, Any]] = [
        {"data": {"status": 1, **sound, "audio": base64.b64encode(piece).decode()}} for piece in pieces
    ]
    frames[0]["data"]["status"] = 0
    frames[0]["common"] = {"app_id": address.app_id}
    frames[0]["business"] = {"language": "zh_cn", "domain": "iat", "accent": "mandarin", **business}
    return [*frames, {"data": {"status": 2}}]


def large_dictation_frames(address: SandboxAddress, pcm: bytes, **iat: Any) -> list[dict[str, Any]]:
    """The same in the large model's protocol."""
    pieces = [pcm[i : i + 8000] for i in range(0, len(pcm), 8000)] or [b""]
    frames: list[dict[str, Any]] = []
    for number, piece in enumerate([*pieces, b""]):
        status = 0 if number == 0 else 2 if number == len(pieces) else 1
        audio = {"encoding": "raw", "sample_rate": 16000, "channels": 1, "bit_depth": 16, "seq": number}
        audio |= {"status": status, "audio": base64.b64encode(piece).decode()}
        frames.append({"header": {"app_id": address.app_id, "status": status}, "payload": {"audio": audio}})
    frames[0]["parameter"] = {"iat": {"domain": "slm", "language": "zh_cn", "accent": "mandarin", **iat}}
    return frames


async def dictate(
    address: SandboxAddress, frames: Iterable[object], *, url: str = ""
) -> tuple[list[dict[str, Any]], websockets.ClientConnection]:
    """Send all frames, read results until the last one, an error or the end, then close."""
    results: list[dict[str, Any]] = []
    async with connect(address, url or address.dictation_url) as ws:
        for frame in frames:
            await ws.send(frame if isinstance(frame, str) else json.dumps(frame))
        try:
            while True:
                result = json.loads(await ws.recv())
                results.append(result)
                if result.get("data", result.get("header", {})).get("status") == 2:
                    break
        except websockets.ConnectionClosed:
            return results, ws
    return results, ws


def transcript(results: Sequence[dict[str, Any]]) -> str:
    """Put a transcript together by the rules of the document, with and without corrections."""
    pieces: dict[int, str] = {}
    for result in results:
        piece = result.get("data", {}).get("result")
        if piece is None and "payload" in result:
            piece = json.loads(base64.b64decode(result["payload"]["result"]["text"]))
        if piece is None:
            continue
        if piece.get("pgs") == "rpl":
            first, last = piece["rg"]
            pieces = {sn: text for sn, text in pieces.items() if not first <= sn <= last}
        pieces[piece["sn"]] = "".join(word["cw"][0]["w"] for word in piece["ws"])
    return "".join(pieces[sn] for sn in sorted(pieces))


def post(url: str, body: bytes, *, media_type: str = "application/json") -> tuple[int, bytes, dict[str, str]]:
    """POST and give status, body and headers, whatever the status. Blocking: use it beside no running loop of yours."""
    request = urllib.request.Request(url, data=body, headers={"Content-Type": media_type}, method="POST")  # noqa: S310
    return _send(request)


def control(address: SandboxAddress, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Call the control API."""
    data = None if body is None else json.dumps(body).encode()
    headers = {} if data is None else {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address.control_url}{path}", data=data, headers=headers, method=method)  # noqa: S310
    status, answer, _ = _send(request)
    return status, json.loads(answer)


def _send(request: urllib.request.Request) -> tuple[int, bytes, dict[str, str]]:
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - the address is the sandbox's
            return response.status, response.read(), dict(response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)
