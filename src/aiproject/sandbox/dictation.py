"""The sandbox's dictation service: ``/v2/iat`` (classic) and ``/v1`` (large model).

`aiproject.protocols.iflytek.dictation` implements the protocol; this module adds time, engines and faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Literal

from aiohttp import WSMsgType, web

from aiproject.protocols.iflytek.dictation.dialect import DictationDialect
from aiproject.protocols.iflytek.dictation.server import DictationRequestError, DictationServerSession
from aiproject.sandbox.counters import Call, Calls
from aiproject.sandbox.engines import EngineFailed, EngineRefused, SpeechEngine
from aiproject.sandbox.faults import Fault
from aiproject.sandbox.recognition import (
    RATE,
    CannedRecognition,
    EngineRecognition,
    Piece,
    Recognition,
    To16k,
    TrailingSilence,
)
from aiproject.sandbox.wire import ERROR_CLOSE_DELAY, close_with, new_sid, reset_connection, send_frame

__all__ = ["DictationCall", "ResultWriter"]

_WORDS_PER_FRAME = 4


class ResultWriter:
    """Turns pieces of text into result frames.

    Args:
        corrects: whether dynamic correction (``wpgs``) is active, so that later frames replace earlier ones.
        is_elaborate: with corrections, use every kind of correction that the protocol defines: a growing text, and one
            frame that replaces two pieces.
    """

    def __init__(
        self, session: DictationServerSession, sid: str, *, corrects: bool, is_elaborate: bool = False
    ) -> None:
        self._session = session
        self._sid = sid
        self._corrects = corrects
        self._is_elaborate = is_elaborate
        self._sn = 0
        self._interim_sn = 0

    def write(self, piece: Piece) -> list[bytes]:
        """Return the frames for one piece; none for silence that replaces nothing."""
        words = list(piece.words)
        if not self._corrects:
            groups = [words[i : i + _WORDS_PER_FRAME] for i in range(0, len(words), _WORDS_PER_FRAME)]
            return [] if piece.is_interim else [self._frame(group) for group in groups]
        if piece.is_interim:
            return [self._correctable(words)] if words else []
        frames = []
        if not self._interim_sn and len(words) > 1:
            # The audio was complete before interim text was due. A correction is still sent, since clients that asked
            # for corrections must be able to handle one.
            beginnings = range(1, len(words)) if self._is_elaborate else [(len(words) + 1) // 2]
            frames += [self._correctable(words[:end]) for end in beginnings]
        if self._is_elaborate and self._interim_sn and len(words) > 1:
            first = self._interim_sn
            frames.append(self._frame(words[-1:], pgs="apd"))
            frames.append(self._frame(words, pgs="rpl", rg=(first, self._sn)))
        elif words or self._interim_sn:
            frames.append(self._correctable(words))
        self._interim_sn = 0
        return frames

    def last(self) -> bytes:
        """Return the last frame: status 2 with one empty word, as the platform ends its answers."""
        return self._frame([], pgs="apd" if self._corrects else None, is_last=True)

    def _correctable(self, words: list[str]) -> bytes:
        """Return a frame that replaces the previous interim frame of the same utterance, if there was one."""
        before = self._interim_sn
        frame = self._frame(words, pgs="rpl", rg=(before, before)) if before else self._frame(words, pgs="apd")
        self._interim_sn = self._sn
        return frame

    def _frame(
        self,
        words: list[str],
        *,
        pgs: Literal["apd", "rpl"] | None = None,
        rg: tuple[int, int] | None = None,
        is_last: bool = False,
    ) -> bytes:
        self._sn += 1
        status = 2 if is_last else int(self._sn > 1)
        return self._session.result_frame(
            words, sn=self._sn, pgs=pgs, rg=rg, status=status, is_last=is_last, sid=self._sid
        )


class DictationCall:
    """One connection to the dictation service, from the upgrade to the close."""

    def __init__(
        self,
        request: web.Request,
        ws: web.WebSocketResponse,
        dialect: DictationDialect,
        *,
        app_id: str,
        engine: SpeechEngine | None,
        faults: list[Fault],
        gap: float,
        linger: float,
        is_wpgs_licensed: bool,
        round_trip: float,
    ) -> None:
        self._request = request
        self._ws = ws
        self._session = DictationServerSession(dialect, app_ids=(app_id,))
        self._engine = engine
        self._faults = {fault.kind: fault for fault in reversed(faults)}
        self._gap = gap
        self._linger = linger
        self._is_wpgs_licensed = is_wpgs_licensed
        self._round_trip = round_trip
        self._sid = new_sid("iat")
        self._frames = 0
        self._results: asyncio.Task[None] | None = None
        self._silence = TrailingSilence()
        self._convert = To16k(RATE)
        self._recognition: Recognition = CannedRecognition(in_chinese=True)
        self._is_input_over = False

    async def run(self, calls: Calls, call: Call) -> None:
        """Serve the connection until it is closed."""
        try:
            await self._receive(calls, call)
        except DictationRequestError as refusal:
            await self._fail(call, refusal.code, refusal.message)
        except ConnectionError:
            return  # the client has gone; the counters record a call that is not complete
        finally:
            if self._results is not None:
                self._results.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                    await self._results

    async def _receive(self, calls: Calls, call: Call) -> None:
        while True:
            try:
                message = await self._ws.receive(timeout=self._linger if call.is_complete else self._gap)
            except TimeoutError:
                if call.is_complete:
                    await close_with(self._ws, "server read msg timeout")
                    return
                if self._is_input_over:
                    continue  # the client has sent everything; the engine is still working
                raise DictationRequestError(10200, "read data timeout") from None
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            data = message.data.encode() if isinstance(message.data, str) else bytes(message.data)
            await self._process_frame(data, calls, call)
            if self._ws.closed:
                return

    async def _process_frame(self, frame: bytes, calls: Calls, call: Call) -> None:
        piece = self._session.receive(frame)
        self._frames += 1
        if self._frames == 1:
            await self._open(calls, call)
        if await self._apply_counted_faults(call, is_last=piece.is_last):
            return
        if self._is_input_over:
            return  # ended by silence: the platform ignores audio that arrives after it has detected the end of speech
        samples = self._convert.convert(piece.pcm, is_last=piece.is_last)
        self._silence.feed(samples)
        self._recognition.feed(samples)
        vad = self._faults.get("vad")
        is_silent = self._silence.milliseconds >= self._session.end_of_speech_ms > 0
        is_cut = vad is not None and self._session.audio_seconds >= vad.number("seconds")
        if piece.is_last or is_silent or is_cut:
            self._is_input_over = True
            self._recognition.finish()
            calls.note("dictation", **self._parameters())

    async def _open(self, calls: Calls, call: Call) -> None:
        session = self._session
        calls.note("dictation", **self._parameters())
        error = self._faults.get("error")
        if error is not None and error.text("at") == "first":
            raise _requested_error(error)
        if self._round_trip:
            await asyncio.sleep(self._round_trip)
        corrects = session.dynamic_correction and self._is_wpgs_licensed and "no_pgs" not in self._faults
        corrects = corrects or "wpgs" in self._faults
        writer = ResultWriter(session, self._sid, corrects=corrects, is_elaborate="wpgs" in self._faults)
        self._convert = To16k(session.sample_rate)
        self._recognition = (
            CannedRecognition(in_chinese=session.language != "en_us")
            if self._engine is None
            else EngineRecognition(self._engine, wants_interim=corrects)
        )
        stall = self._faults.get("stall")
        if stall is None or stall.text("at") != "first":
            opening = session.opening_frame(sid=self._sid)
            if opening is not None:
                await send_frame(self._ws, opening)
            self._results = asyncio.create_task(self._send_results(writer, call))

    async def _send_results(self, writer: ResultWriter, call: Call) -> None:
        try:
            async for piece in self._recognition.pieces():
                if "silence" not in self._faults:
                    for frame in writer.write(piece):
                        await send_frame(self._ws, frame)
        except (EngineFailed, EngineRefused):
            await self._fail(call, 10700, "engine exception")
            return
        if stall := self._faults.get("stall"):
            await asyncio.sleep(stall.number("seconds"))
        if slow := self._faults.get("slow"):
            await asyncio.sleep(slow.number("seconds"))
        if "not_json" in self._faults:
            await send_frame(self._ws, b"<html>this is no JSON</html>")
        if "no_payload" in self._faults:
            bare = {DictationDialect.CLASSIC: b'{"code":0,"message":"success","sid":"%s"}'}.get(
                self._session.dialect, b'{"header":{"code":0,"message":"success","sid":"%s","status":1}}'
            )
            await send_frame(self._ws, bare % self._sid.encode())
        if huge := self._faults.get("huge"):
            for frame in writer.write(Piece(("x" * huge.whole("bytes"),))):
                await send_frame(self._ws, frame)
        if truncate := self._faults.get("truncate"):
            call.has_failed = True
            await close_with(self._ws, code=truncate.whole("code"))
            return
        last = writer.last()
        self._session.end()
        call.is_complete = True
        await send_frame(self._ws, last)

    async def _apply_counted_faults(self, call: Call, *, is_last: bool) -> bool:
        """Apply a fault that counts client frames; return whether the connection is gone."""
        for kind in ("reset", "error"):
            fault = self._faults.get(kind)
            if fault is not None and (self._frames >= max(1, fault.whole("after")) or is_last):
                call.has_failed = True
                if kind == "error":
                    raise _requested_error(fault)
                reset_connection(self._request.transport)
                return True
        return False

    async def _fail(self, call: Call, code: int, message: str) -> None:
        if not call.is_complete:
            call.has_failed = True
        if self._results is not None and self._results is not asyncio.current_task():
            self._results.cancel()
        with contextlib.suppress(ConnectionError):
            await send_frame(self._ws, self._session.error_frame(code, message, sid=self._sid))
            await asyncio.sleep(ERROR_CLOSE_DELAY)
            await close_with(self._ws, message)

    def _parameters(self) -> dict[str, object]:
        session = self._session
        return {
            "dialect": session.dialect.value,
            "language": session.language,
            "sample_rate": session.sample_rate,
            "dynamic_correction": session.dynamic_correction,
            "end_of_speech_ms": session.end_of_speech_ms,
            "frames": self._frames,
            "audio_seconds": math.floor(session.audio_seconds * 1000) / 1000,
        }


def _requested_error(fault: Fault) -> DictationRequestError:
    return DictationRequestError(fault.whole("code"), fault.text("message") or "ordered by a fault")
