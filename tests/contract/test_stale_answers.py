"""What the platform says before it is asked answers nothing: such a connection is dropped, and another one asked."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest
import uvloop

from aiproject.adapters.net.http_client import open_session
from aiproject.config.iflytek import IflytekCredentials
from aiproject.errors import UpstreamProtocolViolation
from aiproject.media.audio import Pcm
from aiproject.media.picture import Picture
from aiproject.protocols.chat import ChatMessage, ChatRequest
from aiproject.protocols.iflytek.dictation.dialect import DictationOptions
from aiproject.providers.iflytek.connector import IflytekConnector, TimeLimits
from aiproject.providers.iflytek.dictation import IflytekDictation
from aiproject.providers.iflytek.ocr import IflytekOcr
from aiproject.providers.iflytek.spark import IflytekSpark

CREDENTIALS = IflytekCredentials("app", "key-0123456789abcdef", "secret-0123456789abcdef")
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

TEXT, PING, CLOSE = 0x81, 0x89, 0x88

Loops = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
NewLoop = Callable[[], asyncio.AbstractEventLoop]


def frame(payload: bytes, first: int = TEXT) -> bytes:
    """One unmasked frame, as servers send them."""
    size = len(payload)
    return bytes((first, size)) + payload if size < 126 else bytes((first, 126)) + size.to_bytes(2, "big") + payload


def chat_answer(text: str) -> bytes:
    choices = {"status": 2, "seq": 0, "text": [{"content": text, "role": "assistant", "index": 0}]}
    usage = {"text": {"question_tokens": 1, "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
    header = {"code": 0, "message": "Success", "sid": f"cht-{text}", "status": 2}
    return json.dumps({"header": header, "payload": {"choices": choices, "usage": usage}}).encode()


def dictation_answer(text: str) -> bytes:
    result = {"sn": 1, "ls": True, "ws": [{"bg": 0, "cw": [{"w": text, "sc": 0}]}]}
    data = {"status": 2, "result": result}
    return json.dumps({"code": 0, "message": "success", "sid": f"iat-{text}", "data": data}).encode()


@asynccontextmanager
async def serving(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]],
    writers: list[asyncio.StreamWriter],
) -> AsyncIterator[int]:
    """A server on a free port, which leaves nothing open. ``handle`` adds its writer to ``writers``."""
    handlers: set[asyncio.Task[None]] = set()

    def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        handlers.add(asyncio.create_task(handle(reader, writer)))

    server = await asyncio.start_server(start, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        await asyncio.sleep(0.05)  # what is being opened is accepted
        server.close()
        for writer in writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await asyncio.gather(*handlers)


class Platform:
    """A stand-in that answers each question with "new", and talks out of turn when told.

    Attributes:
        with_handshake: what comes in one piece with the handshake's answer, by the connection's number.
        questions: how many were asked, by connection.
    """

    def __init__(self, answer: Callable[[str], bytes]) -> None:
        self.with_handshake: dict[int, bytes] = {}
        self.questions: list[int] = []
        self._answer = answer
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        async with serving(self._serve, self._writers) as port:
            yield f"ws://127.0.0.1:{port}"

    def say(self, number: int, words: bytes) -> None:
        """Send at once: nothing is left for the loop to do."""
        self._writers[number].write(words)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self._writers.index(writer)
        self.questions.append(0)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            key = next(
                line[18:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")
            )
            accept = base64.b64encode(hashlib.sha1(key + GUID).digest())  # noqa: S324
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + self.with_handshake.get(number, b"")
            )
            if await _next_message(reader):
                self.questions[number] += 1
                writer.write(frame(self._answer("new")))
            while await reader.read(65536):
                pass


async def _next_message(reader: asyncio.StreamReader) -> bool:
    """Wait for a question; false: the client closed. Pongs are passed over."""
    while True:
        first, length = await reader.readexactly(2)
        length &= 0x7F
        if length == 126:
            length = int.from_bytes(await reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await reader.readexactly(8), "big")
        await reader.readexactly(4 + length)
        if first in (TEXT, CLOSE):
            return first == TEXT


@asynccontextmanager
async def spark(platform: Platform, *, warm: int = 0, attempts: int = 2) -> AsyncIterator[IflytekSpark]:
    async with platform.listening() as base:
        link = IflytekConnector(CREDENTIALS, TimeLimits(5.0, 5.0, 5.0, 20.0, attempts))
        upstream = IflytekSpark(link, url=f"{base}/v3.5/chat", domain="generalv3.5", warm=warm)
        try:
            yield upstream
        finally:
            upstream.close()


async def ask(upstream: IflytekSpark) -> str:
    stream = await upstream.ask(ChatRequest((ChatMessage("user", "?"),), max_tokens=10))
    try:
        events = list(await stream.receive())
        while not events[-1].is_last:
            events += await stream.receive()
        return "".join(event.text for event in events)
    finally:
        stream.close()


async def until_open(upstream: IflytekSpark, count: int) -> None:
    for _ in range(1000):
        if upstream.warm_pool.counts.opened >= count:
            return
        await asyncio.sleep(0.01)
    pytest.fail("no connection was opened ahead")


OLD = frame(chat_answer("old"))
EARLY = {
    "a whole answer": OLD,
    "an answer in two frames": frame(chat_answer("old")[:40], 0x01) + frame(chat_answer("old")[40:], 0x80),
    "a binary message": frame(chat_answer("old"), 0x82),
    "a first fragment": frame(chat_answer("old")[:40], 0x01),
    "half a frame": OLD[:50],
    "one byte": OLD[:1],
    "an answer and a close": OLD + frame(b"\x03\xe8", CLOSE),
    "an answer behind a ping": frame(b"", PING) + OLD,
}
Early = pytest.mark.parametrize("words", list(EARLY.values()), ids=list(EARLY))


@Early
async def test_what_comes_with_the_handshake_is_no_answer(words: bytes) -> None:
    platform = Platform(chat_answer)
    platform.with_handshake[0] = words
    async with spark(platform) as upstream:
        assert await ask(upstream) == "new"
    assert platform.questions == [0, 1]


async def test_a_platform_that_always_speaks_first_is_given_up_and_nothing_is_sent() -> None:
    platform = Platform(chat_answer)
    platform.with_handshake = dict.fromkeys(range(10), OLD)
    async with spark(platform) as upstream:
        with pytest.raises(UpstreamProtocolViolation, match="spoke before it was asked"):
            await ask(upstream)
    assert platform.questions == [0, 0]


@Early
async def test_what_comes_while_a_connection_waits_is_no_answer(words: bytes) -> None:
    platform = Platform(chat_answer)
    async with spark(platform, warm=1, attempts=1) as upstream:
        assert await ask(upstream) == "new"
        await until_open(upstream, 1)
        platform.say(1, words)
        await asyncio.sleep(0.1)
        assert await ask(upstream) == "new"
        assert platform.questions[1] == 0


@Loops
@Early
def test_what_comes_right_before_the_question_is_no_answer(words: bytes, new_loop: NewLoop) -> None:
    async def scenario() -> None:
        platform = Platform(chat_answer)
        async with spark(platform, warm=1, attempts=1) as upstream:
            assert await ask(upstream) == "new"
            await until_open(upstream, 1)
            await asyncio.sleep(0.05)
            # On its way when the call begins: the loop has read nothing of it.
            platform.say(1, words)
            assert await ask(upstream) == "new"
            assert platform.questions[1] == 0

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


@Loops
def test_an_end_right_before_the_question_costs_no_try(new_loop: NewLoop) -> None:
    async def scenario() -> None:
        platform = Platform(chat_answer)
        async with spark(platform, warm=1, attempts=1) as upstream:
            await ask(upstream)
            await until_open(upstream, 1)
            await asyncio.sleep(0.05)
            platform.say(1, frame(b"\x03\xe8", CLOSE))
            assert await ask(upstream) == "new"
            assert platform.questions[1] == 0

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("moment", ["with the handshake", "while it waits", "right before the question"])
async def test_pings_are_no_words(moment: str) -> None:
    pings = frame(b"are you there", PING) * 3
    platform = Platform(chat_answer)
    if moment == "with the handshake":
        platform.with_handshake[1] = pings
    async with spark(platform, warm=1, attempts=1) as upstream:
        await ask(upstream)
        await until_open(upstream, 1)
        await asyncio.sleep(0.05)
        if moment != "with the handshake":
            platform.say(1, pings + pings[:7])
            platform.say(1, pings[7:])
        if moment == "while it waits":
            await asyncio.sleep(0.1)
        assert await ask(upstream) == "new"
        assert platform.questions[1] == 1


async def test_dictation_hears_nothing_that_comes_with_the_handshake() -> None:
    platform = Platform(dictation_answer)
    platform.with_handshake[0] = frame(dictation_answer("old"))
    async with platform.listening() as base:
        dictation = IflytekDictation(
            IflytekConnector(CREDENTIALS, TimeLimits(5.0, 5.0, 5.0, 20.0, 2)),
            url=f"{base}/v2/iat",
            options=DictationOptions(),
            pace=0.0,
            frame_bytes=8000,
        )
        assert (await dictation.transcribe(Pcm(bytes(3200), 16000))).text == "new"
    assert platform.questions == [0, 1]


class HttpPlatform:
    """A stand-in of the picture service on connections that are kept open.

    Attributes:
        behind: what follows an answer in the same piece, by the number of the request.
        on_connection: what a connection begins with, by its number.
        asked_on: the connection of each request.
    """

    def __init__(self) -> None:
        self.behind: dict[int, bytes] = {}
        self.on_connection: dict[int, bytes] = {}
        self.asked_on: list[int] = []
        self.writers: list[asyncio.StreamWriter] = []

    @staticmethod
    def answer(text: str) -> bytes:
        words = {"pages": [{"lines": [{"words": [{"content": text}]}]}]}
        payload = {"result": {"text": base64.b64encode(json.dumps(words).encode()).decode()}}
        body = json.dumps({"header": {"code": 0, "message": "success", "sid": "ocr"}, "payload": payload}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        async with serving(self._serve, self.writers) as port:
            yield f"http://127.0.0.1:{port}/v1/private/sf8e6aca1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.writers.index(writer)
        writer.write(self.on_connection.get(number, b""))
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length[15:]))
                self.asked_on.append(number)
                writer.write(self.answer("new") + self.behind.get(len(self.asked_on) - 1, b""))


@pytest.mark.parametrize("moment", ["on a new connection", "behind an answer", "while it waits", "right before"])
async def test_picture_text_takes_nothing_for_an_answer_that_came_before_the_picture(moment: str) -> None:
    platform = HttpPlatform()
    stale = platform.answer("old")
    if moment == "on a new connection":
        platform.on_connection[0] = stale
    if moment == "behind an answer":
        platform.behind[0] = stale
    async with platform.listening() as url, open_session() as http:
        ocr = IflytekOcr(IflytekConnector(CREDENTIALS, TimeLimits(5.0, 5.0, 5.0, 20.0, 2)), url=url, http=http)
        assert (await ocr.read(Picture(b"picture", "png", 20, 20))).text == "new"
        first_connection = platform.asked_on[0]
        if moment in ("while it waits", "right before"):
            platform.writers[first_connection].write(stale)
        if moment == "while it waits":
            await asyncio.sleep(0.1)
        assert (await ocr.read(Picture(b"picture", "png", 20, 20))).text == "new"
    spoiled = 0 if moment == "on a new connection" else 1
    assert platform.asked_on.count(0) == spoiled, "the spoiled connection was asked"


async def test_picture_text_reuses_a_silent_connection() -> None:
    platform = HttpPlatform()
    async with platform.listening() as url, open_session() as http:
        ocr = IflytekOcr(IflytekConnector(CREDENTIALS, TimeLimits(5.0, 5.0, 5.0, 20.0, 1)), url=url, http=http)
        for _ in range(3):
            await ocr.read(Picture(b"picture", "png", 20, 20))
    assert platform.asked_on == [0, 0, 0]
