"""The sandbox's dictation over real sockets, both protocols (simulator rules of dictation), without an engine."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import websockets

from aiproject.sandbox.engines import EngineFailed, Word
from aiproject.sandbox.platform import SandboxOptions
from aiproject.sandbox.running import SandboxAddress, SandboxThread
from sandbox_client import (
    FAST,
    connect,
    control,
    dictate,
    dictation_frames,
    large_dictation_frames,
    read_all,
    transcript,
)

SECOND = 32_000  # bytes


def noise(seconds: float, *, rate: int = 16_000) -> bytes:
    """Sound that is no silence."""
    samples = np.random.default_rng(7).integers(-8000, 8000, int(seconds * rate))
    return samples.astype("<i2").tobytes()


class Parrot:
    """An engine that hears a word in each half second of an utterance; deterministic and quick."""

    name = "parrot"

    def __init__(self, *, breaks: bool = False) -> None:
        self.breaks = breaks
        self.heard: list[float] = []

    async def transcribe(self, pcm: bytes) -> list[Word]:
        if self.breaks:
            raise EngineFailed("broken on purpose")
        self.heard.append(len(pcm) / SECOND)
        return [Word(f"word{i}") for i in range(max(1, len(pcm) // (SECOND // 2)))]

    def close(self) -> None:
        """There is nothing to give back."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxThread]:
    thread = SandboxThread(replace(FAST, dictation_gap=0.4, linger=0.5))
    thread.start()
    yield thread
    thread.stop()


@pytest.fixture
def address(sandbox: SandboxThread) -> SandboxAddress:
    sandbox.faults.clear()
    assert sandbox._address is not None
    return sandbox._address


def with_engine(engine: Parrot, **options: Any) -> SandboxThread:
    return SandboxThread(replace(SandboxOptions(use_engines=False, speech=engine), **options))


class TestClassic:
    async def test_labelled_transcript_states_the_length(self, address: SandboxAddress) -> None:
        results, _ = await dictate(address, dictation_frames(address, noise(2.5)))
        assert transcript(results) == "【沙盒】没有安装语音识别引擎，这段录音长 2.5 秒"
        assert [result["code"] for result in results] == [0] * len(results)
        assert [result["data"]["status"] for result in results] == [0, *[1] * (len(results) - 2), 2]
        assert [result["data"]["result"]["sn"] for result in results] == list(range(1, len(results) + 1))
        assert [result["data"]["result"]["ls"] for result in results] == [False] * (len(results) - 1) + [True]
        assert len({result["sid"] for result in results}) == 1
        assert not any("pgs" in result["data"]["result"] for result in results)

    async def test_8_khz_and_english(self, address: SandboxAddress) -> None:
        frames = dictation_frames(address, noise(3, rate=8000), rate=8000, language="en_us")
        results, _ = await dictate(address, frames)
        assert transcript(results) == "[sandbox] no speech recogniser is installed; this recording lasts 3.0 seconds"

    async def test_results_come_while_sound_arrives(self, address: SandboxAddress) -> None:
        frames = dictation_frames(address, noise(1), size=9600)
        async with connect(address, address.dictation_url) as ws:
            for frame in frames[:2]:  # 0.6 s
                await ws.send(json.dumps(frame))
            first = json.loads(await asyncio.wait_for(ws.recv(), 2))
        assert first["data"]["status"] == 0

    async def test_corrections(self, address: SandboxAddress) -> None:
        results, _ = await dictate(address, dictation_frames(address, noise(1), dwa="wpgs"))
        kinds = [result["data"]["result"]["pgs"] for result in results]
        assert {"apd", "rpl"} == set(kinds)
        assert transcript(results) == "【沙盒】没有安装语音识别引擎，这段录音长 1.0 秒"

    async def test_corrections_without_a_licence_are_ignored(self) -> None:
        with SandboxThread(replace(FAST, is_wpgs_licensed=False)) as address:
            results, _ = await dictate(address, dictation_frames(address, noise(1), dwa="wpgs"))
            assert not any("pgs" in result["data"]["result"] for result in results)

    async def test_silence_ends_the_utterance_while_the_client_still_sends(self, address: SandboxAddress) -> None:
        frames = dictation_frames(address, noise(1) + bytes(3 * SECOND), vad_eos=1000)
        async with connect(address, address.dictation_url) as ws:
            for frame in frames[:-4]:  # the last second of silence and the last frame stay unsent
                await ws.send(json.dumps(frame))
            results: list[dict[str, Any]] = []
            while not results or results[-1]["data"]["status"] != 2:
                results.append(json.loads(await ws.recv()))
            await ws.send(json.dumps(frames[-2]))
            late = json.loads(await ws.recv())
        assert 2.0 <= float(transcript(results).split()[-2]) <= 2.3
        assert late["code"] == 10101

    async def test_late_sound_after_the_clients_own_end(self, address: SandboxAddress) -> None:
        control(address, "POST", "/faults", {"service": "dictation", "fault": "slow", "seconds": 0.2})
        frames = dictation_frames(address, noise(0.5))
        results, _ = await dictate(address, [*frames, frames[1]])
        assert results[-1]["code"] == 10165

    async def test_stays_open_until_the_client_closes(self, address: SandboxAddress) -> None:
        async with connect(address, address.dictation_url) as ws:
            for frame in dictation_frames(address, noise(0.1)):
                await ws.send(json.dumps(frame))
            while json.loads(await ws.recv())["data"]["status"] != 2:
                pass
            ended = time.monotonic()
            with pytest.raises(websockets.ConnectionClosedOK):
                await ws.recv()
        assert time.monotonic() - ended > 0.4  # the linger time

    async def test_over_60_seconds(self, address: SandboxAddress) -> None:
        frames = dictation_frames(address, bytes(range(256)) * 7600, size=9600)  # 60.8 s
        results, ws = await dictate(address, frames)
        assert results[-1]["code"] == 10114
        assert ws.close_code == 1000

    async def test_exactly_60_seconds(self, address: SandboxAddress) -> None:
        results, _ = await dictate(address, dictation_frames(address, b"\x10\x20" * 960_000, size=9600))
        assert transcript(results).endswith(" 60.0 秒")

    async def test_gap(self, address: SandboxAddress) -> None:
        async with connect(address, address.dictation_url) as ws:
            await ws.send(json.dumps(dictation_frames(address, noise(0.1))[0]))
            started = time.monotonic()
            assert json.loads(await ws.recv())["code"] == 10200
            with pytest.raises(websockets.ConnectionClosedOK):
                await ws.recv()
        assert 0.3 < time.monotonic() - started < 2

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"common": {}}, 10313),
            ({"common": {"app_id": "foreign"}}, 10313),
            ({"business": {"language": "tlh", "domain": "iat", "accent": "x"}}, 11200),
            ({"data": {"status": 1, "format": "audio/L16;rate=16000", "encoding": "raw", "audio": ""}}, 10165),
            ({"data": {"status": 0, "format": "audio/L16;rate=16000", "encoding": "raw", "audio": "!"}}, 10161),
            ({"data": {"status": 0, "format": "audio/L16;rate=16000", "encoding": "raw", "audio": "A" * 13004}}, 10163),
            ({"data": {"status": 0, "format": "audio/L16;rate=44100", "encoding": "raw", "audio": ""}}, 10006),
        ],
    )
    async def test_refusals(self, address: SandboxAddress, change: dict[str, Any], code: int) -> None:
        first = dictation_frames(address, noise(0.1))[0] | change
        results, ws = await dictate(address, [first])
        assert [result["code"] for result in results] == [code]
        assert (ws.close_code, ws.close_reason) == (1000, results[0]["message"][:123])

    async def test_not_json(self, address: SandboxAddress) -> None:
        results, _ = await dictate(address, ["{"])
        assert results[0]["code"] == 10160


