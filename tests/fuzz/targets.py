"""What is fuzzed: each target takes any bytes and must end quietly, by a result that holds its promises or a refusal.

A target raises where the code under it breaks a promise: an exception from outside the error tree, a result over a
bound, an answer that is no answer. Seeds are made here, small, so that nothing binary lies in the repository.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from typing import Any, cast

import uvicorn
from PIL import Image
from uvicorn.server import ServerState

from aiproject.adapters.http.asgi import Message, Receive, Scope, Send, send_json
from aiproject.adapters.http.bodies import ClientGone, header_candidates, read_upload
from aiproject.adapters.http.connection_counts import ConnectionCounts
from aiproject.adapters.http.connections import GuardedConnection
from aiproject.adapters.http.errors import STANDARD_DIALECTS
from aiproject.adapters.net.websocket import WebSocketConnection
from aiproject.api.legacy.chat import _parse as parse_call
from aiproject.errors import InvalidInput, Refused, UpstreamFailed
from aiproject.media.audio import prepare_audio
from aiproject.media.picture import prepare_picture
from aiproject.messages.formatting import Language, format_error
from aiproject.protocols.chat import ChatEvent, Usage
from aiproject.protocols.dialects import Dialects
from aiproject.protocols.iflytek.dictation.client import dictation_conversation
from aiproject.protocols.iflytek.dictation.dialect import DictationDialect
from aiproject.protocols.iflytek.dictation.server import DictationRequestError, DictationServerSession
from aiproject.protocols.iflytek.ocr.client import ocr_service
from aiproject.protocols.iflytek.spark.answer import SparkAnswer
from aiproject.protocols.iflytek.spark.frames import with_usage
from aiproject.protocols.iflytek.spark.server import SparkRequestError, parse_question

__all__ = ["TARGETS", "Target"]

LIMIT = 4096
"""Bytes of an uploaded file here, so that inputs reach it."""


@dataclass(frozen=True)
class Target:
    """One parser under attack.

    Attributes:
        runs: inputs of a whole run; fewer where each takes long.
        longest: bytes of an input at most.
    """

    name: str
    feed: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    runs: int = 200_000
    longest: int = 4096


def check_told(text: str) -> None:
    """What is told of a refusal is short, however long what was refused."""
    assert len(text) < 1000


# -- what the platform sends -------------------------------------------------------------------------------------------


def spark(data: bytes) -> None:
    """Frames of a chat, one a line: what passes on to clients is one line of JSON with whole usage, and frames that are
    read together say what they say one by one."""
    answer = SparkAnswer()
    events: list[ChatEvent] = []
    for frame in data.split(b"\n"):
        try:
            event = answer.receive(frame)
        except UpstreamFailed as error:
            check_told(str(error))
            break
        events.append(event)
        event.text.encode()
        if event.native is not None:
            assert b"\n" not in event.native
            loaded = json.loads(event.native)
            assert loaded["header"]["code"] == 0
            if event.is_last:
                mended = json.loads(with_usage(event.native, Usage(1, 2, 3)))
                assert mended["payload"]["usage"]["text"]["total_tokens"] == 3
        if answer.usage is not None:
            assert answer.usage.total_tokens >= 0
    together: list[ChatEvent] = []
    with contextlib.suppress(UpstreamFailed):
        SparkAnswer().receive_all(data.split(b"\n"), together)
    assert together == events
    with contextlib.suppress(UpstreamFailed):
        answer.connection_ended()
    assert answer.sid is None or len(answer.sid) <= 64


def spark_question(data: bytes) -> None:
    """A client's question, as the sandbox reads it."""
    with contextlib.suppress(SparkRequestError):
        parse_question(data, app_id="app", path="/v3.5/chat")


def dictation(data: bytes) -> None:
    """Results of a dictation, one a line; the first byte chooses the dialect."""
    dialects = list(DictationDialect)
    conversation = dictation_conversation(dialects[data[0] % len(dialects) if data else 0], app_id="app")
    try:
        for frame in data[1:].split(b"\n"):
            conversation.receive(frame)
        conversation.connection_ended()
    except UpstreamFailed as error:
        check_told(str(error))
    assert isinstance(conversation.text, str)


