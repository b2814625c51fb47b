"""The platform's side of dictation, for the sandbox: strict about what it receives, exact in what it sends.

Sources: iFlytek, 《语音听写（流式版）WebAPI 文档》, 《中英识别大模型 WebAPI 文档》 and 《方言识别大模型》 (parameter
ranges, codes), and the platform's public error code table (平台通用错误码).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Literal

import msgspec

from aiproject.protocols.iflytek.dictation.dialect import (
    BYTES_PER_SAMPLE,
    MAX_AUDIO_BASE64,
    MAX_AUDIO_SECONDS,
    SAMPLE_RATES,
    DictationDialect,
)

__all__ = ["AudioPiece", "DictationRequestError", "DictationServerSession"]

_LANGUAGES = {
    DictationDialect.CLASSIC: frozenset({"zh_cn", "en_us"}),
    DictationDialect.LARGE_MODEL: frozenset({"zh_cn", "mul_cn"}),
}
_DOMAINS = {DictationDialect.CLASSIC: frozenset({"iat"}), DictationDialect.LARGE_MODEL: frozenset({"slm"})}
_LARGE_MODEL_ACCENTS = frozenset({"mandarin", "mulacc"})

# In the document of the large model, audio.audio may hold 0 to 10485760 bytes.
_MAX_BASE64 = {DictationDialect.CLASSIC: MAX_AUDIO_BASE64, DictationDialect.LARGE_MODEL: 10_485_760}
_MAX_SEQ = 999_999


class DictationRequestError(Exception):
    """The client violated the protocol; the session is over.

    Args:
        code: the vendor's error code, for `DictationServerSession.error_frame`.
        message: the vendor's message text.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message


class AudioPiece(msgspec.Struct, frozen=True):
    """The audio of one client frame.

    Attributes:
        pcm: 16-bit little-endian mono samples; may be empty.
        is_last: whether the client declared the end of its audio; nothing may follow.
    """

    pcm: bytes
    is_last: bool


class _State(Enum):
    WAITING = auto()  # nothing received yet
    STREAMING = auto()  # first frame accepted
    COMPLETE = auto()  # the client declared the end of its audio
    ENDED = auto()  # the last result was sent, for example after silence; the client may not know it yet
    FAILED = auto()  # an error was raised