class TestLargeModel:
    async def test_transcript(self, address: SandboxAddress) -> None:
        results, _ = await dictate(
            address, large_dictation_frames(address, noise(1)), url=address.large_model_dictation_url
        )
        assert results[0] == {
            "header": {"code": 0, "message": "success", "sid": results[0]["header"]["sid"], "status": 0}
        }
        assert transcript(results) == "【沙盒】没有安装语音识别引擎，这段录音长 1.0 秒"
        assert [result["header"]["status"] for result in results][-1] == 2
        assert results[-1]["payload"]["result"]["status"] == 2

    async def test_frames_may_be_larger_than_in_the_classic_protocol(self, address: SandboxAddress) -> None:
        frames = large_dictation_frames(address, noise(0.1))
        sound = base64.b64encode(noise(2)).decode()
        frames[1:1] = [json.loads(json.dumps(frames[0]))]
        del frames[1]["parameter"]
        frames[1]["header"]["status"] = frames[1]["payload"]["audio"]["status"] = 1
        frames[1]["payload"]["audio"]["audio"] = sound
        for number, frame in enumerate(frames):
            frame["payload"]["audio"]["seq"] = number
        results, _ = await dictate(address, frames, url=address.large_model_dictation_url)
        assert transcript(results).endswith(" 2.1 秒")

    async def test_error_shape(self, address: SandboxAddress) -> None:
        frames = large_dictation_frames(address, noise(1), domain="spark_asr_v2")
        results, _ = await dictate(address, frames, url=address.large_model_dictation_url)
        assert results[-1]["header"]["code"] == 11200


