"""The client's side of dictation: PCM to client frames, and the platform's frames to text. One object per connection.

Sources: iFlytek, 《语音听写（流式版）WebAPI 文档》 (classic) and 《中英识别大模型 WebAPI 文档》 (large model).
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

from aiproject import errors
from aiproject.protocols.iflytek import error_codes as vendor_codes
from aiproject.protocols.iflytek.dictation.dialect import (
    BYTES_PER_SAMPLE,
    MAX_AUDIO_BYTES_PER_FRAME,
    SAMPLE_RATES,
    DictationDialect,
    DictationOptions,
)
from aiproject.protocols.iflytek.dictation.transcript import Transcript

__all__ = ["MAX_FRAME_BYTES", "DictationConversation", "DictationResult", "dictation_conversation"]

MAX_FRAME_BYTES = 1 << 20
"""The largest platform frame in bytes. Real ones have a few kilobytes, with word offsets some tens of kilobytes."""

_MAX_SID = 64
_MAX_SEQ = 999_999
_ENGINE_SESSION_OVER = 10101

_FrameT = TypeVar("_FrameT")
_Code = Annotated[int, msgspec.Meta(ge=-(10**9), le=10**9)]


class DictationResult(msgspec.Struct, frozen=True):
    """The state after a platform frame.

    Attributes:
        text: the whole transcript so far, corrections applied; not only the text of this frame.
        is_last: whether the transcript is complete.
    """

    text: str
    is_last: bool


class DictationConversation(Protocol):
    """One utterance on one connection: send `outgoing` and `receive` concurrently, close when `finished`.

    Reading must not wait until everything is sent. The platform drops a client that does so, and it may end the
    utterance itself when it detects silence (``end_of_speech_ms``) while audio is still being sent. `finished` then
    becomes true and `outgoing` ends early.
    """

    @property
    def text(self) -> str:
        """The transcript so far."""

    @property
    def sid(self) -> str | None:
        """The platform's session id, once it is known."""

    @property
    def finished(self) -> bool:
        """Whether the last result has arrived: stop sending, close with 1000."""

    def outgoing(self, pcm: bytes, *, sample_rate: int, frame_bytes: int) -> Iterator[bytes]:
        """Yield the text frames for one clip: first, middle ones, last; at least two, even for an empty clip.

        The last frame contains no audio. The caller determines the pace. Ends early once `finished`.

        Args:
            pcm: 16-bit little-endian mono samples; half a sample at the end is dropped.
            sample_rate: 8000 or 16000.
            frame_bytes: PCM bytes per frame, even, 2 to `MAX_AUDIO_BYTES_PER_FRAME`.

        Raises:
            ValueError: an argument is out of its range.
        """

    def receive(self, frame: bytes) -> DictationResult | None:
        """Process one platform frame; ``None`` if it contains nothing new.

        Once `finished`, every frame gives ``None``: the platform may still report errors (10101, 10165) for audio that
        was on its way when the utterance ended, and these no longer matter.

        Raises:
            errors.UpstreamRefused: the platform reports an error. Code 10101 ("engine session already ended") after
                some text is not an error: the engine detected the end of speech, so its text is complete and counts as
                the last result. Without any text 10101 is raised, because it cannot be distinguished from a failure.
                10165 is always raised: before a last result it means that our frames were out of order.
            errors.UpstreamProtocolViolation: the protocol does not allow this frame.
        """

    def connection_ended(self) -> None:
        """Report that the platform closed the connection.

        Raises:
            errors.UpstreamTruncated: unless `finished`. `text` holds what arrived before.
        """


def dictation_conversation(
    dialect: DictationDialect, *, app_id: str, options: DictationOptions | None = None
) -> DictationConversation:
    """Start a conversation in a dialect.

    Raises:
        errors.Misconfigured: the dialect does not support the options.
    """
    options = options or DictationOptions()
    options.check(dialect)
    if dialect is DictationDialect.CLASSIC:
        return _ClassicConversation(app_id, options)
    return _LargeModelConversation(app_id, options)


# -- platform frames: only the members in use, none of them trusted ----------------------------------------------------


class _Candidate(msgspec.Struct):
    w: str | None = None


class _Word(msgspec.Struct):
    cw: list[_Candidate] | None = None