def dictation_piece(data: bytes) -> None:
    """The same, with the input where the large models hide a document: in Base64, inside a result."""
    text = base64.b64encode(data).decode()
    frame = {
        "header": {"code": 0, "sid": "s", "status": 2},
        "payload": {"result": {"text": text, "status": 2, "seq": 1, "encoding": "utf8", "format": "json"}},
    }
    dictation(b"\x01" + json.dumps(frame).encode())


def dictation_question(data: bytes) -> None:
    """Frames of a client that dictates, as the sandbox reads them."""
    dialects = list(DictationDialect)
    session = DictationServerSession(dialects[data[0] % len(dialects) if data else 0], app_ids=["app"])
    with contextlib.suppress(DictationRequestError):
        for frame in data[1:].split(b"\n"):
            session.receive(frame)


class Wire:
    """A transport that counts what is written to it, and never closes."""

    def __init__(self) -> None:
        self.written = 0
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def resume_reading(self) -> None: ...

    abort, pause_reading = close, resume_reading


@contextlib.contextmanager
def dialled() -> Iterator[tuple[WebSocketConnection, Wire]]:
    """A connection whose handshake is not answered yet."""
    loop = asyncio.new_event_loop()
    try:
        wire = Wire()
        connection = WebSocketConnection(loop, b"GET / HTTP/1.1\r\nSec-WebSocket-Key: ")
        connection.connection_made(cast("asyncio.BaseTransport", wire))
        yield connection, wire
        connection.give_up()
        assert wire.is_closed
    finally:
        loop.close()


def fed(connection: WebSocketConnection, data: bytes) -> None:
    """Give it ``data`` in readings whose size the first byte chooses."""
    size = 1 + (data[0] if data else 0)
    for start in range(1, len(data), size):
        connection.data_received(data[start : start + size])


