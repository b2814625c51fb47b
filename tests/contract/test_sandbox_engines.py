"""The real engines, offline, in their child processes: what they hear and read in the example files."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from aiproject.errors import Misconfigured
from aiproject.sandbox.engines import (
    EngineFailed,
    EngineRefused,
    ProcessPictures,
    ProcessSpeech,
    find_picture_engine,
    find_speech_engine,
)
from aiproject.sandbox.running import SandboxAddress, SandboxThread
from aiproject.sandbox.speech_models import find_speech_model
from sandbox_client import FAST, dictate, dictation_frames, large_dictation_frames, post, signed, transcript

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HELLO = "hello nice to meet you"

hears = pytest.mark.skipif(
    importlib.util.find_spec("pocketsphinx") is None, reason="pocketsphinx is not installed (aiproject[local])"
)
reads = pytest.mark.skipif(
    importlib.util.find_spec("rapidocr") is None, reason="rapidocr is not installed (aiproject[local])"
)


def hello() -> bytes:
    return (EXAMPLES / "hello.pcm").read_bytes()


@pytest.fixture(scope="module")
def speech() -> Iterator[ProcessSpeech]:
    engine = ProcessSpeech("pocketsphinx")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def pictures() -> Iterator[ProcessPictures]:
    engine = ProcessPictures()
    yield engine
    engine.close()


@hears
class TestPocketSphinx:
    async def test_hears_the_example_the_same_each_time(self, speech: ProcessSpeech) -> None:
        first = await speech.transcribe(hello())
        second = await speech.transcribe(hello())
        assert " ".join(word.text for word in first) == HELLO
        assert first == second
        assert all(0 <= word.start_ms < word.end_ms <= 2100 for word in first)

    @pytest.mark.parametrize("sound", [b"", b"\x01\x00", bytes(3001), bytes(range(256)) * 20 + b"\x01"])
    async def test_survives_what_is_no_speech(self, speech: ProcessSpeech, sound: bytes) -> None:
        assert isinstance(await speech.transcribe(sound), list)

    async def test_noise_of_one_call_does_not_change_what_the_next_is_heard_as(self, speech: ProcessSpeech) -> None:
        before = await speech.transcribe(hello())
        await speech.transcribe(bytes(range(256)) * 20 + b"\x01")
        assert await speech.transcribe(hello()) == before

    @pytest.mark.serial
    async def test_other_work_goes_on(self, speech: ProcessSpeech) -> None:
        """The reason for a process: in a thread, PocketSphinx stops every stream of the server while it decodes."""
        await speech.transcribe(b"")  # the start of the process is over
        gaps = []
        job = asyncio.create_task(speech.transcribe(hello() * 2))
        while not job.done():
            before = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - before)
        await job
        assert len(gaps) > 10
        assert sorted(gaps)[len(gaps) // 2] < 0.05

    async def test_a_dead_process_is_replaced(self) -> None:
        engine = ProcessSpeech("pocketsphinx")
        try:
            await engine.transcribe(b"")
            process = engine._process._process
            assert process is not None
            process.kill()
            process.wait()
            assert " ".join(word.text for word in await engine.transcribe(hello())) == HELLO
            assert engine._process._process is not process
        finally:
            engine.close()
        with pytest.raises(EngineFailed):
            await engine.transcribe(b"")

    async def test_close_while_it_works(self) -> None:
        engine = ProcessSpeech("pocketsphinx")
        await engine.transcribe(b"")
        process = engine._process._process
        job = asyncio.create_task(engine.transcribe(hello() * 20))
        await asyncio.sleep(0.2)
        engine.close()
        with pytest.raises(EngineFailed):
            await job
        assert process is not None
        assert process.poll() is not None

    async def test_through_the_sandbox(self, speech: ProcessSpeech) -> None:
        with SandboxThread(replace(FAST, speech=speech)) as address:
            plain, _ = await dictate(address, dictation_frames(address, hello(), language="en_us"))
            corrected, _ = await dictate(address, dictation_frames(address, hello(), dwa="wpgs"))
            large, _ = await dictate(
                address, large_dictation_frames(address, hello()), url=address.large_model_dictation_url
            )
        assert [transcript(results) for results in (plain, corrected, large)] == [HELLO] * 3

    async def test_8_khz(self, speech: ProcessSpeech) -> None:
        """The upper half of the spectrum is lost; most words survive it."""
        import numpy as np
        import soxr

        narrow = soxr.resample(np.frombuffer(hello(), dtype="<i2"), 16000, 8000).astype("<i2").tobytes()
        with SandboxThread(replace(FAST, speech=speech)) as address:
            results, _ = await dictate(address, dictation_frames(address, narrow, rate=8000, language="en_us"))
        assert len(set(transcript(results).split()) & set(HELLO.split())) >= 2

    def test_the_sandbox_finds_it(self) -> None:
        engine = find_speech_engine()
        assert engine is not None
        assert "PocketSphinx" in engine.name
        engine.close()


@reads
class TestRapidOcr:
    async def test_reads_the_example(self, pictures: ProcessPictures) -> None:
        lines = await pictures.read((EXAMPLES / "receipt.jpg").read_bytes())
        text = [line.text for line in lines]
        assert text[0] == "青石书店"
        assert "Fountain Pen" in " ".join(text)
        assert "106.50" in text[-3]
        tops = [min(line.box[1::2]) for line in lines]
        assert tops == sorted(tops)

    @pytest.mark.parametrize("kind", ["PNG", "BMP"])
    async def test_other_formats_and_rows(self, pictures: ProcessPictures, kind: str) -> None:
        image = Image.new("RGB", (700, 200), "white")
        draw = ImageDraw.Draw(image)
        font = ImageFont.load_default(40)
        draw.text((420, 22), "42.50", fill=0, font=font)
        draw.text((20, 20), "Total", fill=0, font=font)
        draw.text((20, 110), "Thank you", fill=0, font=font)
        file = io.BytesIO()
        image.save(file, kind)
        assert [line.text for line in await pictures.read(file.getvalue())] == ["Total 42.50", "Thank you"]

    async def test_no_text(self, pictures: ProcessPictures) -> None:
        file = io.BytesIO()
        Image.new("RGB", (300, 200), "white").save(file, "PNG")
        assert await pictures.read(file.getvalue()) == []

    @pytest.mark.parametrize("file", [b"", b"\xff\xd8\xff\xe0 no picture", b"BM" + bytes(60)])
    async def test_damaged_files_are_refused_and_the_engine_lives(self, pictures: ProcessPictures, file: bytes) -> None:
        with pytest.raises(EngineRefused):
            await pictures.read(file)
        assert await pictures.read((EXAMPLES / "receipt.jpg").read_bytes())

    def test_through_the_sandbox(self, pictures: ProcessPictures) -> None:
        with SandboxThread(replace(FAST, pictures=pictures)) as address:
            status, answer = ask(address, (EXAMPLES / "receipt.jpg").read_bytes())
            assert status == 200
            text = json.loads(base64.b64decode(answer["payload"]["recognizeDocumentRes"]["text"]))["whole_text"]
            assert text.startswith("青石书店\nBluestone Books\n")
            assert ask(address, b"\xff\xd8\xff\xe0 no picture")[1]["header"]["code"] == 10009

    def test_the_sandbox_finds_it(self) -> None:
        engine = find_picture_engine()
        assert "RapidOCR" in engine.name
        engine.close()


def ask(address: SandboxAddress, image: bytes) -> tuple[int, dict[str, Any]]:
    body = {
        "header": {"app_id": address.app_id, "status": 3},
        "parameter": {"hh_ocr_recognize_doc": {}},
        "payload": {"image": {"encoding": "jpg", "image": base64.b64encode(image).decode(), "status": 3}},
    }
    status, answer, _ = post(signed(address, address.ocr_url, method="POST"), json.dumps(body).encode())
    return status, json.loads(answer)


class TestSpeechModels:
    @pytest.mark.parametrize(
        ("folder", "files", "layout", "chosen"),
        [
            (
                "zipformer",
                ["encoder-1.onnx", "encoder-1.int8.onnx", "decoder-1.onnx", "joiner-1.onnx", "tokens.txt"],
                "transducer",
                {"encoder": "encoder-1.int8.onnx", "decoder": "decoder-1.onnx", "joiner": "joiner-1.onnx"},
            ),
            (
                "sense-voice-zh-en",
                ["model.int8.onnx", "model.onnx", "tokens.txt"],
                "sense-voice",
                {"model": "model.int8.onnx"},
            ),
            ("a-paraformer", ["model.onnx", "tokens.txt"], "paraformer", {"paraformer": "model.onnx"}),
            (
                "whisper-tiny",
                ["tiny-encoder.onnx", "tiny-decoder.onnx", "tiny-tokens.txt"],
                "whisper",
                {"encoder": "tiny-encoder.onnx", "decoder": "tiny-decoder.onnx", "tokens": "tiny-tokens.txt"},
            ),
        ],
    )
    def test_layouts(self, tmp_path: Path, folder: str, files: list[str], layout: str, chosen: dict[str, str]) -> None:
        home = tmp_path / folder
        home.mkdir()
        for name in files:
            (home / name).write_bytes(b"")
        model = find_speech_model(home)
        assert model.layout == layout
        assert {name: Path(str(model.arguments[name])).name for name in chosen} == chosen

    def test_layout_said_in_a_file(self, tmp_path: Path) -> None:
        for name in ("model.onnx", "tokens.txt"):
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(Misconfigured, match="SPEECH_MODEL_UNKNOWN"):
            find_speech_model(tmp_path)
        (tmp_path / "layout.txt").write_text("paraformer\n")
        assert find_speech_model(tmp_path).layout == "paraformer"

    def test_package_that_is_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        home = tmp_path / "paraformer"
        home.mkdir()
        for name in ("model.onnx", "tokens.txt"):
            (home / name).write_bytes(b"")
        monkeypatch.setattr("aiproject.sandbox.engines._installed", lambda module: False)
        with pytest.raises(Misconfigured, match="SPEECH_PACKAGE_MISSING"):
            find_speech_engine(home)

    async def test_engine_that_cannot_be_loaded_says_why(self, tmp_path: Path) -> None:
        engine = ProcessSpeech("sherpa", tmp_path)
        try:
            with pytest.raises(EngineFailed, match="cannot be loaded"):
                await engine.transcribe(bytes(32000))
        finally:
            engine.close()
