"""The program of the child process that runs an engine; `aiproject.sandbox.engines` starts it.

It is a process, not a thread, because PocketSphinx holds the interpreter's lock while it decodes (0.3 s for each second
of speech; a clip of 4 s was measured to stop every stream for 0.76 s), and because ending the process releases the
half gigabyte that RapidOCR uses.

Messages on standard input and output have a length of four bytes, big-endian, and a body in msgpack:
    request   ``bytes``: PCM 16 kHz/16-bit/mono little-endian, or a picture file
    answer    ``{"ok": [...]}`` with ``[text, start_ms, end_ms]`` or ``[text, score, [x, y, ... four corners]]``
              ``{"refused": "..."}`` where the engine cannot process the input
    first     ``{"ready": true}`` once the model is loaded, or ``{"broken": "..."}`` followed by the end
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from aiproject.sandbox.speech_models import find_speech_model

__all__ = ["main", "read_message", "write_message"]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Real messages are far smaller: a minute of audio has 2 MB, a picture at most 4 MB."""

_MIN_PCM_BYTES = 3200
"""A tenth of a second. A shorter clip holds no word, and PocketSphinx fails on empty input."""

Work = Callable[[bytes], list[list[Any]]]


def read_message(stream: BinaryIO) -> Any:
    """Read one message; ``None`` at the end of the stream.

    Raises:
        ValueError: the length is out of range or the body is not msgpack.
    """
    head = stream.read(4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack(">I", head)
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {length} bytes")
    body = stream.read(length)
    return None if len(body) < length else msgspec.msgpack.decode(body)


def write_message(stream: BinaryIO, message: Any) -> None:
    """Write one message and flush it."""
    body = msgspec.msgpack.encode(message)
    stream.write(struct.pack(">I", len(body)) + body)
    stream.flush()


def main(arguments: list[str]) -> int:
    """Load the engine, then answer until standard input ends. Arguments: the engine and, for sherpa, its folder."""
    # Ctrl-C in a terminal signals the whole process group. This process ends when its parent closes the pipe instead.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output that a library prints must not corrupt the stream of messages
    try:
        work = _ENGINES[arguments[0]](arguments[1] if len(arguments) > 1 else "")
    except Exception as error:  # noqa: BLE001 - whatever a native library raises at its start goes to the parent
        write_message(answers, {"broken": f"{type(error).__name__}: {error}"[:500]})
        return 1
    write_message(answers, {"ready": True})
    while (request := read_message(requests)) is not None:
        try:
            write_message(answers, {"ok": work(request)})
        except Exception as error:  # noqa: BLE001 - one bad picture must not end the engine for the next one
            write_message(answers, {"refused": f"{type(error).__name__}: {error}"[:500]})
    return 0


def _pocketsphinx(_model: str) -> Work:
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=16000, loglevel="FATAL")  # the en-us model that the package ships

    def transcribe(pcm: bytes) -> list[list[Any]]:
        if len(pcm) < _MIN_PCM_BYTES:
            return []
        # A new stream resets the noise estimate, which PocketSphinx otherwise carries over to the next utterance.
        decoder.start_stream()
        decoder.start_utt()
        # Decoding the whole utterance at once normalises by its own mean. This is more accurate and deterministic;
        # the live mode uses a mean that it carries over from earlier calls.
        decoder.process_raw(pcm, no_search=False, full_utt=True)
        decoder.end_utt()
        words: list[list[Any]] = []
        for segment in decoder.seg() or ():
            text = segment.word.split("(", 1)[0]  # "the(2)" is the second pronunciation of "the"
            if text and text[0] not in "<[+":  # <s>, <sil>, [NOISE], ++BREATH++
                words.append([text, segment.start_frame * 10, (segment.end_frame + 1) * 10])
        return words

    return transcribe


def _sherpa(folder: str) -> Work:
    import numpy as np
    import sherpa_onnx

    model = find_speech_model(Path(folder))
    make = getattr(sherpa_onnx.OfflineRecognizer, model.factory)
    recognizer = make(**model.arguments, num_threads=max(1, min(4, os.cpu_count() or 1)))

    def transcribe(pcm: bytes) -> list[list[Any]]:
        samples = np.frombuffer(pcm, dtype="<i2").astype(np.float32) / 32768.0
        stream = recognizer.create_stream()
        stream.accept_waveform(16000, samples)
        recognizer.decode_stream(stream)
        text = stream.result.text.strip()
        duration = len(samples) // 16
        return [[text, 0, duration]] if text else []

    return transcribe


def _rapidocr(_model: str) -> Work:
    import rapidocr

    models = Path(rapidocr.__file__).parent / "models"
    cores = max(1, min(4, os.cpu_count() or 1))
    # The paths are explicit because the package otherwise verifies its models and downloads those that differ.
    paths = {
        "Det.model_path": models / "PP-OCRv6_det_small.onnx",
        "Rec.model_path": models / "PP-OCRv6_rec_small.onnx",
        "Cls.model_path": models / "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    }
    for path in paths.values():
        if not path.is_file():
            raise FileNotFoundError(f"this version of rapidocr does not ship {path.name}")
    engine = rapidocr.RapidOCR(
        params={
            **{name: str(path) for name, path in paths.items()},
            "Global.log_level": "error",
            "EngineConfig.onnxruntime.intra_op_num_threads": cores,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )

    def read(picture: bytes) -> list[list[Any]]:
        result: Any = engine(picture)
        if result.txts is None or result.boxes is None:
            return []
        return [
            [str(text), float(score), [float(n) for corner in box for n in corner]]
            for text, score, box in zip(result.txts, result.scores, result.boxes, strict=True)
        ]

    return read


_ENGINES: dict[str, Callable[[str], Work]] = {"pocketsphinx": _pocketsphinx, "sherpa": _sherpa, "rapidocr": _rapidocr}
