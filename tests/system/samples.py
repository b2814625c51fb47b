"""Files to upload, made here: sound, pictures, and what only pretends to be one."""

from __future__ import annotations

import io
import math
import struct
import wave
from array import array
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["bmp", "gif", "jpeg", "mp3", "noisy_jpeg", "pcm", "png", "wav", "wide_png"]


@cache
def pcm(seconds: float = 1.0, *, rate: int = 16000) -> bytes:
    """A quiet tone, 16-bit mono."""
    samples = (int(3000 * math.sin(2 * math.pi * 440 * n / rate)) for n in range(int(seconds * rate)))
    return array("h", samples).tobytes()


def wav(seconds: float = 1.0, *, rate: int = 44100, channels: int = 2) -> bytes:
    """The tone as a WAV file that must be resampled and mixed down."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        mono = np.frombuffer(pcm(seconds, rate=rate), dtype="<i2")
        file.writeframes(np.repeat(mono, channels).tobytes())
    return out.getvalue()


def mp3() -> bytes:
    """The beginning of an MP3: an ID3 tag and frames of 128 kbit/s at 44.1 kHz, all silent."""
    frame = b"\xff\xfb\x90\x00" + bytes(413)
    return b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10) + frame * 20


def _image(kind: str, size: tuple[int, int] = (320, 200), mode: str = "RGB") -> bytes:
    picture = Image.new(mode, size, "white")
    ImageDraw.Draw(picture).text((20, 80), "AiProject", fill="black")
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


@cache
def jpeg() -> bytes:
    return _image("JPEG")


@cache
def png() -> bytes:
    return _image("PNG")


@cache
def bmp() -> bytes:
    return _image("BMP")


@cache
def gif() -> bytes:
    return _image("GIF", mode="P")


@cache
def wide_png() -> bytes:
    """A small file of more than 50 megapixels."""
    return _image("PNG", (8000, 6300), mode="1")


@cache
def noisy_jpeg() -> bytes:
    """A picture of some 5 MB, over what the platform takes, as a good camera makes it."""
    noise = np.random.default_rng(7).integers(0, 255, (1700, 2200, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "JPEG", quality=92)
    return out.getvalue()


def padded_jpeg(size: int) -> bytes:
    """A JPEG file of exactly ``size`` bytes: readers ignore what follows its end."""
    return jpeg() + bytes(size - len(jpeg()))


def broken_wav() -> bytes:
    """A WAV header that promises more than there is."""
    return wav(0.2)[:200]


def header_only_wav() -> bytes:
    return b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
