"""iFlytek dictation over websocket: both generations, chosen by the address; sends and receives in parallel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiproject.adapters.net.websocket import ConnectionEnded, WebSocketConnection
from aiproject.errors import UpstreamTimeout
from aiproject.media.audio import Pcm
from aiproject.protocols.iflytek.dictation.client import DictationConversation, dictation_conversation
from aiproject.protocols.iflytek.dictation.dialect import DictationOptions, dictation_dialect
from aiproject.providers.base import RecognizedText
from aiproject.providers.iflytek.connector import IflytekConnector

__all__ = ["IflytekDictation"]


class IflytekDictation:
    """The dictation service. Implements `DictationProvider`.

    Args:
        pace: how fast audio is sent, as a multiple of real time; 0: as fast as upstream takes it. The documents advise
            real time (1280 bytes each 40 ms); the original backend sent 6.25 times that for years.
        frame_bytes: audio bytes in one frame, at most 9750.
    """

    def __init__(
        self, connector: IflytekConnector, *, url: str, options: DictationOptions, pace: float, frame_bytes: int
    ) -> None:
        self._connector = connector
        self._url = url
        self._dialect = dictation_dialect(url)
        options.check(self._dialect)
        self._options = options
        self._pace = pace
        self._frame_bytes = frame_bytes

    async def transcribe(self, audio: Pcm) -> RecognizedText:
        """Implements `DictationProvider.transcribe`."""
        return await self._connector.attempt(lambda: self._transcribe_once(audio), service="dictation")

    async def _transcribe_once(self, audio: Pcm) -> RecognizedText:
        conversation = dictation_conversation(
            self._dialect, app_id=self._connector.credentials.app_id, options=self._options
        )
        connection = await self._open()
        loop = asyncio.get_running_loop()
        # The last sign of progress, either way: while audio is still being sent, upstream may have nothing to say yet.
        progress = loop.time()

        def note_progress() -> None:
            nonlocal progress
            progress = loop.time()

        sender = asyncio.create_task(self._send(connection, conversation, audio, note_progress))
        sender.add_done_callback(lambda task: _forward_failure(task, connection))
        phase, limit = "first frame", self._connector.limits.first_frame
        try:
            while not conversation.finished:
                try:
                    frame = await connection.receive(max(0.0, progress + limit - loop.time()))
                except TimeoutError:
                    if loop.time() < progress + limit:
                        continue
                    raise UpstreamTimeout(phase, limit, sid=conversation.sid) from None
                except ConnectionEnded:
                    conversation.connection_ended()
                    break
                note_progress()
                phase, limit = "gap", self._connector.limits.gap
                conversation.receive(frame)
        finally:
            # Not awaited to its end: after an early end of speech the rest of the clip is of no use to anybody.
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            connection.close()
        return RecognizedText(conversation.text, conversation.sid)

    async def _open(self) -> WebSocketConnection:
        connection = await self._connector.open(self._url)
        try:
            await connection.check_silence()
        except BaseException:
            connection.close()
            raise
        return connection

    async def _send(
        self,
        connection: WebSocketConnection,
        conversation: DictationConversation,
        audio: Pcm,
        note_progress: Callable[[], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        seconds_per_frame = self._frame_bytes / (2 * audio.sample_rate) / self._pace if self._pace else 0.0
        frames = conversation.outgoing(audio.samples, sample_rate=audio.sample_rate, frame_bytes=self._frame_bytes)
        for number, frame in enumerate(frames):
            if self._pace:
                await asyncio.sleep(max(0.0, started + number * seconds_per_frame - loop.time()))
            if conversation.finished:
                return
            try:
                connection.send(frame)
            except ConnectionEnded:
                return  # the receiving side hears of it and says why
            await connection.drain()
            note_progress()
            if not self._pace:
                await asyncio.sleep(0)  # lets answers and other callers in between


def _forward_failure(sender: asyncio.Task[None], connection: WebSocketConnection) -> None:
    """Wake the receiving side if the sender broke; it would wait for answers to nothing."""
    error = None if sender.cancelled() else sender.exception()
    if error is not None:
        connection.abort(error)