class DictationServerSession:
    """One connection from the platform's side.

    Call `receive` for each text frame; on `DictationRequestError` send `error_frame` and close. After the first frame
    was accepted, send `opening_frame` if there is one, then the results of `result_frame`; call `end` after the one
    with ``status`` 2. The sandbox measures time (10 s without a frame: 10200).

    Args:
        dialect: the dialect of the frames.
        app_ids: the application ids that belong to the key that signed the connection.

    Attributes:
        app_id: the id in the first frame; empty before.
        language: the language in the first frame; empty before.
        sample_rate: samples per second.
        dynamic_correction: whether ``dwa=wpgs`` was requested.
        end_of_speech_ms: silence after which the platform ends the session.
        punctuation: whether punctuation was requested.
        audio_bytes: bytes of PCM received so far.
    """

    def __init__(self, dialect: DictationDialect, *, app_ids: Collection[str]) -> None:
        self.dialect = dialect
        self.app_id = ""
        self.language = ""
        self.sample_rate = 16_000
        self.dynamic_correction = False
        self.end_of_speech_ms = 2_000 if dialect is DictationDialect.CLASSIC else 1_800
        self.punctuation = True
        self.audio_bytes = 0
        self._app_ids = frozenset(app_ids)
        self._state = _State.WAITING
        self._client_seq = -1
        self._result_seq = 0

    @property
    def audio_seconds(self) -> float:
        """Seconds of audio received so far."""
        return self.audio_bytes / (self.sample_rate * BYTES_PER_SAMPLE)

    # -- what the client sends -----------------------------------------------------------------------------------------

    def receive(self, frame: bytes) -> AudioPiece:
        """Process one text frame of the client.

        Raises:
            DictationRequestError: the frame is not allowed here; see `DictationRequestError.code`.
        """
        try:
            return self._receive(frame)
        except DictationRequestError:
            self._state = _State.FAILED
            raise

    def end(self) -> None:
        """Report that the last result was sent: the platform answers further audio with 10101."""
        if self._state is not _State.FAILED:
            self._state = _State.ENDED

    def _receive(self, frame: bytes) -> AudioPiece:
        if self._state is _State.ENDED:
            raise DictationRequestError(10101, "engine inactive")
        if self._state in (_State.COMPLETE, _State.FAILED):
            raise DictationRequestError(10165, "invalid handle")
        try:
            request = msgspec.json.decode(frame)
        except (ValueError, RecursionError) as broken:
            raise DictationRequestError(10160, "parse request json error") from broken
        if not isinstance(request, dict):
            raise DictationRequestError(10160, "parse request json error")
        if self.dialect is DictationDialect.CLASSIC:
            status, audio = self._read_classic(request)
        else:
            status, audio = self._read_large_model(request)
        pcm = self._decode_audio(audio)
        self._state = _State.COMPLETE if status == 2 else _State.STREAMING
        return AudioPiece(pcm, is_last=status == 2)

    def _read_classic(self, request: Mapping[str, Any]) -> tuple[int, str]:
        data = _object(request, "data", "$.data")
        status = _integer(data, "status", "$.data.status", low=0, high=2)
        is_first = self._check_order(status)
        if is_first:
            self._check_app_id(_object(request, "common", "$.common", code=10313), "$.common.app_id")
            business = _object(request, "business", "$.business")
            self._check_recogniser(business, "$.business")
            for name in ("vad_eos", "eos"):  # the newest document says eos, the SDKs send vad_eos
                if name in business:
                    self.end_of_speech_ms = _integer(business, name, f"$.business.{name}", low=0, high=10_000)
            self._read_switches(business, "$.business")
        if is_first or "encoding" in data:
            _check_encoding(_string(data, "encoding", "$.data.encoding"))
        if is_first or "format" in data:
            rates = {f"audio/L16;rate={rate}": rate for rate in SAMPLE_RATES}
            rate = rates.get(_string(data, "format", "$.data.format"))
            if rate is None or not (is_first or rate == self.sample_rate):
                raise DictationRequestError(10006, "invalid parameter: $.data.format")
            self.sample_rate = rate
        return status, _string(data, "audio", "$.data.audio", default="")

    def _read_large_model(self, request: Mapping[str, Any]) -> tuple[int, str]:
        header = _object(request, "header", "$.header", code=10313)
        status = _integer(header, "status", "$.header.status", low=0, high=2)
        is_first = self._check_order(status)
        self._check_app_id(header, "$.header.app_id")
        if is_first:
            iat = _object(_object(request, "parameter", "$.parameter"), "iat", "$.parameter.iat")
            self._check_recogniser(iat, "$.parameter.iat")
            accent = _string(iat, "accent", "$.parameter.iat.accent", default="mandarin")
            if accent not in _LARGE_MODEL_ACCENTS:
                raise DictationRequestError(10007, "illegal parameter value: $.parameter.iat.accent")
            if "eos" in iat:
                self.end_of_speech_ms = _integer(iat, "eos", "$.parameter.iat.eos", low=600, high=60_000)
            self._read_switches(iat, "$.parameter.iat")
        audio = _object(_object(request, "payload", "$.payload"), "audio", "$.payload.audio")
        if _integer(audio, "status", "$.payload.audio.status", low=0, high=2) != status:
            raise DictationRequestError(10163, "param validate error:$.payload.audio.status is not $.header.status")
        seq = _integer(audio, "seq", "$.payload.audio.seq", low=0, high=_MAX_SEQ)
        if seq <= self._client_seq:
            raise DictationRequestError(10163, "param validate error:$.payload.audio.seq must increase")
        self._client_seq = seq
        _check_encoding(_string(audio, "encoding", "$.payload.audio.encoding"))
        rate = _integer(audio, "sample_rate", "$.payload.audio.sample_rate", low=SAMPLE_RATES[0], high=SAMPLE_RATES[-1])
        if rate not in SAMPLE_RATES or not (is_first or rate == self.sample_rate):
            raise DictationRequestError(10163, "param validate error:$.payload.audio.sample_rate")
        self.sample_rate = rate
        for name, only in (("channels", 1), ("bit_depth", 16)):
            if name in audio:
                _integer(audio, name, f"$.payload.audio.{name}", low=only, high=only)
        return status, _string(audio, "audio", "$.payload.audio.audio", default="")

    def _check_order(self, status: int) -> bool:
        """Return whether this frame is the first. Status 0 marks the first frame, and no other may have it."""
        is_first = self._state is _State.WAITING
        if is_first != (status == 0):
            raise DictationRequestError(10165, "invalid handle")
        return is_first

    def _check_app_id(self, holder: Mapping[str, Any], path: str) -> None:
        app_id = holder.get("app_id")
        if not isinstance(app_id, str) or not app_id:
            raise DictationRequestError(10313, f"invalid appid: {path} cannot be empty")
        if app_id not in self._app_ids or self.app_id not in ("", app_id):
            raise DictationRequestError(10313, "invalid appid")
        self.app_id = app_id

    def _check_recogniser(self, parameters: Mapping[str, Any], path: str) -> None:
        """Check language and domain: 11200 for unknown ones, as for those not enabled in the console."""
        language = _string(parameters, "language", f"{path}.language")
        domain = _string(parameters, "domain", f"{path}.domain")
        if language not in _LANGUAGES[self.dialect] or domain not in _DOMAINS[self.dialect]:
            raise DictationRequestError(11200, "auth no license")
        if self.dialect is DictationDialect.CLASSIC and language == "zh_cn":
            _string(parameters, "accent", f"{path}.accent")
        self.language = language

    def _read_switches(self, parameters: Mapping[str, Any], path: str) -> None:
        # Like an unlicensed dwa, an unknown one is ignored silently.
        self.dynamic_correction = parameters.get("dwa") == "wpgs"
        if "ptt" in parameters:
            self.punctuation = _integer(parameters, "ptt", f"{path}.ptt", low=0, high=1) == 1
        if "vinfo" in parameters:
            _integer(parameters, "vinfo", f"{path}.vinfo", low=0, high=1)

    def _decode_audio(self, audio: str) -> bytes:
        limit = _MAX_BASE64[self.dialect]
        if len(audio) > limit:
            path = "$.data.audio" if self.dialect is DictationDialect.CLASSIC else "$.payload.audio.audio"
            raise DictationRequestError(10163, f"param validate error:length of {path} must be between 0,{limit}")
        try:
            pcm = base64.b64decode(audio, validate=True)
        except (binascii.Error, ValueError) as broken:
            raise DictationRequestError(10161, "parse base64 string error") from broken
        self.audio_bytes += len(pcm)
        if self.audio_seconds > MAX_AUDIO_SECONDS:
            raise DictationRequestError(10114, "session timeout")
        return pcm

    # -- what the platform sends ---------------------------------------------------------------------------------------

    def opening_frame(self, *, sid: str) -> bytes | None:
        """Return the frame that follows the first frame: a bare header (large model), or none (classic)."""
        if self.dialect is DictationDialect.CLASSIC:
            return None
        return msgspec.json.encode({"header": {"code": 0, "message": "success", "sid": sid, "status": 0}})

    def result_frame(
        self,
        words: Sequence[str],
        *,
        sn: int,
        pgs: Literal["apd", "rpl"] | None = None,
        rg: tuple[int, int] | None = None,
        status: int,
        is_last: bool,
        sid: str,
    ) -> bytes:
        """Build one result.

        Args:
            words: the words and punctuation of this piece, in order; empty for silence.
            sn: the number of this piece, from 1.
            pgs: with dynamic correction, whether the piece is appended or replaces others.
            rg: with ``rpl``, the first and the last ``sn`` to be replaced.
            status: 0 first, 1 middle, 2 last; after 2 nothing follows.
            is_last: the member ``ls``, true together with ``status`` 2.
            sid: the session id.
        """
        words = words or [""]  # the platform sends one empty word rather than none
        result: dict[str, Any] = {
            "sn": sn,
            "ls": is_last,
            "bg": 0,
            "ed": 0,
            "ws": [{"bg": 0, "cw": [{"sc": 0, "w": word}]} for word in words],
        }
        if pgs is not None:
            result["pgs"] = pgs
        if rg is not None:
            result["rg"] = list(rg)
        if self.dialect is DictationDialect.CLASSIC:
            frame: dict[str, Any] = {"code": 0, "message": "success", "sid": sid}
            frame["data"] = {"status": status, "result": result}
            return msgspec.json.encode(frame)
        self._result_seq += 1
        text = base64.b64encode(msgspec.json.encode(result)).decode("ascii")
        outer = {"compress": "raw", "encoding": "utf8", "format": "json", "seq": self._result_seq, "status": status}
        header = {"code": 0, "message": "success", "sid": sid, "status": status}
        return msgspec.json.encode({"header": header, "payload": {"result": {**outer, "text": text}}})

    def error_frame(self, code: int, message: str, *, sid: str) -> bytes:
        """Build an error frame; the platform closes with 1000 after it."""
        if self.dialect is DictationDialect.CLASSIC:
            return msgspec.json.encode({"code": code, "message": message, "sid": sid})
        return msgspec.json.encode({"header": {"code": code, "message": message, "sid": sid, "status": 0}})


def _object(holder: Mapping[str, Any], name: str, path: str, *, code: int = 10163) -> Mapping[str, Any]:
    value = holder.get(name)
    if not isinstance(value, dict):
        text = "invalid appid" if code == 10313 else f"param validate error:{path} is required"
        raise DictationRequestError(code, text)
    return value


def _string(holder: Mapping[str, Any], name: str, path: str, *, default: str | None = None) -> str:
    value = holder.get(name, default)
    if not isinstance(value, str) or (default is None and not value):
        raise DictationRequestError(10163, f"param validate error:{path} must be a string")
    return value


def _integer(holder: Mapping[str, Any], name: str, path: str, *, low: int, high: int) -> int:
    value = holder.get(name)
    # bool is a subclass of int in Python, but JSON's true is not a number.
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise DictationRequestError(10163, f"param validate error:{path} must be between {low},{high}")
    return value


def _check_encoding(encoding: str) -> None:
    """Accept PCM only: the sandbox cannot decode Speex or MP3, and reports it with the code for undecodable audio."""
    if encoding != "raw":
        raise DictationRequestError(10043, "Syscall AudioCodingDecode error")