class _Piece(msgspec.Struct):
    ws: list[_Word] | None = None
    sn: int | None = None
    ls: bool | None = None
    pgs: str | None = None
    rg: list[int] | None = None

    @property
    def text(self) -> str:
        """The first candidate of each word, joined."""
        return "".join(word.cw[0].w or "" for word in self.ws or () if word.cw)


class _ClassicData(msgspec.Struct):
    status: int | None = None
    result: _Piece | None = None


class _ClassicFrame(msgspec.Struct):
    code: _Code
    message: str | None = None
    sid: str | None = None
    data: _ClassicData | None = None


class _Header(msgspec.Struct):
    code: _Code
    message: str | None = None
    sid: str | None = None
    status: int | None = None


class _LargeModelResult(msgspec.Struct):
    status: int | None = None
    text: str | None = None


class _LargeModelPayload(msgspec.Struct):
    result: _LargeModelResult | None = None


class _LargeModelFrame(msgspec.Struct):
    header: _Header
    payload: _LargeModelPayload | None = None


_classic_frame = msgspec.json.Decoder(_ClassicFrame)
_large_model_frame = msgspec.json.Decoder(_LargeModelFrame)
_piece = msgspec.json.Decoder(_Piece)


def _decode(decoder: msgspec.json.Decoder[_FrameT], frame: bytes) -> _FrameT:
    try:
        return decoder.decode(frame)
    except (ValueError, RecursionError) as broken:
        # The decoder's message names a position in the frame, never its content, so it may be logged.
        raise errors.UpstreamProtocolViolation(
            f"dictation: a frame is not as documented: {str(broken)[:200]}"
        ) from broken


# -- the conversation --------------------------------------------------------------------------------------------------


class _Conversation(ABC):
    """What both dialects share."""

    def __init__(self, app_id: str, options: DictationOptions) -> None:
        self._app_id = app_id
        self._options = options
        self._transcript = Transcript()
        self._sid: str | None = None
        self._finished = False
        self._has_last_piece = False

    @property
    def text(self) -> str:
        return self._transcript.text

    @property
    def sid(self) -> str | None:
        return self._sid

    @property
    def finished(self) -> bool:
        return self._finished

    def outgoing(self, pcm: bytes, *, sample_rate: int, frame_bytes: int) -> Iterator[bytes]:
        if sample_rate not in SAMPLE_RATES:
            raise ValueError(f"sample rate {sample_rate}: the platform reads 8000 and 16000")
        if not BYTES_PER_SAMPLE <= frame_bytes <= MAX_AUDIO_BYTES_PER_FRAME or frame_bytes % BYTES_PER_SAMPLE:
            raise ValueError(f"frame of {frame_bytes} bytes: must be even, 2 to {MAX_AUDIO_BYTES_PER_FRAME}")
        if len(pcm) // frame_bytes + 2 > _MAX_SEQ:
            raise ValueError(f"{len(pcm)} bytes of sound in frames of {frame_bytes}: too many frames")
        # Arguments are validated above, at the call; the generator itself runs only as frames are requested.
        return self._frames(pcm[: len(pcm) - len(pcm) % BYTES_PER_SAMPLE], sample_rate, frame_bytes)

    def _frames(self, pcm: bytes, sample_rate: int, frame_bytes: int) -> Iterator[bytes]:
        seq = 0
        for start in range(0, max(len(pcm), 1), frame_bytes):
            if self._finished:
                return
            seq += 1
            audio = base64.b64encode(pcm[start : start + frame_bytes]).decode("ascii")
            yield msgspec.json.encode(self._frame(seq, 0 if start == 0 else 1, audio, sample_rate))
        if not self._finished:
            yield msgspec.json.encode(self._frame(seq + 1, 2, "", sample_rate))

    def receive(self, frame: bytes) -> DictationResult | None:
        if self._finished:
            return None
        if len(frame) > MAX_FRAME_BYTES:
            raise errors.UpstreamProtocolViolation(f"dictation: a frame of {len(frame)} bytes, over {MAX_FRAME_BYTES}")
        return self._receive(frame)

    def connection_ended(self) -> None:
        if self._has_last_piece:
            # "ls" has already marked that piece as the session's last; only the closing status is missing.
            self._finished = True
        if not self._finished:
            raise errors.UpstreamTruncated(
                "dictation: the connection ended before the last result", sid=self._sid, retryable=True
            )

    def _note_header(self, code: int, message: str | None, sid: str | None) -> None:
        """Store the session id; set `finished` or raise on an error code."""
        if sid:
            self._sid = vendor_codes.quotable(sid, _MAX_SID) or self._sid
        if code == _ENGINE_SESSION_OVER and self.text:
            self._finished = True
        elif code != 0:
            raise vendor_codes.refusal(vendor_codes.Service.DICTATION, code, message or "", self._sid)

    def _note_piece(self, piece: _Piece | None, *, is_last: bool) -> DictationResult | None:
        if piece is not None:
            self._transcript.add(piece.text, sn=piece.sn, pgs=piece.pgs, rg=piece.rg)
            self._has_last_piece = self._has_last_piece or bool(piece.ls)
        self._finished = self._finished or is_last
        if piece is None and not self._finished:
            return None
        return DictationResult(self.text, is_last=self._finished)

    @abstractmethod
    def _frame(self, seq: int, status: int, audio: str, sample_rate: int) -> dict[str, Any]: ...

    @abstractmethod
    def _receive(self, frame: bytes) -> DictationResult | None: ...


