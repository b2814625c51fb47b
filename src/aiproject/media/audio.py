"""Converts uploaded audio for dictation: 16-bit mono PCM at 16 or 8 kHz, at most 60 s.

Source of the limits: iFlytek, 《语音听写（流式版）WebAPI 文档》: 16 kHz or 8 kHz, 16-bit, mono, little-endian without a
WAV header, at most 60 s in one connection.

Source of the WAV layout: Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0" (RIFF and
WAVE chunks), and Microsoft, "Multiple Channel Audio Data and WAVE Files" (WAVE_FORMAT_EXTENSIBLE).

Audio is never truncated: a file that is too long is refused as a whole, so that nobody pays for half a sentence. The
header is parsed here instead of by the decoder for three reasons: the length must be known before anything is decoded,
streaming writers leave sizes in it that a decoder takes literally, and a chunk after the samples is not audio.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from aiproject.codes import Detail
from aiproject.errors import InvalidInput, UnusableFile
from aiproject.media._empty import is_header_only
from aiproject.media._signatures import recognise

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["MAX_SECONDS", "Pcm", "prepare_audio"]

MAX_SECONDS: Final = 60
"""The longest audio in seconds that the platform accepts in one connection; 60.000 s is still accepted."""

_RATES: Final = (16000, 8000)

# Limits of a WAV file before it is decoded. No recorder exceeds 192 kHz or eight channels, and speech below 4 kHz is
# unintelligible. Together with MAX_SECONDS they bound the work; decoding in blocks bounds the memory.
_MIN_RATE: Final = 4000
_MAX_RATE: Final = 192000
_MAX_CHANNELS: Final = 8
_MAX_CHUNKS: Final = 256
_BLOCK_FRAMES: Final = 32768

# Writers that cannot seek back leave a size that no upload can have: 0xFFFFFFFF (ffmpeg), 0x7FFFF000 and similar ones
# (SoX, arecord, espeak-ng), or 0. Any size from here on means "until the end".
_PLACEHOLDER_FROM: Final = 0x7FFF0000

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE
# From the format tag and the bits of a sample's container to libsndfile's name. WAV's 8-bit PCM is unsigned.
_SUBTYPES: Final = {
    (_PCM, 8): "PCM_U8",
    (_PCM, 16): "PCM_16",
    (_PCM, 24): "PCM_24",
    (_PCM, 32): "PCM_32",
    (_FLOAT, 32): "FLOAT",
    (_FLOAT, 64): "DOUBLE",
    (_ALAW, 8): "ALAW",
    (_MULAW, 8): "ULAW",
}
# A WAVE_FORMAT_EXTENSIBLE sub-format is a GUID: the format tag followed by these bytes.
_SUBFORMAT_TAIL: Final = bytes.fromhex("000000001000800000aa00389b71")
# Chunks that recorders write beside the samples. Any other chunk may be a damaged `data` chunk.
_CHUNKS_WITHOUT_SAMPLES: Final = frozenset({b"fmt ", b"fact", b"LIST", b"JUNK", b"junk", b"bext"})
_CODEC_NAMES: Final = {
    0x0002: "MS ADPCM",
    0x0011: "IMA ADPCM",
    0x0031: "GSM 6.10",
    0x0050: "MPEG",
    0x0055: "MP3",
    0x00FF: "AAC",
    0x0161: "WMA",
}


@dataclass(frozen=True, slots=True)
class Pcm:
    """Audio in the form that dictation accepts: 16-bit little-endian mono, without a header.

    Attributes:
        samples: two bytes per sample, at most 60 s; empty for a recording without audio.
        sample_rate: 16000 or 8000, in Hz.
    """

    samples: bytes = field(repr=False)
    sample_rate: int

    @property
    def duration_ms(self) -> int:
        """The length in milliseconds, rounded up, so that it is 0 only for an empty recording."""
        return -(-len(self.samples) // 2 * 1000 // self.sample_rate)


class _Wave(NamedTuple):
    """The location and the format of the samples in a WAV file."""

    subtype: str
    channels: int
    rate: int
    frame_bytes: int
    start: int
    stop: int

    @property
    def frames(self) -> int:
        return (self.stop - self.start) // self.frame_bytes


def prepare_audio(data: bytes, *, rate: int = 16000) -> Pcm:
    """Validate uploaded audio and convert it to 16-bit mono PCM. Blocks for up to about a second: call it in a thread.

    A WAV file (PCM of 8, 16, 24 or 32 bits, float, A-law, mu-law, also as WAVE_FORMAT_EXTENSIBLE; up to 8 channels,
    4 to 192 kHz) is recognised by its header, which takes precedence over ``rate``. Channels are averaged. A file at
    8 kHz stays at 8 kHz, because the platform has a model for telephone audio and upsampling would only double the
    bytes; every other rate becomes 16 kHz. 16-bit mono at these rates passes through bit by bit. A data chunk whose
    size a streaming writer left open extends to the end of the file; one that claims more than there is means that the
    upload was truncated, and is refused. An empty upload, or the header of a format without audio after it, is an empty
    recording: its `Pcm` has no samples.

    Args:
        data: the upload; may be empty.
        rate: the rate of raw PCM according to the caller, 16000 or 8000 Hz; raw PCM is 16-bit little-endian mono.

    Raises:
        InvalidInput: ``rate`` is another number.
        UnusableFile: over 60 s, of odd length, in another format, a damaged WAV file or one of another codec. The
            detail says which.
    """
    if rate not in _RATES:
        raise InvalidInput(Detail.SAMPLE_RATE_INVALID)
    if not data or is_header_only(data):
        return Pcm(b"", rate)
    if data.startswith(b"RIFF") and b"WAVE".startswith(data[8:12]):
        return _decode(data, _read_header(data))
    name = recognise(data)
    if name is not None:
        raise UnusableFile(Detail.AUDIO_OF_OTHER_KIND, kind=name)
    if len(data) % 2:
        raise UnusableFile(Detail.AUDIO_ODD_LENGTH)
    _check_length(len(data) // 2, rate)
    return Pcm(bytes(data), rate)


def _check_length(frames: int, rate: int) -> None:
    if frames > MAX_SECONDS * rate:
        raise UnusableFile(Detail.AUDIO_TOO_LONG, seconds=frames / rate, limit=MAX_SECONDS)


def _read_header(data: bytes) -> _Wave:
    """Locate the format and the samples of a RIFF/WAVE file, and refuse what must not be decoded."""
    layout: bytes | None = None
    names: set[bytes] = set()
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            break
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        start = at + 8
        names.add(name)
        if name == b"data":
            if layout is None:
                raise UnusableFile(Detail.WAV_DAMAGED)
            return _check_wave(layout, start, _end_of_samples(data, start, size))
        if name == b"fmt " and layout is None:
            layout = data[start : start + min(size, 40)]
        # Chunks are padded to even length; their size does not include the padding.
        at = start + size + size % 2
    if layout is not None and at == len(data) and names <= _CHUNKS_WITHOUT_SAMPLES:
        return _check_wave(layout, at, at)  # complete, but without a data chunk: an empty recording
    raise UnusableFile(Detail.WAV_DAMAGED)


def _end_of_samples(data: bytes, start: int, size: int) -> int:
    rest = len(data) - start
    if size >= _PLACEHOLDER_FROM:
        return len(data)
    if size == 0:
        # Either left open by a streaming writer, or really empty with other chunks after it.
        return start if _holds_chunks(data, start) else len(data)
    if size > rest:
        raise UnusableFile(Detail.WAV_INCOMPLETE)
    return start + size


def _holds_chunks(data: bytes, at: int) -> bool:
    """Whether ``data`` consists of chunks with printable names, and nothing else, from ``at`` to its end."""
    for _ in range(_MAX_CHUNKS):
        if at >= len(data):
            return at == len(data)
        name = data[at : at + 4]
        if len(data) - at < 8 or not (name.isascii() and name.decode("ascii").isprintable()):
            return False
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + (size % 2 if at + 8 + size < len(data) else 0)
    return False


def _check_wave(layout: bytes, start: int, stop: int) -> _Wave:
    if len(layout) < 16:
        raise UnusableFile(Detail.WAV_DAMAGED)
    tag, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", layout)
    if tag == _EXTENSIBLE:
        if len(layout) < 40:
            raise UnusableFile(Detail.WAV_DAMAGED)
        tag = int.from_bytes(layout[24:26], "little") if layout[26:40] == _SUBFORMAT_TAIL else _EXTENSIBLE
    if tag not in {_PCM, _FLOAT, _ALAW, _MULAW}:
        raise UnusableFile(Detail.WAV_CODEC_UNSUPPORTED, codec=_CODEC_NAMES.get(tag, f"0x{tag:04X}"))
    if channels == 0 or frame_bytes == 0 or frame_bytes % channels:
        raise UnusableFile(Detail.WAV_DAMAGED)
    # The container decides, not the bits in use: 12 or 20 bits occupy the upper end of 16 or 24.
    container = frame_bytes // channels * 8
    subtype = _SUBTYPES.get((tag, container))
    if subtype is None or bits > container:
        raise UnusableFile(Detail.WAV_SAMPLE_SIZE_UNSUPPORTED, bits=bits)
    if channels > _MAX_CHANNELS or not _MIN_RATE <= rate <= _MAX_RATE:
        raise UnusableFile(Detail.WAV_LAYOUT_UNSUPPORTED, channels=channels, rate=rate)
    # Less than one frame at the end, for example a padding byte, is not audio and is dropped.
    wave = _Wave(subtype, channels, rate, frame_bytes, start, stop - (stop - start) % frame_bytes)
    _check_length(wave.frames, rate)
    return wave


def _decode(data: bytes, wave: _Wave) -> Pcm:
    rate = wave.rate if wave.rate in _RATES else 16000
    if not wave.frames:
        return Pcm(b"", rate)
    if wave.subtype == "PCM_16" and wave.channels == 1 and wave.rate == rate:
        return Pcm(data[wave.start : wave.stop], rate)
    # With the first recording: their libraries take some 15 MB.
    import numpy as np
    import soundfile
    import soxr

    resampler = None if wave.rate == rate else soxr.ResampleStream(wave.rate, rate, 1, dtype="float32")
    out = bytearray()
    # Decoded block by block, so that a minute of eight channels never occupies memory as floats. The header has been
    # validated, so the decoder gets plain samples and parses no untrusted structure.
    try:
        with soundfile.SoundFile(
            io.BytesIO(memoryview(data)[wave.start : wave.stop]),
            samplerate=wave.rate,
            channels=wave.channels,
            format="RAW",
            subtype=wave.subtype,
            endian="LITTLE",
        ) as source:
            left = wave.frames
            while left > 0:
                block = cast("npt.NDArray[np.float32]", source.read(_BLOCK_FRAMES, dtype="float32", always_2d=True))
                if not len(block):
                    raise UnusableFile(Detail.WAV_DAMAGED)
                left -= len(block)
                # Float files may contain NaN, which becomes silence. Clipped before the mean, because inf - inf is NaN.
                mono = np.clip(np.nan_to_num(block, copy=False), -1.0, 1.0).mean(axis=1, dtype=np.float32)
                if resampler is not None:
                    mono = resampler.resample_chunk(mono, last=left <= 0)
                out += np.clip(np.rint(mono * 32768.0), -32768, 32767).astype("<i2").tobytes()
    except soundfile.SoundFileError as error:
        raise UnusableFile(Detail.WAV_DAMAGED) from error
    if not out:
        raise UnusableFile(Detail.WAV_WITHOUT_SOUND)
    return Pcm(bytes(out), rate)
