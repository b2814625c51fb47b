"""The three vendor clients against the sandbox: their answers, how each failure is told, and that no socket stays."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from PIL import Image

from aiproject.config.iflytek import IflytekCredentials
from aiproject.errors import (
    UpstreamFailed,
    UpstreamProtocolViolation,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from aiproject.media.audio import Pcm
from aiproject.media.picture import Picture
from aiproject.protocols.chat import ChatEvent, ChatMessage, ChatRequest
from aiproject.protocols.iflytek.dictation.dialect import DictationOptions
from aiproject.providers.base import ChatStream
from aiproject.providers.iflytek.connector import IflytekConnector, TimeLimits
from aiproject.providers.iflytek.dictation import IflytekDictation
from aiproject.providers.iflytek.ocr import IflytekOcr
from aiproject.providers.iflytek.spark import IflytekSpark
from aiproject.sandbox.faults import parse_fault_requests
from aiproject.sandbox.running import SandboxAddress, SandboxThread
from sandbox_client import FAST

LIMITS = TimeLimits(connect=2.0, first_frame=3.0, gap=3.0, call=10.0, attempts=1)
IMPATIENT = replace(LIMITS, connect=0.3, first_frame=0.3, gap=0.25)

SECOND = Pcm(b"\x00\x10\x00\xf0" * 8000, 16000)
"""A second of a tone, 16 kHz."""


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[SandboxThread, SandboxAddress]]:
    thread = SandboxThread(FAST)
    with thread as address:
        yield thread, address


class Bench:
    """The sandbox, orders for it, and clients that lead to it."""

    def __init__(self, sandbox: SandboxThread, address: SandboxAddress, http: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self.address = address
        self.http = http

    def order(self, service: str, fault: str, **options: object) -> None:
        self.sandbox.faults.add(parse_fault_requests({"service": service, "fault": fault, **options}))

    def link(self, limits: TimeLimits = LIMITS, *, secret: str | None = None) -> IflytekConnector:
        address = self.address
        return IflytekConnector(
            IflytekCredentials(address.app_id, address.api_key, secret or address.api_secret), limits
        )

    def spark(self, link: IflytekConnector | None = None) -> IflytekSpark:
        return IflytekSpark(link or self.link(), url=self.address.spark_url, domain="generalv3.5")

    def dictation(
        self,
        link: IflytekConnector | None = None,
        *,
        url: str = "",
        pace: float = 0.0,
        frame_bytes: int = 8000,
        **options: Any,
    ) -> IflytekDictation:
        return IflytekDictation(
            link or self.link(),
            url=url or self.address.dictation_url,
            options=DictationOptions(**options),
            pace=pace,
            frame_bytes=frame_bytes,
        )

    def ocr(self, link: IflytekConnector | None = None, *, service: str = "hh_ocr_recognize_doc") -> IflytekOcr:
        url = self.address.ocr_url.rpartition("/")[0] + f"/{service}"
        return IflytekOcr(link or self.link(), url=url, http=self.http)

    def counts(self, service: str) -> dict[str, int]:
        return dict(self.sandbox.calls()["services"][service])

    def last(self, service: str) -> dict[str, Any]:
        return dict(self.sandbox.calls()["last"][service])

    async def all_closed(self) -> bool:
        for _ in range(200):
            if all(counts["open"] == 0 for counts in self.sandbox.calls()["services"].values()):
                return True
            await asyncio.sleep(0.01)
        return False


@pytest.fixture
async def bench(running: tuple[SandboxThread, SandboxAddress]) -> AsyncIterator[Bench]:
    sandbox, address = running
    sandbox.faults.clear()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with aiohttp.ClientSession() as http:
        bench = Bench(sandbox, address, http)
        yield bench
        assert await bench.all_closed(), "a call of ours is still open at the platform"
    assert complaints == []


def question(text: str = "你好") -> ChatRequest:
    return ChatRequest((ChatMessage("user", text),), max_tokens=200)


async def read(stream: ChatStream) -> list[ChatEvent]:
    events: list[ChatEvent] = []
    try:
        while True:
            events += await stream.receive()
            if events[-1].is_last:
                return events
    finally:
        stream.close()


def picture(kind: str = "PNG") -> Picture:
    stream = io.BytesIO()
    Image.new("RGB", (40, 20), "white").save(stream, kind)
    return Picture(stream.getvalue(), "png" if kind == "PNG" else "jpg", 40, 20)


class TestSpark:
    async def test_an_answer(self, bench: Bench) -> None:
        stream = await bench.spark().ask(question())
        events = await read(stream)
        assert "【沙盒】" in "".join(event.text for event in events)
        assert len(events) > 3
        assert stream.sid
        assert stream.usage is not None
        assert stream.usage.total_tokens == stream.usage.prompt_tokens + stream.usage.completion_tokens > 0
        assert all(event.native for event in events)
        assert bench.last("chat")["domain"] == "generalv3.5"

    async def test_many_at_once_do_not_mix(self, bench: Bench) -> None:
        upstream = bench.spark()

        async def ask(number: int) -> str:
            stream = await upstream.ask(question(f"question number {number}?"))
            return "".join(event.text for event in await read(stream))

        answers = await asyncio.gather(*(ask(number) for number in range(20)))
        assert len(set(answers)) == 20

    async def test_a_platform_that_leaves_the_closing_to_us(self, bench: Bench) -> None:
        bench.order("chat", "no_close")
        await read(await bench.spark().ask(question()))

    @pytest.mark.parametrize("fault", ["single", "empty", "null", "plugins", "reasoning", "emoji", "frames"])
    async def test_unusual_answers(self, bench: Bench, fault: str) -> None:
        bench.order("chat", fault)
        events = await read(await bench.spark().ask(question()))
        assert events[-1].usage is not None
        assert "".join(event.text for event in events)

    @pytest.mark.parametrize("value", ["missing", "text", "total"])
    async def test_unusual_usage(self, bench: Bench, value: str) -> None:
        bench.order("chat", "usage", value=value)
        stream = await bench.spark().ask(question())
        await read(stream)
        assert (stream.usage is None) == (value == "missing")
        assert stream.usage is None or 1 < stream.usage.total_tokens < 10_000

    @pytest.mark.parametrize("value", ["negative", "absurd"])
    async def test_numbers_that_nobody_may_be_charged(self, bench: Bench, value: str) -> None:
        bench.order("chat", "usage", value=value)
        stream = await bench.spark().ask(question())
        with pytest.raises(UpstreamProtocolViolation):
            await read(stream)
        assert stream.usage is None

    async def test_abort_amid_the_answer_stops_the_generation(self, bench: Bench) -> None:
        bench.order("chat", "stall", at="middle")
        stream = await bench.spark().ask(question())
        await stream.receive()
        early = bench.counts("chat")["closed_early"]
        asyncio.get_running_loop().call_later(0.05, stream.abort, UpstreamFailed("the client hung up"))
        with pytest.raises(UpstreamFailed, match="hung up"):
            await read(stream)
        assert await bench.all_closed()
        assert bench.counts("chat")["closed_early"] == early + 1

    async def test_cancelled_while_it_waits_for_the_first_frame(self, bench: Bench) -> None:
        bench.order("chat", "stall", at="first")
        asking = asyncio.create_task(bench.spark().ask(question()))
        await asyncio.sleep(0.2)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    @pytest.mark.parametrize("after", [0, 2])
    @pytest.mark.parametrize("fault", ["truncate", "reset"])
    async def test_an_end_before_the_end(self, bench: Bench, fault: str, after: int) -> None:
        bench.order("chat", fault, after=after)
        with pytest.raises(UpstreamTruncated) as caught:
            await read(await bench.spark().ask(question()))
        assert caught.value.retryable == (after == 0)
        assert (caught.value.sid is not None) == (after > 0)

    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            ("not_json", UpstreamProtocolViolation),
            ("binary", UpstreamProtocolViolation),
            ("huge", UpstreamFailed),
            ("error", UpstreamRefused),
        ],
    )
    async def test_failures_amid_the_answer(self, bench: Bench, fault: str, kind: type[UpstreamFailed]) -> None:
        bench.order("chat", fault, **({"at": "middle", "code": 11203} if fault == "error" else {}))
        stream = await bench.spark().ask(question())
        assert (await stream.receive())[0].text
        with pytest.raises(kind) as caught:
            await read(stream)
        assert caught.value.code == (11203 if fault == "error" else None)

    async def test_an_error_frame(self, bench: Bench) -> None:
        bench.order("chat", "error", code=10013, at="first", message="审核不通过")
        with pytest.raises(UpstreamRefused) as caught:
            await bench.spark().ask(question())
        assert (caught.value.code, caught.value.retryable) == (10013, False)
        assert caught.value.sid

    async def test_silence_before_the_first_frame(self, bench: Bench) -> None:
        bench.order("chat", "stall", at="first")
        await timed_out(lambda: bench.spark(bench.link(IMPATIENT)).ask(question()), "first frame", 0.3)

    async def test_silence_amid_the_answer(self, bench: Bench) -> None:
        bench.order("chat", "stall", at="middle")
        stream = await bench.spark(bench.link(IMPATIENT)).ask(question())
        await timed_out(lambda: read(stream), "gap", 0.25)

    async def test_an_answer_without_end(self, bench: Bench) -> None:
        bench.order("chat", "slow", seconds=0.1)
        stream = await bench.spark(bench.link(replace(LIMITS, call=0.5))).ask(question("write me something long"))
        await timed_out(lambda: read(stream), "call", 0.5)


async def timed_out(call: Callable[[], Awaitable[object]], phase: str, seconds: float) -> None:
    began = time.monotonic()
    with pytest.raises(UpstreamTimeout) as caught:
        await call()
    assert (caught.value.phase, caught.value.seconds) == (phase, seconds)
    assert time.monotonic() - began < seconds + 1.5


TEXT = "【沙盒】没有安装语音识别引擎，这段录音长 {:.1f} 秒"


class TestDictation:
    @pytest.mark.parametrize("dialect", ["classic", "large model"])
    @pytest.mark.parametrize("fault", ["", "wpgs"])
    async def test_a_clip(self, bench: Bench, dialect: str, fault: str) -> None:
        url = bench.address.dictation_url if dialect == "classic" else bench.address.large_model_dictation_url
        if fault:
            bench.order("dictation", fault)
        upstream = bench.dictation(url=url, dynamic_correction=bool(fault))
        heard = await upstream.transcribe(SECOND)
        assert heard.text == TEXT.format(1)
        assert heard.sid
        assert bench.last("dictation")["audio_seconds"] == 1.0
        assert bench.last("dictation")["dynamic_correction"] is bool(fault)

    async def test_the_longest_clip_and_the_lowest_rate(self, bench: Bench) -> None:
        heard = await bench.dictation().transcribe(Pcm(b"\x00\x10\x00\xf0" * (16000 * 30), 16000))
        assert heard.text == TEXT.format(60)
        heard = await bench.dictation().transcribe(Pcm(b"\x00\x10\x00\xf0" * 4000, 8000))
        assert heard.text == TEXT.format(1)
        assert bench.last("dictation")["sample_rate"] == 8000

    async def test_silence(self, bench: Bench) -> None:
        bench.order("dictation", "silence")
        assert (await bench.dictation().transcribe(SECOND)).text == ""

    @pytest.mark.serial
    async def test_an_early_end_of_speech_ends_the_sending(self, bench: Bench) -> None:
        bench.order("dictation", "vad", seconds=0.2)
        began = time.monotonic()
        heard = await bench.dictation(pace=0.25, frame_bytes=9600).transcribe(Pcm(SECOND.samples * 10, 16000))
        assert time.monotonic() - began < 1  # the next frame alone would be due after 1.2 s
        assert "这段录音长" in heard.text

    @pytest.mark.serial
    async def test_pace(self, bench: Bench) -> None:
        began = time.monotonic()
        await bench.dictation(pace=4.0, frame_bytes=3200).transcribe(SECOND)
        paced = time.monotonic() - began
        began = time.monotonic()
        await bench.dictation(frame_bytes=3200).transcribe(SECOND)
        assert 0.2 < paced < 1.2
        assert time.monotonic() - began < paced
        assert bench.last("dictation")["frames"] in (10, 11)

    async def test_a_paced_clip_may_take_longer_than_the_limit_of_a_gap(self, bench: Bench) -> None:
        bench.order("dictation", "silence")  # so that the platform says nothing in between
        limits = replace(LIMITS, first_frame=0.4, gap=0.4)
        await bench.dictation(bench.link(limits), pace=1.0, frame_bytes=1600).transcribe(SECOND)
        assert bench.last("dictation")["audio_seconds"] == 1.0

    @pytest.mark.parametrize("at", ["first", "middle"])
    async def test_a_platform_that_says_nothing(self, bench: Bench, at: str) -> None:
        bench.order("dictation", "stall", at=at)
        began = time.monotonic()
        with pytest.raises(UpstreamTimeout) as caught:
            await bench.dictation(bench.link(IMPATIENT)).transcribe(SECOND)
        assert caught.value.phase in ("first frame", "gap")
        assert time.monotonic() - began < 2

    @pytest.mark.parametrize(
        ("fault", "kind", "is_retryable"),
        [
            ("truncate", UpstreamTruncated, True),
            ("reset", UpstreamTruncated, True),
            ("not_json", UpstreamProtocolViolation, False),
            ("error", UpstreamRefused, False),
        ],
    )
    @pytest.mark.parametrize("dialect", ["classic", "large model"])
    async def test_failures(
        self, bench: Bench, fault: str, kind: type[UpstreamFailed], is_retryable: bool, dialect: str
    ) -> None:
        url = bench.address.dictation_url if dialect == "classic" else bench.address.large_model_dictation_url
        bench.order("dictation", fault, **({"code": 10105} if fault == "error" else {}))
        with pytest.raises(kind) as caught:
            await bench.dictation(url=url).transcribe(SECOND)
        assert caught.value.retryable == is_retryable
        assert caught.value.code == (10105 if fault == "error" else None)

    async def test_ten_megabytes_are_survived(self, bench: Bench) -> None:
        bench.order("dictation", "huge")
        with pytest.raises(UpstreamFailed):
            await bench.dictation().transcribe(SECOND)

    async def test_cancelled_while_it_sends(self, bench: Bench) -> None:
        hearing = asyncio.create_task(bench.dictation(pace=1.0).transcribe(Pcm(SECOND.samples * 10, 16000)))
        await asyncio.sleep(0.3)
        hearing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hearing


class TestOcr:
    @pytest.mark.parametrize("service", ["hh_ocr_recognize_doc", "sf8e6aca1", "se75ocrbm"])
    async def test_a_picture(self, bench: Bench, service: str) -> None:
        found = await bench.ocr(service=service).read(picture())
        assert "沙盒" in found.text or "sandbox" in found.text
        assert found.sid
        assert bench.last("ocr")["service"] == service

    @pytest.mark.parametrize("service", ["hh_ocr_recognize_doc", "sf8e6aca1", "se75ocrbm"])
    @pytest.mark.parametrize("fault", ["empty", "no_payload"])
    async def test_no_text(self, bench: Bench, service: str, fault: str) -> None:
        bench.order("ocr", fault)
        assert (await bench.ocr(service=service).read(picture("JPEG"))).text == ""

    @pytest.mark.parametrize(
        ("fault", "options", "kind", "is_retryable"),
        [
            ("error", {"code": 10163}, UpstreamRefused, False),
            ("error", {"code": 10163, "http": 200}, UpstreamRefused, False),
            ("error", {"code": 10163, "flat": 1}, UpstreamRefused, False),
            ("not_json", {}, UpstreamProtocolViolation, False),
            ("huge", {"bytes": 33 * 1024 * 1024}, UpstreamProtocolViolation, False),
            ("reset", {}, UpstreamUnreachable, True),
            ("drop", {}, UpstreamUnreachable, True),
            ("html", {"status": 502}, UpstreamProtocolViolation, True),
            ("refuse", {"reason": "mismatch"}, UpstreamUnreachable, False),
            ("refuse", {"reason": "not_found"}, UpstreamFailed, False),
        ],
    )
    async def test_failures(
        self, bench: Bench, fault: str, options: dict[str, object], kind: type[UpstreamFailed], is_retryable: bool
    ) -> None:
        # Orders wait for a number of calls; a dropped connection would otherwise be tried again by the pool.
        bench.order("ocr", fault, **options, times=0)
        with pytest.raises(kind) as caught:
            await bench.ocr().read(picture())
        assert caught.value.retryable == is_retryable
        assert bench.address.api_secret not in caught.value.detail
        assert "authorization" not in caught.value.detail

    async def test_silence(self, bench: Bench) -> None:
        bench.order("ocr", "stall", seconds=1.0)  # the sandbox does not look whether its client is still there
        await timed_out(lambda: bench.ocr(bench.link(IMPATIENT)).read(picture()), "first frame", 0.3)

    async def test_the_whole_call_has_a_limit(self, bench: Bench) -> None:
        bench.order("ocr", "stall", seconds=1.0)  # the sandbox does not look whether its client is still there
        limits = replace(LIMITS, call=0.4)
        await timed_out(lambda: bench.ocr(bench.link(limits)).read(picture()), "call", 0.4)

    async def test_nobody_listens(self, bench: Bench) -> None:
        upstream = IflytekOcr(bench.link(), url="http://127.0.0.1:1/v1/private/sf8e6aca1", http=bench.http)
        with pytest.raises(UpstreamUnreachable) as caught:
            await upstream.read(picture())
        assert caught.value.retryable
        assert "signature" not in str(caught.value)


Calls = dict[str, Callable[[Bench, IflytekConnector], Awaitable[object]]]


async def _chat(bench: Bench, link: IflytekConnector) -> object:
    return await read(await bench.spark(link).ask(question()))


CALLS: Calls = {
    "chat": _chat,
    "dictation": lambda bench, link: bench.dictation(link).transcribe(SECOND),
    "ocr": lambda bench, link: bench.ocr(link).read(picture()),
}
EACH = pytest.mark.parametrize("service", CALLS)


class TestGateway:
    """What happens before a service sees anything is the same for all three."""

    @EACH
    @pytest.mark.parametrize(("reason", "status"), [("unverified", 401), ("ip", 403), ("service", 403)])
    async def test_refusals(self, bench: Bench, service: str, reason: str, status: int) -> None:
        bench.order(service, "refuse", reason=reason)
        link = bench.link(replace(LIMITS, attempts=3))
        with pytest.raises(UpstreamUnreachable) as caught:
            await CALLS[service](bench, link)
        assert (caught.value.status, caught.value.retryable) == (status, False)
        assert link.clock_offset_seconds == 0

    @EACH
    async def test_a_wrong_secret(self, bench: Bench, service: str) -> None:
        with pytest.raises(UpstreamUnreachable) as caught:
            await CALLS[service](bench, bench.link(secret="guess"))
        assert caught.value.status == 401
        assert "guess" not in str(caught.value)

    @EACH
    @pytest.mark.parametrize("seconds", [-4000.0, 600.0])
    async def test_a_clock_that_is_off_is_corrected(self, bench: Bench, service: str, seconds: float) -> None:
        bench.order(service, "clock", seconds=seconds, times=0)
        link = bench.link(replace(LIMITS, attempts=2))
        refused = bench.counts(service)["refused"]
        assert await CALLS[service](bench, link)
        assert link.clock_offset_seconds == pytest.approx(seconds, abs=3)
        await CALLS[service](bench, link)
        assert bench.counts(service)["refused"] == refused + 1  # only the very first one

    @EACH
    async def test_several_calls_with_a_clock_that_is_off(self, bench: Bench, service: str) -> None:
        bench.order(service, "clock", seconds=600.0, times=0)
        link = bench.link(replace(LIMITS, attempts=2))
        await asyncio.gather(*(CALLS[service](bench, link) for _ in range(5)))

    @pytest.mark.serial
    @EACH
    async def test_a_hanging_gateway(self, bench: Bench, service: str) -> None:
        bench.order(service, "hang", seconds=1.0)
        began = time.monotonic()
        with pytest.raises(UpstreamTimeout) as caught:
            await CALLS[service](bench, bench.link(IMPATIENT))
        assert caught.value.phase == ("first frame" if service == "ocr" else "connect")
        assert time.monotonic() - began < 0.9

    @EACH
    async def test_a_retry_that_helps(self, bench: Bench, service: str) -> None:
        bench.order(service, "drop", times=2)
        # A dropped connection of its pool, aiohttp tries again by itself, so there may be one more.
        await CALLS[service](bench, bench.link(replace(LIMITS, attempts=3)))

    @EACH
    async def test_a_retry_that_does_not(self, bench: Bench, service: str) -> None:
        bench.order(service, "html", status=503, times=0)
        refused = bench.counts(service)["refused"]
        with pytest.raises(UpstreamFailed) as caught:
            await CALLS[service](bench, bench.link(replace(LIMITS, attempts=2)))
        assert caught.value.retryable
        assert bench.counts(service)["refused"] == refused + 2

    async def test_a_busy_service_is_asked_again(self, bench: Bench) -> None:
        bench.order("chat", "error", code=11202, at="first", times=1)
        seen = bench.counts("chat")["seen"]
        try:
            await CALLS["chat"](bench, bench.link(replace(LIMITS, attempts=2)))
        except UpstreamRefused as error:
            pytest.fail(f"11202 is worth a retry: {error}")
        assert bench.counts("chat")["seen"] == seen + 2