class TestEngine:
    async def test_each_utterance_is_heard_and_joined(self) -> None:
        engine = Parrot()
        with with_engine(engine) as address:
            pcm = noise(1) + bytes(SECOND) + noise(2) + bytes(SECOND)
            results, _ = await dictate(address, dictation_frames(address, pcm, vad_eos=5000))
        assert len(engine.heard) == 2
        assert [round(seconds, 1) for seconds in engine.heard] == [1.6, 2.8]  # with some of the pauses
        assert transcript(results) == "word0 word1 word2 word0 word1 word2 word3 word4"

    async def test_text_of_an_utterance_comes_while_the_next_one_arrives(self) -> None:
        with with_engine(Parrot()) as address:
            frames = dictation_frames(address, noise(1) + bytes(SECOND) + noise(1), vad_eos=5000)
            async with connect(address, address.dictation_url) as ws:
                for frame in frames[:8]:
                    await ws.send(json.dumps(frame))
                first = json.loads(await asyncio.wait_for(ws.recv(), 2))
        assert first["data"]["result"]["ws"][0]["cw"][0]["w"] == "word0"

    async def test_interim_text_at_talking_pace(self) -> None:
        with with_engine(Parrot()) as address:
            frames = dictation_frames(address, noise(1.6), size=6400, dwa="wpgs")
            results: list[dict[str, Any]] = []
            async with connect(address, address.dictation_url) as ws:

                async def listen() -> None:
                    while not results or results[-1]["data"]["status"] != 2:
                        results.append(json.loads(await ws.recv()))

                listener = asyncio.create_task(listen())
                for frame in frames:
                    await ws.send(json.dumps(frame))
                    await asyncio.sleep(0.2)
                await listener
        assert len(results) >= 4
        assert [result["data"]["result"].get("rg") for result in results[1:-1]] == [
            [i, i] for i in range(1, len(results) - 1)
        ]
        assert transcript(results) == "word0 word1 word2"

    async def test_broken_engine(self) -> None:
        with with_engine(Parrot(breaks=True)) as address:
            results, ws = await dictate(address, dictation_frames(address, noise(1)))
        assert results[-1]["code"] == 10700
        assert ws.close_code == 1000


class TestFaults:
    async def transcribe(self, address: SandboxAddress, **order: Any) -> list[dict[str, Any]]:
        control(address, "POST", "/faults", {"service": "dictation", **order})
        return (await dictate(address, dictation_frames(address, noise(1))))[0]

    async def test_error(self, address: SandboxAddress) -> None:
        (result,) = await self.transcribe(address, fault="error", code=11201, message="auth no enough license")
        assert (result["code"], result["message"]) == (11201, "auth no enough license")
        results = await self.transcribe(address, fault="error", code=10222, at="middle", after=3)
        assert results[-1]["code"] == 10222

    async def test_corrections_though_nobody_asked(self, address: SandboxAddress) -> None:
        results = await self.transcribe(address, fault="wpgs")
        ranges = [result["data"]["result"].get("rg") for result in results]
        assert any(ranges)
        assert transcript(results) == "【沙盒】没有安装语音识别引擎，这段录音长 1.0 秒"

    async def test_no_corrections_though_asked(self, address: SandboxAddress) -> None:
        control(address, "POST", "/faults", {"service": "dictation", "fault": "no_pgs"})
        results, _ = await dictate(address, dictation_frames(address, noise(1), dwa="wpgs"))
        assert not any("pgs" in result["data"]["result"] for result in results)

    async def test_early_end(self, address: SandboxAddress) -> None:
        results = await self.transcribe(address, fault="vad", seconds=0.5)
        assert results[-1]["data"]["status"] == 2
        assert float(transcript(results).split()[-2]) < 0.8

    async def test_silence(self, address: SandboxAddress) -> None:
        (only,) = await self.transcribe(address, fault="silence")
        assert only["data"]["status"] == 2
        assert transcript([only]) == ""

    async def test_truncated(self, address: SandboxAddress) -> None:
        results = await self.transcribe(address, fault="truncate")
        assert results
        assert all(result["data"]["status"] != 2 for result in results)

    async def test_reset(self, address: SandboxAddress) -> None:
        control(address, "POST", "/faults", {"service": "dictation", "fault": "reset", "after": 2})
        async with connect(address, address.dictation_url) as ws:
            with contextlib.suppress(websockets.ConnectionClosed):
                for frame in dictation_frames(address, noise(1)):
                    await ws.send(json.dumps(frame))
            await read_all(ws)
            assert ws.close_code == 1006

    @pytest.mark.parametrize("at", ["first", "middle"])
    async def test_stall(self, address: SandboxAddress, at: str) -> None:
        control(address, "POST", "/faults", {"service": "dictation", "fault": "stall", "at": at})
        seen = 0
        async with connect(address, address.dictation_url) as ws:
            for frame in dictation_frames(address, noise(1)):
                await ws.send(json.dumps(frame))
            with contextlib.suppress(TimeoutError):
                while True:
                    assert json.loads(await asyncio.wait_for(ws.recv(), 0.6))["data"]["status"] != 2
                    seen += 1
        assert (seen == 0) == (at == "first")

    async def test_frames_that_are_none(self, address: SandboxAddress) -> None:
        assert any("data" not in result for result in await self.transcribe(address, fault="no_payload"))
        assert any(
            len(json.dumps(result)) > 10**6 for result in await self.transcribe(address, fault="huge", bytes=2 * 10**6)
        )
        with pytest.raises(json.JSONDecodeError):
            await self.transcribe(address, fault="not_json")