def websocket(data: bytes) -> None:
    """What a platform sends on an open connection; the first byte chooses the size of the readings."""
    with dialled() as (connection, wire):
        assert connection._handshake is not None
        answer = hashlib.sha1(connection._handshake.key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()  # noqa: S324 - as the RFC has it
        connection.data_received(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(answer) + b"\r\n\r\n"
        )
        assert connection.is_open
        asked = wire.written
        fed(connection, data)
        assert sum(map(len, connection._reader.messages)) <= connection._reader.size <= 32 * len(data)
        assert wire.written - asked <= 3 * len(data) + 8  # pongs are masked, and at most as many as pings
        assert wire.is_closed is not connection.is_open


def websocket_answer(data: bytes) -> None:
    """The answer to a handshake; the first byte chooses the size of the readings."""
    with dialled() as (connection, _):
        fed(connection, data)
        refusal = connection.refusal()
        if refusal is not None:
            check_told(str(refusal))
            assert refusal.status is None or 100 <= refusal.status <= 999


SERVICES = [
    ocr_service(f"https://api.example/v1/private/{name}") for name in ("hh_ocr_recognize_doc", "sf8e6aca1", "se75ocrbm")
]


def ocr(data: bytes) -> None:
    """An answer of a picture service; the first byte chooses which, the second the HTTP status."""
    service = SERVICES[data[0] % len(SERVICES) if data else 0]
    status = (200, 403, 429, 502)[data[1] % 4 if len(data) > 1 else 0]
    try:
        text = service.read_answer(status, data[2:])
    except UpstreamFailed as error:
        check_told(str(error))
        return
    assert isinstance(text.text, str)


def ocr_document(data: bytes) -> None:
    """The same, with the input inside a sound envelope, where the documents are."""
    document = base64.b64encode(data[1:]).decode()
    payload = {"recognizeDocumentRes": {"text": document}, "result": {"text": document}}
    body = json.dumps({"header": {"code": 0, "sid": "s"}, "payload": payload}).encode()
    ocr(data[:1] + b"\0" + body)


# -- what clients send -------------------------------------------------------------------------------------------------


def wav(data: bytes) -> None:
    """An uploaded sound: what comes of it is whole samples of at most a minute at one of two rates."""
    try:
        sound = prepare_audio(data)
    except Refused:
        return
    assert sound.sample_rate in (8000, 16000)
    assert len(sound.samples) % 2 == 0
    assert 0 <= sound.duration_ms <= 60_000


def image(data: bytes) -> None:
    """An uploaded picture: what comes of it is of a kind and size that the platform takes."""
    try:
        picture = prepare_picture(data)
    except Refused:
        return
    assert picture.data
    assert picture.width > 0
    assert picture.height > 0
    assert len(picture.data) <= 3 * 1024 * 1024


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def multipart(data: bytes) -> None:
    """A form in small pieces; the first line is its content type."""
    content_type, _, body = data.partition(b"\n")
    pieces = [body[at : at + 61] for at in range(0, len(body), 61)]

    async def receive() -> Message:
        if not pieces:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    try:
        content = _loop().run_until_complete(read_upload(receive, [(b"content-type", content_type)], limit=LIMIT))
    except (Refused, ClientGone):
        return
    assert 0 < len(content) <= LIMIT


def dialog(data: bytes) -> None:
    """The body of a chat, and the header that names its caller."""
    for reading in header_candidates([(b"username", data)], b"username"):
        assert reading == reading.strip()
        assert reading.isprintable() or "\0" not in reading
    try:
        call = parse_call(data, has_key=len(data) % 3 == 1, has_cookie=len(data) % 3 == 2)
    except InvalidInput as error:
        check_told(format_error(error, Language.ZH))
        return
    assert call.dialog
    for message in call.dialog:
        message.content.encode()


class _Transport(asyncio.Transport):
    """A connection to nobody; keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1), "sockname": ("192.0.2.2", 80)})
        self.written = bytearray()
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


async def _echo_head(scope: Scope, receive: Receive, send: Send) -> None:
    heads = len(scope["headers"])
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    assert len(scope["headers"]) == heads, "a trailer became a header"
    await send_json(send, 200, b"{}")


@dataclass
class _Http:
    config: uvicorn.Config = field(
        default_factory=lambda: uvicorn.Config(_echo_head, log_config=None, lifespan="off", ws="none")
    )
    failures: list[BaseException] = field(default_factory=list)

    async def serve(self, pieces: list[bytes]) -> _Transport:
        state = ServerState()
        loop = asyncio.get_running_loop()
        connection = GuardedConnection(
            self.config,
            state,
            {},
            loop,
            head_timeout=30,
            counts=ConnectionCounts(10),
            reader_timeout=30,
            dialects=Dialects(STANDARD_DIALECTS),
        )
        transport = _Transport()
        connection.connection_made(transport)
        for piece in pieces:
            if transport.is_closed:
                break
            connection.data_received(piece)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        tasks = list(state.tasks)
        connection.connection_lost(None)
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert outcome is None, outcome
        return transport


@cache
def _http() -> _Http:
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    return _Http()


def http(data: bytes) -> None:
    """The bytes of a connection, in pieces of a hundred: whatever is answered is HTTP."""
    pieces = [data[at : at + 100] for at in range(0, len(data), 100)]
    written = bytes(_loop().run_until_complete(_http().serve(pieces)).written)
    assert not written or written.startswith(b"HTTP/1.1 ")


# -- seeds -------------------------------------------------------------------------------------------------------------


def _json(*values: Any, before: bytes = b"") -> bytes:
    return before + b"\n".join(json.dumps(value, ensure_ascii=False).encode() for value in values)


def spark_seeds() -> list[bytes]:
    def frame(status: int, content: str, **more: Any) -> dict[str, Any]:
        text = [{"content": content, "role": "assistant", "index": 0, **more}]
        choices = {"status": status, "seq": status, "text": text}
        return {
            "header": {"code": 0, "message": "Success", "sid": "cht1", "status": status},
            "payload": {"choices": choices},
        }

    last = frame(2, "。")
    last["payload"]["usage"] = {
        "text": {"question_tokens": 1, "prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    }
    call = frame(1, "", content_type="text", function_call={"arguments": "{}", "name": "f"})
    return [
        _json(frame(0, "你"), frame(1, "好", reasoning_content="因为"), last),
        _json(call, last),
        _json({"header": {"code": 10013, "message": "输入内容审核不通过", "sid": "cht2", "status": 2}}),
    ]


def spark_question_seeds() -> list[bytes]:
    return [
        _json(
            {
                "header": {"app_id": "app", "uid": "u"},
                "parameter": {"chat": {"domain": "generalv3.5", "temperature": 0.5, "max_tokens": 10, "top_k": 4}},
                "payload": {"message": {"text": [{"role": "user", "content": "你好"}]}},
            }
        )
    ]


def websocket_seeds() -> list[bytes]:
    def frame(first: int, payload: bytes) -> bytes:
        length = len(payload)
        return bytes((first, length)) if length < 126 else bytes((first, 126)) + length.to_bytes(2, "big")

    texts = [b"{}", b"x" * 125, b"y" * 126, b"z" * 300]
    whole = b"".join(frame(0x81, text) + text for text in texts)
    return [
        b"\xff" + whole,
        b"\x00" + whole,
        b"\x06" + frame(0x01, b"abc") + b"abc" + frame(0x00, b"") + frame(0x89, b"?") + b"?" + frame(0x80, b"d") + b"d",
        b"\x10" + frame(0x82, b"ab") + b"ab" + frame(0x88, b"\x03\xe8bye") + b"\x03\xe8bye",
        b"\x20" + b"\x81\x7f" + (1 << 20).to_bytes(8, "big") + b"short",
        b"\x20" + b"\xc1\x02ab" + b"\x81\x82abcd",
    ]


def websocket_answer_seeds() -> list[bytes]:
    head = b"HTTP/1.1 403 Forbidden\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\n"
    return [
        b"\xff" + head + b"Content-Length: 13\r\n\r\nbad signature",
        b"\x08" + head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n0\r\n\r\n",
        b"\x03" + head + b"\r\n",
        b"\xff" + b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x01a",
        b"\xff" + b"HTTP/1.1 100 Continue\r\n\r\n" + head,
    ]


def dictation_seeds() -> list[bytes]:
    words = [{"bg": 0, "cw": [{"sc": 0, "w": "你好"}]}]
    piece = {"sn": 1, "ls": True, "pgs": "rpl", "rg": [1, 1], "ws": words}
    classic = {"code": 0, "message": "success", "sid": "iat1", "data": {"result": piece, "status": 2}}
    text = base64.b64encode(json.dumps(piece).encode()).decode()
    large = {
        "header": {"code": 0, "message": "success", "sid": "iat2", "status": 2},
        "payload": {"result": {"text": text, "status": 2, "seq": 1, "encoding": "utf8", "format": "json"}},
    }
    return [_json(classic, before=bytes([n])) for n in range(3)] + [_json(large, before=bytes([n])) for n in range(3)]


def dictation_piece_seeds() -> list[bytes]:
    words = [{"bg": 0, "cw": [{"sc": 0, "w": "你好"}]}]
    return [_json({"sn": 1, "ls": True, "pgs": "rpl", "rg": [1, 1], "ws": words})]


def dictation_question_seeds() -> list[bytes]:
    audio = base64.b64encode(bytes(64)).decode()
    classic = {
        "common": {"app_id": "app"},
        "business": {"language": "zh_cn", "domain": "iat", "accent": "mandarin"},
        "data": {"status": 0, "format": "audio/L16;rate=16000", "encoding": "raw", "audio": audio},
    }
    last = {"data": {"status": 2, "format": "audio/L16;rate=16000", "encoding": "raw", "audio": ""}}
    return [_json(classic, last, before=bytes([n])) for n in range(3)]


def ocr_seeds() -> list[bytes]:
    text = base64.b64encode(json.dumps({"whole_text": "你好", "pages": []}).encode()).decode()
    answer = {
        "header": {"code": 0, "message": "success", "sid": "ocr1"},
        "payload": {"recognizeDocumentRes": {"text": text}},
    }
    refusal = {"message": "HMAC signature cannot be verified: fail to retrieve credential"}
    return [
        _json(answer, before=b"\0\0"),
        _json({**answer, "payload": {"result": {"text": text}}}, before=b"\1\0"),
        _json(refusal, before=b"\0\1"),
        _json({"code": 10163, "message": "x", "sid": "y"}, before=b"\2\0"),
    ]


def ocr_document_seeds() -> list[bytes]:
    words = [{"content": "你好", "conf": 1.0}]
    lines = {"pages": [{"lines": [{"content": "你好", "words": words}]}], "whole_text": "你好"}
    return [
        _json(lines, before=b"\0"),
        _json(lines, before=b"\1"),
        _json({"image": [{"content": [[{"type": "text", "text": ["你好"]}]]}]}, before=b"\2"),
    ]


def wav_seeds() -> list[bytes]:
    def file(width: int, channels: int, rate: int) -> bytes:
        out = BytesIO()
        with wave.open(out, "wb") as writer:
            writer.setnchannels(channels)
            writer.setsampwidth(width)
            writer.setframerate(rate)
            writer.writeframes(bytes(width * channels * 40))
        return out.getvalue()

    return [file(2, 1, 16000), file(1, 2, 44100), file(3, 1, 8000), file(4, 8, 192_000), bytes(64)]


def image_seeds() -> list[bytes]:
    def file(kind: str, mode: str, **options: Any) -> bytes:
        out = BytesIO()
        Image.new(mode, (9, 7), 1).save(out, kind, **options)
        return out.getvalue()

    turned = Image.Exif()
    turned[0x0112] = 6
    return [
        file("JPEG", "RGB", exif=turned.tobytes()),
        file("JPEG", "L", progressive=True),
        file("PNG", "RGBA"),
        file("PNG", "P"),
        file("PNG", "1"),
        file("BMP", "RGB"),
        file("BMP", "P"),
    ]


def multipart_seeds() -> list[bytes]:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.pcm"\r\n\r\n'
    other = b'--b\r\nContent-Disposition: form-data; name="rate"\r\n\r\n16000\r\n'
    return [
        b"multipart/form-data; boundary=b\n" + head + b"sound\r\n--b--\r\n",
        b"multipart/form-data; boundary=b\n" + other + head + b"sound\r\n--b--\r\n",
        b'multipart/form-data; boundary="b"\n' + head + bytes(LIMIT - 1) + b"\r\n--b--\r\n",
        b"application/octet-stream\nsound",
    ]


def dialog_seeds() -> list[bytes]:
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": "你好\\ud83d"}]
    return [_json({"uuid": "u", "username": "小明", "dialog": turns}), "小明".encode(), b"%E5%B0%8F"]


def http_seeds() -> list[bytes]:
    return [
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}GET /a%20b?c=d HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\nuuid: z\r\n\r\n",
        b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
        b"GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00",
        b"OPTIONS * HTTP/1.1\r\n\r\n",
    ]


def _all() -> Iterator[Target]:
    yield Target("spark", spark, spark_seeds)
    yield Target("spark-question", spark_question, spark_question_seeds)
    yield Target("websocket", websocket, websocket_seeds)
    yield Target("websocket-answer", websocket_answer, websocket_answer_seeds)
    yield Target("dictation", dictation, dictation_seeds)
    yield Target("dictation-piece", dictation_piece, dictation_piece_seeds)
    yield Target("dictation-question", dictation_question, dictation_question_seeds)
    yield Target("ocr", ocr, ocr_seeds)
    yield Target("ocr-document", ocr_document, ocr_document_seeds)
    yield Target("wav", wav, wav_seeds)
    yield Target("image", image, image_seeds, runs=50_000)
    yield Target("multipart", multipart, multipart_seeds, longest=8192)
    yield Target("dialog", dialog, dialog_seeds)
    yield Target("http", http, http_seeds, longest=8192)


TARGETS = {target.name: target for target in _all()}
