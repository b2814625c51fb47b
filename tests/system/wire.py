"""An HTTP/1.1 client that shows what is on the wire: raw header bytes, each chunk and when it came, how a body ended.

Written for these tests, since every client library joins chunks, repairs headers or hides the end of a body.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

__all__ = ["Answer", "Chunk", "Connection", "chunked", "multipart", "request"]

Header = tuple[str, str | bytes]

TIMEOUT = 30.0  # seconds that any one wait may take; the whole test has pytest-timeout


@dataclass(frozen=True)
class Chunk:
    """One HTTP chunk; ``at`` is `time.monotonic` at the moment its last byte was read."""

    data: bytes
    at: float


@dataclass
class Answer:
    """What came back.

    Attributes:
        headers: in order, names in lower case.
        chunks: of a chunked body, without the zero chunk.
        is_complete: the body ended as announced: all of Content-Length, or the zero chunk.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    chunks: list[Chunk] = field(default_factory=list)
    is_complete: bool = False

    def header(self, name: str) -> str | None:
        """The value of a header that must not come twice."""
        values = [value for key, value in self.headers if key == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        """The body as JSON; it must be ASCII, as the existing apps get it."""
        assert self.is_complete
        assert self.body.isascii(), "JSON answers are ASCII-escaped"
        media_type = (self.header("content-type") or "").partition(";")[0]
        assert media_type == "application/json", media_type
        return json.loads(self.body)

    def frames(self) -> list[dict[str, Any]]:
        """The frames of a stream: one complete JSON object in each chunk, with a newline behind it."""
        found = []
        for chunk in self.chunks:
            assert chunk.data.endswith(b"\n"), chunk.data[-40:]
            assert chunk.data.count(b"\n") == 1, "more than one line in a chunk"
            frame = json.loads(chunk.data.decode())
            assert isinstance(frame, dict)
            found.append(frame)
        return found


class Connection:
    """One connection to a server on this machine. Use as an asynchronous context manager."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self._port = port
        self._receive_buffer = receive_buffer
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Connection:
        plain = socket.socket()
        if self._receive_buffer is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        plain.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", self._port))
        except BaseException:
            plain.close()
            raise
        limit = self._receive_buffer or 16 * 1024 * 1024
        self._reader, self._writer = await asyncio.open_connection(sock=plain, limit=limit)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    async def flush(self) -> None:
        """Wait until what was sent is on its way."""
        await self._writer.drain()

    def ask(self, method: str, path: str, headers: Iterable[Header] = (), body: bytes | None = None) -> None:
        """Send a request; Content-Length is added for a body unless the headers say how it comes."""
        lines = [f"{method} {path} HTTP/1.1".encode()]
        given = [(name, value if isinstance(value, bytes) else value.encode("latin-1")) for name, value in headers]
        names = {name.lower() for name, _ in given}
        if "host" not in names:
            given.insert(0, ("Host", b"127.0.0.1"))
        if body is not None and not names & {"content-length", "transfer-encoding"}:
            given.append(("Content-Length", str(len(body)).encode()))
        lines += [name.encode() + b": " + value for name, value in given]
        self.send(b"\r\n".join(lines) + b"\r\n\r\n" + (body or b""))

    def ask_json(self, path: str, value: object, headers: Iterable[Header] = ()) -> None:
        """POST JSON as the existing apps do."""
        self.ask("POST", path, [("Content-Type", "application/json"), *headers], json.dumps(value).encode())

    async def head(self) -> Answer:
        """Read the status line and the headers."""
        raw = await self._wait(self._reader.readuntil(b"\r\n\r\n"))
        first, *lines = raw[:-4].split(b"\r\n")
        assert first.startswith(b"HTTP/1.1 "), first
        headers = []
        for line in lines:
            name, _, value = line.partition(b":")
            headers.append((name.decode("ascii").lower(), value.strip().decode("latin-1")))
        return Answer(int(first.split()[1]), headers)

    async def chunk(self, answer: Answer) -> Chunk | None:
        """Read the next chunk of a chunked body; ``None``: the zero chunk came."""
        size_line = await self._wait(self._reader.readuntil(b"\r\n"))
        size = int(size_line.strip(), 16)
        data = await self._wait(self._reader.readexactly(size + 2))
        assert data.endswith(b"\r\n")
        if size == 0:
            answer.is_complete = True
            return None
        chunk = Chunk(data[:-2], time.monotonic())
        answer.chunks.append(chunk)
        answer.body += chunk.data
        return chunk

    async def answer(self) -> Answer:
        """Read a whole answer."""
        answer = await self.head()
        if answer.header("transfer-encoding") == "chunked":
            assert answer.header("content-length") is None
            while await self.chunk(answer) is not None:
                pass
        else:
            answer.body = await self._wait(self._reader.readexactly(int(answer.header("content-length") or 0)))
            answer.is_complete = True
        return answer

    async def is_closed(self) -> bool:
        """Wait for the server to close; false if it sends something instead."""
        try:
            return bool(await self._wait(self._reader.read(1)) == b"")
        except ConnectionError:
            return True

    def reset(self) -> None:
        """Hang up with a TCP reset, as a killed app or a lost radio link does."""
        plain = self._writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        """Hang up politely."""
        self._writer.close()

    async def _wait(self, what: Any) -> Any:
        async with asyncio.timeout(TIMEOUT):
            return await what


async def request(
    port: int, method: str, path: str, headers: Iterable[Header] = (), body: bytes | None = None
) -> Answer:
    """Send one request on a connection of its own and read the whole answer."""
    async with Connection(port) as connection:
        connection.ask(method, path, headers, body)
        return await connection.answer()


def chunked(pieces: Iterable[bytes]) -> bytes:
    """A body in chunks, ended properly."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def multipart(
    content: bytes, *, field: str = "file", filename: str = "20240928120000.pcm", others: Sequence[tuple[str, str]] = ()
) -> tuple[Header, bytes]:
    """A form as the existing desktop app sends it: no content type in the part, the file's name in raw UTF-8.

    Returns:
        The header with the boundary, and the body.
    """
    boundary = "3d1f5a0c9b8e47f2"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{quote(name)}"\r\n\r\n{value}\r\n'.encode()
        for name, value in others
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{filename}"\r\n\r\n'
    body = b"".join(parts) + head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return ("Content-Type", f"multipart/form-data; boundary={boundary}"), body
