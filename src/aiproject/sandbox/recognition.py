"""Incremental speech recognition: pieces of text while the audio is still arriving.

Audio is split at pauses into utterances, and each utterance is transcribed as soon as it is complete. Text therefore
appears while the speaker continues, the last piece follows soon after the last word, and a long clip becomes several
small jobs for an engine that is shared with other calls.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from aiproject.sandbox.engines import SpeechEngine

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Samples = npt.NDArray[np.int16]

# numpy and soxr are imported by the functions that work on audio: a server that embeds the sandbox runs for days
# without any, and they take 15 MB.

__all__ = ["RATE", "CannedRecognition", "EngineRecognition", "Piece", "Recognition", "To16k", "TrailingSilence"]

RATE: Final = 16_000
"""Samples per second that the engines expect."""

_FRAME: Final = RATE // 50  # loudness is measured in frames of 20 ms
_QUIET: Final = 200.0  # root mean square below which a frame is a pause: about -44 dB of full scale
_PAUSE_FRAMES: Final = 30  # a pause of 0.6 s ends an utterance
_MAX_FRAMES: Final = 600  # so do 12 s, at the quietest frame of the last 2 s
_INTERIM: Final = RATE * 2 // 5  # interim text every 0.4 s of audio
_MAX_INTERIM: Final = RATE * 5  # no interim text beyond 5 s: transcribing a long utterance again and again is too slow


@dataclass(frozen=True)
class Piece:
    """Recognised words.

    Attributes:
        words: the words, each with the space that precedes it.
        is_interim: whether a later piece of the same utterance replaces this one.
    """

    words: tuple[str, ...]
    is_interim: bool = False


class Recognition(Protocol):
    """One recording: `feed` and `finish` take the audio as it arrives, while one reader iterates over `pieces`."""

    def feed(self, samples: Samples) -> None:
        """Add audio: 16-bit samples at 16 kHz."""

    def finish(self) -> None:
        """Mark the end of the audio."""

    def pieces(self) -> AsyncIterator[Piece]:
        """Yield the text piece by piece; ends after the last piece of a finished recording."""


class To16k:
    """Converts a stream of 16-bit PCM to 16 kHz. Args: ``rate``: samples per second of the input."""

    def __init__(self, rate: int) -> None:
        import soxr

        self._odd = b""
        self._stream = None if rate == RATE else soxr.ResampleStream(rate, RATE, 1, dtype="int16")

    def convert(self, pcm: bytes, *, is_last: bool = False) -> Samples:
        """Convert the next bytes. Half a sample is kept for the next call, and discarded at the end."""
        import numpy as np

        pcm = self._odd + pcm
        whole = len(pcm) & ~1
        self._odd = pcm[whole:]
        samples: Samples = np.frombuffer(pcm[:whole], dtype="<i2").astype(np.int16, copy=False)
        if self._stream is None:
            return samples
        converted: Samples = self._stream.resample_chunk(samples, last=is_last)
        return converted


class TrailingSilence:
    """Measures the silence at the end of the audio received so far.

    Silence means samples of zero, with a tolerance of 2 steps for dither.
    """

    def __init__(self) -> None:
        self._silent = 0

    def feed(self, samples: Samples) -> None:
        """Add audio: 16-bit samples at 16 kHz."""
        import numpy as np

        loud = np.flatnonzero((samples > 2) | (samples < -2))
        self._silent = len(samples) - 1 - int(loud[-1]) if len(loud) else self._silent + len(samples)

    @property
    def milliseconds(self) -> float:
        """Milliseconds of silence since the last sound."""
        return self._silent * 1000 / RATE


class Utterances:
    """Splits audio at pauses. The result depends on the audio alone, not on the sizes of the pieces fed."""

    def __init__(self) -> None:
        import numpy as np

        self._sound: Samples = np.zeros(0, dtype=np.int16)  # the open utterance and the audio not measured yet
        self._measured = 0  # frames of _sound that have been measured
        self._levels: list[float] = []
        self._last_loud = -1  # the last frame that is not a pause
        self.complete: deque[Samples] = deque()

    @property
    def open_sound(self) -> Samples | None:
        """The utterance in progress; ``None`` during a pause."""
        return self._sound if self._last_loud >= 0 else None

    def feed(self, samples: Samples) -> None:
        """Add audio; finished utterances are appended to ``complete``."""
        import numpy as np

        self._sound = np.concatenate([self._sound, samples])
        while len(self._sound) >= (self._measured + 1) * _FRAME:
            frame = self._sound[self._measured * _FRAME : (self._measured + 1) * _FRAME].astype(np.float64)
            level = float(np.sqrt(np.mean(frame * frame)))
            self._levels.append(level)
            if level >= _QUIET:
                self._last_loud = self._measured
            self._measured += 1
            if self._last_loud < 0:
                # A pause before speech: keep 0.2 s of it, because engines recognise a word better with its onset.
                if self._measured > 10:
                    self._drop(1)
            elif self._measured - self._last_loud > _PAUSE_FRAMES:
                self._cut(self._measured)
            elif self._measured >= _MAX_FRAMES:
                # Speech without a pause: split at the quietest frame, where a word boundary is most likely.
                tail = self._levels[-100:]  # 2 s
                self._cut(self._measured - len(tail) + 1 + int(np.argmin(tail)))

    def finish(self) -> None:
        """Mark the end of the audio: the open utterance becomes complete."""
        import numpy as np

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
    """Transcribes with an engine.

    Args:
        engine: the recogniser, which does one job at a time.
        wants_interim: whether the client can use pieces that later pieces replace.
    """

    def __init__(self, engine: SpeechEngine, *, wants_interim: bool) -> None:
        self._engine = engine
        self._wants_interim = wants_interim
        self._utterances = Utterances()
        self._is_finished = False
        self._changed = asyncio.Event()
        self._started = time.monotonic()
        self._samples_received = 0
        self._interim_at = 0

    def feed(self, samples: Samples) -> None:
        self._utterances.feed(samples)
        self._samples_received += len(samples)
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
                if words or self._wants_interim:  # an empty piece withdraws an interim text that turned out to be noise
                    yield Piece(words)
                has_text = has_text or bool(words)
            elif self._is_finished:
                return
            elif (sound := self._sound_for_interim()) is not None:
                self._interim_at = self._samples_received
                words = await self._transcribe(sound, after_text=has_text)
                if words:
                    yield Piece(words, is_interim=True)
            else:
                self._changed.clear()
                await self._changed.wait()

    def _sound_for_interim(self) -> Samples | None:
        if not self._wants_interim or self._samples_received - self._interim_at < _INTERIM:
            return None
        # A client that sends a whole file at once has no use for interim text, which would only delay the last word.
        if self._samples_received > (time.monotonic() - self._started) * RATE * 1.5 + RATE:
            return None
        sound = self._utterances.open_sound
        return sound.copy() if sound is not None and len(sound) <= _MAX_INTERIM else None

    async def _transcribe(self, sound: Samples, *, after_text: bool) -> tuple[str, ...]:
        words = [word.text for word in await self._engine.transcribe(sound.astype("<i2").tobytes())]
        return insert_spaces([word for word in words if word], after_text=after_text)


class CannedRecognition:
    """Returns a labelled transcript that states the length of the recording, a word for every 0.4 s of audio."""

    def __init__(self, *, in_chinese: bool) -> None:
        self._in_chinese = in_chinese
        self._samples_received = 0
        self._is_finished = False
        self._changed = asyncio.Event()

    def feed(self, samples: Samples) -> None:
        self._samples_received += len(samples)
        self._changed.set()

    def finish(self) -> None:
        self._is_finished = True
        self._changed.set()

    async def pieces(self) -> AsyncIterator[Piece]:
        opening = (
            ("【沙盒】", "没有安装", "语音识别引擎，", "这段录音长")
            if self._in_chinese
            else ("[sandbox]", " no speech recogniser", " is installed;", " this recording lasts")
        )
        sent = 0
        while not self._is_finished:
            if sent < len(opening) and self._samples_received >= (sent + 1) * _INTERIM:
                yield Piece((opening[sent],))
                sent += 1
            else:
                self._changed.clear()
                await self._changed.wait()
        for word in opening[sent:]:
            yield Piece((word,))
        seconds = self._samples_received / RATE
        yield Piece((f" {seconds:.1f} ", "秒") if self._in_chinese else (f" {seconds:.1f}", " seconds"))


def insert_spaces(words: Sequence[str], *, after_text: bool = False) -> tuple[str, ...]:
    """Prefix a space to each word that needs one: between Latin words, not between Chinese ones.

    Args:
        after_text: whether other text precedes the first word.
    """
    spaced = []
    last = "a" if after_text else ""
    for word in words:
        needs = bool(last) and last.isascii() and word[0].isascii() and word[0].isalnum()
        spaced.append(f" {word}" if needs else word)
        last = word[-1]
    return tuple(spaced)
