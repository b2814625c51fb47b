"""The load: HTTP/1.1 callers on kept-alive connections, each with one call under way; runs in a process of its own.

What a call costs us here must not be the limit, so this speaks to sockets directly, with httptools to parse.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

import httptools

__all__ = ["Called", "Target", "body_of", "call_many", "close_all", "hold_open", "request_bytes"]

STAMP = re.compile(rb'"content": ?"(\d{10,})"')


@dataclass(slots=True)
class Target:
    """Where and what to call.

    Attributes:
        frames: that a whole answer has; a stream with fewer counts as dropped.
        accounts: pairs of uuid and name; calls take turns.
        dialog_body: the body in another dialect than the seed's; an answer then is OpenAI's.
    """

    port: int
    path: str
    orders: str
    frames: int
    accounts: list[tuple[str, str]] = field(default_factory=lambda: [("u", "n")])
    headers: Mapping[str, str] = field(default_factory=dict)
    dialog_body: Mapping[str, object] | None = None


@dataclass(slots=True)
class Called:
    """What came of many calls; times in seconds.

    Attributes:
        first: from the request's sending to its first byte of body.
        whole: to its last.
        delays: of stamped frames, from upstream's sending to our reading.
        spacing: by how much the gap between two stamped frames differs from the gap at upstream.
        wrong: calls that failed or were cut.
    """

    calls: int = 0
    wrong: int = 0
    frames: int = 0
    seconds: float = 0.0
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    spacing: list[float] = field(default_factory=list)
    complaint: str = ""


def body_of(target: Target, number: int) -> bytes:
    """Return the body of a request by account ``number``, counted round and round."""
    if target.dialog_body is not None:
        return json.dumps(target.dialog_body).encode()
    uuid, name = target.accounts[number % len(target.accounts)]
    dialog = [{"role": "user", "content": f"please {target.orders}"}]
    return json.dumps({"uuid": uuid, "username": name, "dialog": dialog}).encode()


def request_bytes(target: Target, number: int) -> bytes:
    """Return the whole request of `body_of`."""
    body = body_of(target, number)
    extra = "".join(f"{name}: {value}\r\n" for name, value in target.headers.items())
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{extra}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Caller(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], done: asyncio.Queue[_Caller], *, is_stamped: bool) -> None:
        self._requests = requests
        self._is_stamped = is_stamped
        self._done = done
        self.reset()

    def reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.body_parts: list[bytes] = []
        self.status = 0
        self.began = self.first = self.ended = 0.0
        self.stamps: list[float] = []
        self.is_lost = False
        self.chunks = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods and not the class
        self.transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        self.reset()
        self.began = time.monotonic()
        self.transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        now = time.monotonic()
        if not self.first:
            self.first = now
        self.chunks += 1
        if self._is_stamped:
            for stamp in STAMP.findall(data):
                self.stamps.append(now - int(stamp) / 1e9)
        self.body_parts.append(data)

    def on_message_complete(self) -> None:
        self.ended = time.monotonic()
        self._done.put_nowait(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended:
            self.is_lost = True
            self._done.put_nowait(self)


def _requests(target: Target) -> Iterator[bytes]:
    """Return the requests of all accounts, round and round; rendered before anything is measured."""
    return itertools.cycle([request_bytes(target, number) for number in range(len(target.accounts))])


async def _connect(
    target: Target, requests: Iterator[bytes], callers: int, done: asyncio.Queue[_Caller]
) -> list[_Caller]:
    loop = asyncio.get_running_loop()
    made: list[_Caller] = []
    gate = asyncio.Semaphore(100)

    async def one() -> None:
        async with gate:
            _, caller = await loop.create_connection(
                lambda: _Caller(requests, done, is_stamped="stamps=1" in target.orders), "127.0.0.1", target.port
            )
        made.append(caller)

    await asyncio.gather(*(one() for _ in range(callers)))
    return made


async def call_many(target: Target, *, callers: int, calls: int, is_stream: bool, spread: float = 0.0) -> Called:
    """Make ``calls`` calls, ``callers`` at a time.

    Args:
        spread: seconds over which the callers begin, for calls that last longer than that.
    """
    done: asyncio.Queue[_Caller] = asyncio.Queue()
    requests = _requests(target)
    made = await _connect(target, requests, callers, done)
    result = Called()
    began = time.monotonic()
    left = calls
    running = 0
    for number, caller in enumerate(made):
        if left:
            left -= 1
            running += 1
            if spread:
                await asyncio.sleep(max(0.0, began + spread * number / callers - time.monotonic()))
            caller.ask()
    while running:
        caller = await done.get()
        running -= 1
        _account(result, caller, target, is_stream)
        if left:
            left -= 1
            running += 1
            if caller.is_lost or caller.transport.is_closing():
                with contextlib.suppress(ValueError):
                    made.remove(caller)
                (caller,) = await _connect(target, requests, 1, done)
                made.append(caller)
            caller.ask()
    result.seconds = time.monotonic() - began
    for caller in made:
        caller.ended = caller.ended or time.monotonic()
        caller.transport.close()
    return result


def _account(result: Called, caller: _Caller, target: Target, is_stream: bool) -> None:
    result.calls += 1
    body = b"".join(caller.body_parts)
    frames = target.frames
    if is_stream:
        frames = body.count(b'"seq":') if target.dialog_body is None else body.count(b"data: {")
    if caller.is_lost or caller.status != 200 or frames < target.frames or not _is_success(body, is_stream):
        result.wrong += 1
        result.complaint = result.complaint or f"{caller.status} lost={caller.is_lost} {frames} frames {body[:200]!r}"
        return
    result.frames += frames
    result.first.append(caller.first - caller.began)
    result.whole.append(caller.ended - caller.began)
    result.delays += caller.stamps
    result.spacing += [abs(later - earlier) for earlier, later in itertools.pairwise(caller.stamps)]


def _is_success(body: bytes, is_stream: bool) -> bool:
    return is_stream or b'"code":0' in body or b'"code": 0' in body or b'"choices"' in body  # the seed's and OpenAI's


async def hold_open(target: Target, count: int) -> list[_Caller]:
    """Begin ``count`` calls and return them running."""
    done: asyncio.Queue[_Caller] = asyncio.Queue()
    made = await _connect(target, _requests(target), count, done)
    for number, caller in enumerate(made):
        caller.ask()
        if number % 50 == 49:
            await asyncio.sleep(0.02)
    return made


def close_all(made: list[_Caller]) -> None:
    """Hang up."""
    for caller in made:
        caller.ended = caller.ended or time.monotonic()
        caller.transport.close()
