"""The sandbox's engines for speech and pictures, and the canned implementations that replace them.

An engine runs in a child process (see `aiproject.sandbox.engine_worker`). The first call that needs it starts the
process, which does one job at a time. Without an engine, the sandbox answers a labelled text that says so.
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

# "python -m" would warn that the package has already imported the module it is about to run.
_START: Final = "import sys; from aiproject.sandbox.engine_worker import main; sys.exit(main(sys.argv[1:]))"

_JOB_SECONDS: Final = 120.0
"""Seconds after which a job's process is killed; 60 s of speech take 20 s, a full picture 5 s on two slow cores."""


class EngineFailed(Exception):
    """The engine's process failed; the next job starts a new one."""


class EngineRefused(Exception):
    """The engine cannot process this input; it is ready for the next job."""


@dataclass(frozen=True)
class Word:
    """A recognised word; times in milliseconds from the start of the audio of the job."""

    text: str
    start_ms: int = 0
    end_ms: int = 0


@dataclass(frozen=True)
class Line:
    """A recognised line of text; ``box`` holds four corners x, y in pixels, clockwise from the upper left."""

    text: str
    box: tuple[float, ...] = (0.0,) * 8


class SpeechEngine(Protocol):
    """A speech recogniser. ``name`` is displayed to users."""

    name: str

    async def transcribe(self, pcm: bytes) -> list[Word]:
        """Transcribe speech: PCM, 16 kHz, 16 bits, mono. Raises `EngineFailed` or `EngineRefused`."""

    def close(self) -> None:
        """Release all resources; may be called more than once."""


class PictureEngine(Protocol):
    """A text recogniser for pictures. ``name`` is displayed to users."""

    name: str

    async def read(self, picture: bytes) -> list[Line]:
        """Read a picture file; the lines are in reading order. Raises `EngineFailed` or `EngineRefused`."""

    def close(self) -> None:
        """Release all resources; may be called more than once."""


class _EngineProcess:
    """A child process that runs one job after the other; the first job starts it, a failure replaces it."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()  # guards _process and _closed against close() from another thread
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"engine-{arguments[0]}")

    async def work(self, job: bytes) -> list[Any]:
        """Run one job and return its answer; jobs wait in a queue."""
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
        # Runs in the executor's only thread, so that requests and answers on the pipes cannot interleave.
        process, stdin, stdout = self._running()
        timer = threading.Timer(_JOB_SECONDS, process.kill)
        timer.daemon = True
        timer.start()
        try:
            write_message(stdin, job)
            answer = read_message(stdout)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            self._discard(process)
            raise EngineFailed(f"the engine's process broke down: {type(error).__name__}") from error
        finally:
            timer.cancel()
        if not isinstance(answer, dict):
            self._discard(process)
            raise EngineFailed("the engine's process ended")
        if "refused" in answer:
            raise EngineRefused(str(answer["refused"]))
        found = answer.get("ok")
        if not isinstance(found, list):
            self._discard(process)
            raise EngineFailed("the engine answered nonsense")
        return found

    def _running(self) -> tuple[subprocess.Popen[bytes], BinaryIO, BinaryIO]:
        with self._lock:
            if self._closed:
                raise EngineFailed("the engine is closed")
            if self._process is not None:
                if self._process.poll() is None:
                    return self._process, *_pipes(self._process)
                _reap(self._process)  # it ended between two jobs
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
            self._discard(process)
            raise EngineFailed("the engine's process did not start") from error
        finally:
            timer.cancel()
        if not isinstance(first, dict) or not first.get("ready"):
            self._discard(process)
            reason = first.get("broken", "") if isinstance(first, dict) else ""
            raise EngineFailed(f"the engine cannot be loaded: {reason or 'its process ended'}")
        return process, *_pipes(process)

    def _discard(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if self._process is process:
                self._process = None
        process.kill()
        _reap(process)


def _child_environment() -> dict[str, str]:
    """Return our environment without the product's settings, which hold secrets that an engine does not need."""
    # The child must find this package even where only sys.path names it, as in tests.
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIPROJECT_")}
    return {**environment, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _pipes(process: subprocess.Popen[bytes]) -> tuple[BinaryIO, BinaryIO]:
    """Return standard input and output; both exist because Popen was called with PIPE."""
    return cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)


def _reap(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    for pipe in _pipes(process):
        with contextlib.suppress(OSError):  # closing flushes, which fails once the reader of the pipe has gone
            pipe.close()


class ProcessSpeech:
    """A speech recogniser in a child process.

    Args:
        kind: ``pocketsphinx`` or ``sherpa``.
        model: the folder of the model, for ``sherpa``.
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
    """RapidOCR with the models that its own package ships, in a child process."""

    name = "RapidOCR (PP-OCRv6 small)"

    def __init__(self) -> None:
        self._process = _EngineProcess(["rapidocr"])

    async def read(self, picture: bytes) -> list[Line]:
        found = await self._process.work(picture)
        return reading_order([Line(str(text), tuple(float(n) for n in box)) for text, _score, box in found])

    def close(self) -> None:
        self._process.close()


class CannedPictures:
    """Answers from a table keyed by the SHA-256 of the file, with a labelled default text. It reads no pictures.

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
        """Do nothing: there are no resources to release."""


def find_speech_engine(model: Path | None = None) -> SpeechEngine | None:
    """Return the best recogniser that is installed; ``None``: the sandbox answers a labelled transcript.

    Args:
        model: folder of a sherpa-onnx model (``AIPROJECT_SANDBOX_SPEECH_MODEL``).

    Raises:
        Misconfigured: the named model cannot be used.
    """
    if model is not None:
        find_speech_model(model)
        if not _installed("sherpa_onnx"):
            raise Misconfigured(Detail.SPEECH_PACKAGE_MISSING)
        return ProcessSpeech("sherpa", model)
    return ProcessSpeech("pocketsphinx") if _installed("pocketsphinx") else None


def find_picture_engine(*, is_real: bool = True) -> PictureEngine:
    """Return RapidOCR where it is installed and ``is_real`` is true, otherwise `CannedPictures`."""
    if is_real and _installed("rapidocr") and _installed("onnxruntime"):
        return ProcessPictures()
    return CannedPictures()


def reading_order(boxes: Sequence[Line]) -> list[Line]:
    """Sort pieces of text into reading order: rows from top to bottom, each row from left to right, joined by spaces.

    Two pieces belong to one row if at least half the height of the smaller one lies within the larger one. This suits
    receipts ("Total 42.50"); the columns of a page in two columns are mixed, because its rows are read across.
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