class _ClassicConversation(_Conversation):
    """``/v2/iat``: ``common``, ``business``, ``data``; results are plain JSON."""

    def _frame(self, seq: int, status: int, audio: str, sample_rate: int) -> dict[str, Any]:
        frame: dict[str, Any] = {}
        if status == 0:
            options = self._options
            business: dict[str, Any] = {
                "language": options.language,
                "domain": options.domain_for(DictationDialect.CLASSIC),
                "vad_eos": options.end_of_speech_ms,
                "ptt": int(options.punctuation),
            }
            if options.accent:
                business["accent"] = options.accent
            if options.dynamic_correction:
                business["dwa"] = "wpgs"
            frame["common"] = {"app_id": self._app_id}
            frame["business"] = business
        frame["data"] = {
            "status": status,
            "format": f"audio/L16;rate={sample_rate}",
            "encoding": "raw",
            "audio": audio,
        }
        return frame

    def _receive(self, frame: bytes) -> DictationResult | None:
        message = _decode(_classic_frame, frame)
        self._note_header(message.code, message.message, message.sid)
        data = message.data or _ClassicData()
        return self._note_piece(data.result, is_last=data.status == 2)


class _LargeModelConversation(_Conversation):
    """``/v1``: ``header``, ``parameter``, ``payload``; results are JSON in Base64 in JSON."""

    def _frame(self, seq: int, status: int, audio: str, sample_rate: int) -> dict[str, Any]:
        frame: dict[str, Any] = {"header": {"app_id": self._app_id, "status": status}}
        if status == 0:
            options = self._options
            iat: dict[str, Any] = {
                "domain": options.domain_for(DictationDialect.LARGE_MODEL),
                "language": options.language,
                "eos": options.end_of_speech_ms,
                "result": {"encoding": "utf8", "compress": "raw", "format": "json"},
            }
            if options.accent:
                iat["accent"] = options.accent
            if options.dynamic_correction:
                iat["dwa"] = "wpgs"
            if not options.punctuation:  # on by default; only the document of the dialect model lists the switch
                iat["ptt"] = 0
            frame["parameter"] = {"iat": iat}
        frame["payload"] = {
            "audio": {
                "encoding": "raw",
                "sample_rate": sample_rate,
                "channels": 1,
                "bit_depth": 16,
                "seq": seq,
                "status": status,
                "audio": audio,
            }
        }
        return frame

    def _receive(self, frame: bytes) -> DictationResult | None:
        message = _decode(_large_model_frame, frame)
        header = message.header
        self._note_header(header.code, header.message, header.sid)
        result = (message.payload or _LargeModelPayload()).result or _LargeModelResult()
        piece = _decode_text(result.text) if result.text else None
        return self._note_piece(piece, is_last=2 in (header.status, result.status))


def _decode_text(text: str) -> _Piece | None:
    try:
        document = base64.b64decode(text, validate=True)
    except ValueError as broken:  # includes binascii.Error
        raise errors.UpstreamProtocolViolation("dictation: a result is not Base64") from broken
    # The platform pads results of its OCR service with NUL bytes; accepting them here as well is harmless.
    document = document.rstrip(b"\x00 \t\r\n")
    return _decode(_piece, document) if document else None
