"""From sound to pieces of text, while the sound still arrives.

Speech is cut at pauses into utterances; each is heard as soon as it is complete, so that text comes while the speaker
goes on, the last text comes soon after the last word, and one engine serves long clips in small jobs.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import soxr

from aiproject.sandbox.engines import SpeechEngine

__all__ = ["RATE", "CannedRecognition", "EngineRecognition", "Piece", "Recognition", "To16k", "TrailingSilence"]

RATE: Final = 16_000
"""Samples a second that the engines take."""

Samples = npt.NDArray[np.int16]

_FRAME: Final = RATE // 50  # loudness is judged in frames of 20 ms
_QUIET: Final = 200.0  # root mean square below which a frame is a pause: about -44 dB of full scale
_PAUSE_FRAMES: Final = 30  # 0.6 s of pause end an utterance
_MAX_FRAMES: Final = 600  # 12 s end it as well, at its quietest place
_INTERIM: Final = RATE * 2 // 5  # interim text every 0.4 s of sound
_MAX_INTERIM: Final = RATE * 5  # a longer open utterance gets none: hearing it again and again costs more than it tells


@dataclass(frozen=True)
class Piece:
    """Words that were heard.

    Attributes:
        words: words with the blanks that belong before them.
        is_interim: a later piece of the same utterance replaces this one.
    """

    words: tuple[str, ...]
    is_interim: bool = False


class Recognition(Protocol):
    """One recording: `feed` and `finish` are called as sound arrives, `pieces` is read beside them, once."""

    def feed(self, samples: Samples) -> None:
        """Take more sound: 16 kHz."""

    def finish(self) -> None:
        """Declare the end of the sound."""

    def pieces(self) -> AsyncIterator[Piece]:
        """The text, piece by piece; ends after the last piece of a finished recording."""


class To16k:
    """Brings a stream of 16-bit PCM to 16 kHz. Args: ``rate``: samples a second of what comes in."""

    def __init__(self, rate: int) -> None:
        self._odd = b""
        self._stream = None if rate == RATE else soxr.ResampleStream(rate, RATE, 1, dtype="int16")

    def convert(self, pcm: bytes, *, is_last: bool = False) -> Samples:
        """Convert the next bytes; half a sample is kept for the next call, and dropped at the end."""
        pcm = self._odd + pcm
        whole = len(pcm) & ~1
        self._odd = pcm[whole:]
        samples: Samples = np.frombuffer(pcm[:whole], dtype="<i2").astype(np.int16, copy=False)
        if self._stream is None:
            return samples
        converted: Samples = self._stream.resample_chunk(samples, last=is_last)
        return converted


class TrailingSilence:
    """Measures the silence at the end of what was heard so far.

    Silence is what the simulator rules take for it: samples of zero, give or take a dither of 2 steps.
    """

    def __init__(self) -> None:
        self._silent = 0

    def feed(self, samples: Samples) -> None:
        """Take more sound: 16 kHz."""
        loud = np.flatnonzero((samples > 2) | (samples < -2))
        self._silent = len(samples) - 1 - int(loud[-1]) if len(loud) else self._silent + len(samples)

    @property
    def milliseconds(self) -> float:
        """Silence since the last sound."""
        return self._silent * 1000 / RATE


class Utterances:
    """Cuts sound at pauses. No I/O, no clock: the same sound gives the same cuts, however it is fed."""

    def __init__(self) -> None:
        self._sound: Samples = np.zeros(0, dtype=np.int16)  # the open utterance and what was not judged yet
        self._measured = 0  # frames of _sound that were judged
        self._levels: list[float] = []
        self._last_loud = -1  # the last frame that is no pause
        self.complete: deque[Samples] = deque()

    @property
    def open_sound(self) -> Samples | None:
        """The utterance that goes on; ``None`` during a pause."""
        return self._sound if self._last_loud >= 0 else None

    def feed(self, samples: Samples) -> None:
        """Take more sound; finished utterances appear in ``complete``."""
        self._sound = np.concatenate([self._sound, samples])
        while len(self._sound) >= (self._measured + 1) * _FRAME:
            frame = self._sound[self._measured * _FRAME : (self._measured + 1) * _FRAME].astype(np.float64)
            level = float(np.sqrt(np.mean(frame * frame)))
            self._levels.append(level)
            if level >= _QUIET:
                self._last_loud = self._measured
            self._measured += 1
            if self._last_loud < 0:
                # A pause before speech: keep 0.2 s of it, engines like to see a word begin.
                if self._measured > 10:
                    self._drop(1)
            elif self._measured - self._last_loud > _PAUSE_FRAMES:
                self._cut(self._measured)
            elif self._measured >= _MAX_FRAMES:
                tail = self._levels[-100:]  # 2 s
                self._cut(self._measured - len(tail) + 1 + int(np.argmin(tail)))

    def finish(self) -> None:
        """Declare the end: what is open becomes complete."""
        if self._last_loud >= 0:
            self.complete.append(self._sound)
        self._sound = np.zeros(0, dtype=np.int16)
        self._drop(self._measured)

    def _cut(self, frames: int) -> None:
        self.complete.append(self._sound[: frames * _FRAME].copy())
        self._drop(frames)

    def _drop(self, frames: int) -> None:
        self._sound = self._sound[frames * _FRAME :]
        self._levels = self._levels[frames:]
        self._measured -= frames
        loud = [i for i, level in enumerate(self._levels) if level >= _QUIET]
        self._last_loud = loud[-1] if loud else -1


class EngineRecognition:
    """Hears with an engine.

    Args:
        engine: does one job at a time.
        wants_interim: whether pieces that are replaced later are of use to the client.
    """

    def __init__(self, engine: SpeechEngine, *, wants_interim: bool) -> None:
        self._engine = engine
        self._wants_interim = wants_interim
        self._utterances = Utterances()
        self._is_finished = False
        self._changed = asyncio.Event()
        self._started = time.monotonic()
        self._fed = 0
        self._interim_at = 0

    def feed(self, samples: Samples) -> None:
        self._utterances.feed(samples)
        self._fed += len(samples)
        self._changed.set()

    def finish(self) -> None:
        self._utterances.finish()
        self._is_finished = True
        self._changed.set()

    async def pieces(self) -> AsyncIterator[Piece]:
        has_text = False
        while True:
            if self._utterances.complete:
                words = await self._transcribe(self._utterances.complete.popleft(), after_text=has_text)
                if words or self._wants_interim:  # an interim text that turned out to be noise is taken back
                    yield Piece(words)
                has_text = has_text or bool(words)
            elif self._is_finished:
                return
            elif (sound := self._sound_for_interim()) is not None:
                self._interim_at = self._fed
                words = await self._transcribe(sound, after_text=has_text)
                if words:
                    yield Piece(words, is_interim=True)
            else:
                self._changed.clear()
                await self._changed.wait()

    def _sound_for_interim(self) -> Samples | None:
        if not self._wants_interim or self._fed - self._interim_at < _INTERIM:
            return None
        # A client that sends a file at once has no use for interim text; hearing it would only delay the last word.
        if self._fed > (time.monotonic() - self._started) * RATE * 1.5 + RATE:
            return None
        sound = self._utterances.open_sound
        return sound.copy() if sound is not None and len(sound) <= _MAX_INTERIM else None

    async def _transcribe(self, sound: Samples, *, after_text: bool) -> tuple[str, ...]:
        words = [word.text for word in await self._engine.transcribe(sound.astype("<i2").tobytes())]
        return insert_spaces([word for word in words if word], after_text=after_text)


class CannedRecognition:
    """Hears nothing: a labelled transcript that states the length of the recording, a word every 0.4 s of sound."""

    def __init__(self, *, in_chinese: bool) -> None:
        self._in_chinese = in_chinese
        self._fed = 0
        self._is_finished = False
        self._changed = asyncio.Event()

    def feed(self, samples: Samples) -> None:
        self._fed += len(samples)
        self._changed.set()

    def finish(self) -> None:
        self._is_finished = True
        self._changed.set()

    async def pieces(self) -> AsyncIterator[Piece]:
        known = (
            ("【沙盒】", "没有安装", "语音识别引擎，", "这段录音长")
            if self._in_chinese
            else ("[sandbox]", " no speech recogniser", " is installed;", " this recording lasts")
        )
        said = 0
        while not self._is_finished:
            if said < len(known) and self._fed >= (said + 1) * _INTERIM:
                yield Piece((known[said],))
                said += 1
            else:
                self._changed.clear()
                await self._changed.wait()
        for word in known[said:]:
            yield Piece((word,))
        seconds = self._fed / RATE
        yield Piece((f" {seconds:.1f} ", "秒") if self._in_chinese else (f" {seconds:.1f}", " seconds"))


def insert_spaces(words: Sequence[str], *, after_text: bool = False) -> tuple[str, ...]:
    """Put a blank before each word that needs one: between Latin words, not between Chinese ones.

    Args:
        after_text: other text stands before the first word.
    """
    spaced = []
    last = "a" if after_text else ""
    for word in words:
        needs = bool(last) and last.isascii() and word[0].isascii() and word[0].isalnum()
        spaced.append(f" {word}" if needs else word)
        last = word[-1]
    return tuple(spaced)
