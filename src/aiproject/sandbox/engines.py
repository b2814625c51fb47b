"""The engines that hear and read for the sandbox, and their plain stand-ins.

A real engine runs in a child process (see `engine_worker`), is started by the first call that needs it and does one
job at a time. Without an engine, the sandbox answers a labelled text and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, cast

import msgspec

from aiproject.codes import Detail
from aiproject.errors import Misconfigured
from aiproject.sandbox.engine_worker import read_message, write_message
from aiproject.sandbox.speech_models import find_speech_model

__all__ = [
    "EngineFailed",
    "EngineRefused",
    "Line",
    "PictureEngine",
    "SpeechEngine",
    "Word",
    "find_picture_engine",
    "find_speech_engine",
]

# Not "-m", which warns of a module that its own package has imported already.
_START: Final = "import sys; from aiproject.sandbox.engine_worker import main; sys.exit(main(sys.argv[1:]))"

_JOB_SECONDS: Final = 120.0
"""After so long a job's process is ended; 60 s of speech take 20 s, a full picture 5 s on two slow cores."""


class EngineFailed(Exception):
    """The engine broke down; the next job gets a new process."""


class EngineRefused(Exception):
    """The engine cannot make sense of this input; it is ready for the next."""


@dataclass(frozen=True)
class Word:
    """A word that was heard; times in milliseconds from the start of the audio that was handed in."""

    text: str
    start_ms: int = 0
    end_ms: int = 0


@dataclass(frozen=True)
class Line:
    """A line that was read; ``box`` holds four corners x, y in pixels, clockwise from the upper left."""

    text: str
    box: tuple[float, ...] = (0.0,) * 8


class SpeechEngine(Protocol):
    """What hears. ``name`` is shown to people."""

    name: str

    async def transcribe(self, pcm: bytes) -> list[Word]:
        """Write down speech: PCM, 16 kHz, 16-bit, mono. Raises `EngineFailed` or `EngineRefused`."""

    def close(self) -> None:
        """Give everything back; may be called twice."""


class PictureEngine(Protocol):
    """What reads. ``name`` is shown to people."""

    name: str

    async def read(self, picture: bytes) -> list[Line]:
        """Read a picture file, lines in reading order. Raises `EngineFailed` or `EngineRefused`."""

    def close(self) -> None:
        """Give everything back; may be called twice."""


