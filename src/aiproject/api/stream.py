"""The client's side of a streamed answer: pieces, each in an HTTP chunk of its own."""

from __future__ import annotations

from collections.abc import Sequence

from aiproject.adapters.http.asgi import CHUNKS, ChunkWriter, Scope, Send

__all__ = ["ChunkedStream"]

EVENT_STREAM = b"text/event-stream; charset=utf-8"


class ChunkedStream:
    """Sends the pieces of an answer as they come: as server-sent events, or as lines of another media type.

    The existing desktop app parses each chunk separately and loses the rest of the answer if a chunk holds two frames
    (decision 0008), so nothing on the way to the socket may join or split the chunks.

    Args:
        media_type: of lines; ``None``: the pieces are the data of server-sent events. No piece has a line break.

    Attributes:
        count: the number of pieces sent.
    """

    def __init__(self, scope: Scope, send: Send, media_type: bytes | None = None) -> None:
        self.count = 0
        self._has_begun = False
        self._media_type = EVENT_STREAM if media_type is None else media_type
        self._prefix, self._suffix = (b"data: ", b"\n\n") if media_type is None else (b"", b"\n")
        self._send = send
        self._send_chunks: ChunkWriter | None = scope.get("extensions", {}).get(CHUNKS)

    async def send(self, pieces: Sequence[bytes]) -> None:
        """Send pieces; none send nothing."""
        if pieces:
            await self._write(pieces, is_last=False)

    async def end(self, pieces: Sequence[bytes]) -> None:
        """Send the last pieces and the end of the body."""
        await self._write(pieces, is_last=True)

    async def _write(self, pieces: Sequence[bytes], *, is_last: bool) -> None:
        if not self._has_begun:
            self._has_begun = True
            # Deferred until the first piece: an error before it still gets a response with a status of its own.
            await self._begin()
        self.count += len(pieces)
        if self._send_chunks is not None:
            await self._send_chunks(pieces, self._prefix, self._suffix, is_last=is_last)
            return
        for piece in pieces:
            body = b"%b%b%b" % (self._prefix, piece, self._suffix)
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
        if is_last:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self) -> None:
        headers = [
            (b"content-type", self._media_type),
            (b"cache-control", b"no-store"),
            # Switches off nginx's response buffering, which would delay the pieces.
            (b"x-accel-buffering", b"no"),
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
