"""iFlytek dictation over websocket: the URL selects the protocol; sending and receiving run concurrently."""

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
        pace: the speed of sending as a multiple of real time; 0: as fast as the platform accepts. The documents advise
            real time (1280 bytes every 40 ms); the original backend sent at 6.25 times that speed for years.
        frame_bytes: audio bytes per frame, at most 9750.
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
        # Progress in either direction: while audio is still being sent, the platform may have nothing to return yet.
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
                        # The sender made progress meanwhile, which moved the limit; the receive timeout was older.
                        continue
                    raise UpstreamTimeout(phase, limit, sid=conversation.sid) from None
                except ConnectionEnded:
                    # Raises unless the conversation can be regarded as complete without its last status.
                    conversation.connection_ended()
                    break
                note_progress()
                phase, limit = "gap", self._connector.limits.gap
                conversation.receive(frame)
        finally:
            # Cancelled, not awaited: after an early end of speech the platform ignores the rest of the clip.
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
                # Scheduled from the start, so that delays do not accumulate.
                await asyncio.sleep(max(0.0, started + number * seconds_per_frame - loop.time()))
            # The platform may have detected the end of speech while this task slept.
            if conversation.finished:
                return
            try:
                connection.send(frame)
            except ConnectionEnded:
                return  # the receiving side gets the same error and reports it
            # Back-pressure. Only what the socket has accepted counts as progress.
            await connection.drain()
            note_progress()
            if not self._pace:
                await asyncio.sleep(0)  # without a pace nothing else suspends here, and other calls would wait


def _forward_failure(sender: asyncio.Task[None], connection: WebSocketConnection) -> None:
    """Wake the receiving side if the sender failed, because it would wait for results that cannot come."""
    error = None if sender.cancelled() else sender.exception()
    if error is not None:
        connection.abort(error)