class _EngineProcess:
    """A child process that works off one job after the other; started by the first, started anew after a failure."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()  # guards _process and _closed against close() from another thread
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"engine-{arguments[0]}")

    async def work(self, job: bytes) -> list[Any]:
        """Hand one job in and wait for its answer; jobs queue up."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, job)
        except RuntimeError as error:  # the executor was shut down
            raise EngineFailed("the engine is closed") from error

    def close(self) -> None:
        with self._lock:
            self._closed = True
            process = self._process
        self._thread.shutdown(wait=False, cancel_futures=True)
        if process is not None:
            process.kill()
            _reap(process)

    def _work(self, job: bytes) -> list[Any]:
        process, stdin, stdout = self._running()
        timer = threading.Timer(_JOB_SECONDS, process.kill)
        timer.daemon = True
        timer.start()
        try:
            write_message(stdin, job)
            answer = read_message(stdout)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            self._forget(process)
            raise EngineFailed(f"the engine's process broke down: {type(error).__name__}") from error
        finally:
            timer.cancel()
        if not isinstance(answer, dict):
            self._forget(process)
            raise EngineFailed("the engine's process ended")
        if "refused" in answer:
            raise EngineRefused(str(answer["refused"]))
        found = answer.get("ok")
        if not isinstance(found, list):
            self._forget(process)
            raise EngineFailed("the engine answered nonsense")
        return found

    def _running(self) -> tuple[subprocess.Popen[bytes], BinaryIO, BinaryIO]:
        with self._lock:
            if self._closed:
                raise EngineFailed("the engine is closed")
            if self._process is not None:
                if self._process.poll() is None:
                    return self._process, *_pipes(self._process)
                _reap(self._process)  # it died between two jobs
            self._process = process = subprocess.Popen(  # noqa: S603 - our own code, arguments from our own code
                [sys.executable, "-P", "-c", _START, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_child_environment(),
            )
        timer = threading.Timer(_JOB_SECONDS, process.kill)
        timer.daemon = True
        timer.start()
        try:
            first = read_message(_pipes(process)[1])
        except (OSError, ValueError, msgspec.DecodeError) as error:
            self._forget(process)
            raise EngineFailed("the engine's process did not start") from error
        finally:
            timer.cancel()
        if not isinstance(first, dict) or not first.get("ready"):
            self._forget(process)
            reason = first.get("broken", "") if isinstance(first, dict) else ""
            raise EngineFailed(f"the engine cannot be loaded: {reason or 'its process ended'}")
        return process, *_pipes(process)

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if self._process is process:
                self._process = None
        process.kill()
        _reap(process)


def _child_environment() -> dict[str, str]:
    """Ours without the product's settings, which hold secrets that an engine has no use for."""
    # The child must find this package, also where only sys.path knows of it (tests).
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIPROJECT_")}
    return {**environment, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _pipes(process: subprocess.Popen[bytes]) -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output; Popen was told to make both."""
    return cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)


def _reap(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    for pipe in _pipes(process):
        with contextlib.suppress(OSError):  # closing flushes into a pipe that nobody reads any more
            pipe.close()


class ProcessSpeech:
    """A speech recogniser in a child process.

    Args:
        kind: ``pocketsphinx`` or ``sherpa``.
        model: the model's folder, for ``sherpa``.
    """

    def __init__(self, kind: str, model: Path | None = None) -> None:
        self.name = {
            "pocketsphinx": "PocketSphinx (English, rough)",
            "sherpa": f"sherpa-onnx ({model.name if model else ''})",
        }[kind]
        self._process = _EngineProcess([kind] if model is None else [kind, str(model)])

    async def transcribe(self, pcm: bytes) -> list[Word]:
        return [Word(str(text), int(start), int(end)) for text, start, end in await self._process.work(pcm)]

    def close(self) -> None:
        self._process.close()


class ProcessPictures:
    """RapidOCR with the models of its own package, in a child process."""

    name = "RapidOCR (PP-OCRv6 small)"

    def __init__(self) -> None:
        self._process = _EngineProcess(["rapidocr"])

    async def read(self, picture: bytes) -> list[Line]:
        found = await self._process.work(picture)
        return reading_order([Line(str(text), tuple(float(n) for n in box)) for text, _score, box in found])

    def close(self) -> None:
        self._process.close()


class CannedPictures:
    """Answers from a table keyed by the SHA-256 of the file, with a labelled default: reads nothing.

    Args:
        texts: text by lower-case hexadecimal SHA-256.
    """

    name = "none (labelled default text)"

    def __init__(self, texts: dict[str, str] | None = None) -> None:
        self._texts = dict(texts or {})

    async def read(self, picture: bytes) -> list[Line]:
        digest = hashlib.sha256(picture).hexdigest()
        text = self._texts.get(digest)
        if text is None:
            text = f"【沙盒】没有安装文字识别引擎\n[sandbox] no OCR engine installed\nSHA-256 {digest}"
        return [
            Line(line, (10.0, 10.0 + 40 * i, 400.0, 10.0 + 40 * i, 400.0, 44.0 + 40 * i, 10.0, 44.0 + 40 * i))
            for i, line in enumerate(text.splitlines())
        ]

    def close(self) -> None:
        """There is nothing to give back."""


def find_speech_engine(model: Path | None = None) -> SpeechEngine | None:
    """Return the best recogniser that is installed; ``None``: the sandbox answers a labelled transcript.

    Args:
        model: folder of a sherpa-onnx model (``AIPROJECT_SANDBOX_SPEECH_MODEL``).

    Raises:
        Misconfigured: a model is named and cannot be used.
    """
    if model is not None:
        find_speech_model(model)
        if not _installed("sherpa_onnx"):
            raise Misconfigured(Detail.SPEECH_PACKAGE_MISSING)
        return ProcessSpeech("sherpa", model)
    return ProcessSpeech("pocketsphinx") if _installed("pocketsphinx") else None


def find_picture_engine(*, is_real: bool = True) -> PictureEngine:
    """Return RapidOCR where it is installed and wanted, else `CannedPictures`."""
    if is_real and _installed("rapidocr") and _installed("onnxruntime"):
        return ProcessPictures()
    return CannedPictures()


def reading_order(boxes: Sequence[Line]) -> list[Line]:
    """Order pieces of text as one reads: rows from the top, in a row from the left, a row joined by blanks.

    Two pieces stand in one row if half the height of the smaller lies within the larger. Receipts read well like
    that ("Total 42.50"); pages in two columns do not, and come row by row.
    """
    rows: list[list[Line]] = []
    for piece in sorted(boxes, key=lambda line: (_top(line) + _bottom(line)) / 2):
        for row in reversed(rows):
            first = row[0]
            shared = min(_bottom(first), _bottom(piece)) - max(_top(first), _top(piece))
            if shared >= 0.5 * min(_bottom(first) - _top(first), _bottom(piece) - _top(piece)) and shared > 0:
                row.append(piece)
                break
        else:
            rows.append([piece])
    return [_join(sorted(row, key=_left)) for row in rows]


def _join(row: Sequence[Line]) -> Line:
    if len(row) == 1:
        return row[0]
    left, top = min(map(_left, row)), min(map(_top, row))
    right, bottom = max(max(line.box[0::2]) for line in row), max(map(_bottom, row))
    return Line(" ".join(line.text for line in row), (left, top, right, top, right, bottom, left, bottom))


def _left(line: Line) -> float:
    return min(line.box[0::2])


def _top(line: Line) -> float:
    return min(line.box[1::2])


def _bottom(line: Line) -> float:
    return max(line.box[1::2])


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
