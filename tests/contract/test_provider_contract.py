"""Every provider passes its suite: iFlytek's three services against the sandbox, and the toy that is an example."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

import pytest
from PIL import Image

from aiproject.adapters.net.http_client import open_session
from aiproject.config.iflytek import IflytekCredentials
from aiproject.errors import Reason
from aiproject.media.audio import Pcm
from aiproject.media.picture import Picture
from aiproject.protocols.iflytek.dictation.dialect import DictationOptions
from aiproject.providers.base import RecognizedText
from aiproject.providers.iflytek.connector import IflytekConnector, TimeLimits
from aiproject.providers.iflytek.dictation import IflytekDictation
from aiproject.providers.iflytek.ocr import IflytekOcr
from aiproject.providers.iflytek.spark import IflytekSpark
from aiproject.sandbox.faults import parse_fault_requests
from aiproject.sandbox.running import SandboxAddress, SandboxThread
from provider_suite import ChatProviderSuite, UnaryProviderSuite
from sandbox_client import FAST
from toy_provider import EchoSubject

LIMITS = TimeLimits(connect=2.0, first_frame=0.4, gap=0.4, call=5.0, attempts=2)

CODES = {
    Reason.MODERATED: 10013,
    Reason.BUSY: 11202,
    Reason.EXHAUSTED: 11201,
    Reason.TOO_LONG: 10907,
    Reason.NOT_ALLOWED: 10003,
    Reason.BROKEN: 10012,
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[tuple[SandboxThread, SandboxAddress]]:
    thread = SandboxThread(FAST)
    with thread as address:
        yield thread, address


def connector(address: SandboxAddress) -> IflytekConnector:
    return IflytekConnector(IflytekCredentials(address.app_id, address.api_key, address.api_secret), LIMITS)


async def open_calls(sandbox: SandboxThread) -> int:
    """Return the calls that are open, after at most two seconds for those that are about to end."""
    for _ in range(200):
        count = sum(counts["open"] for counts in sandbox.calls()["services"].values())
        if not count:
            break
        await asyncio.sleep(0.01)
    return int(count)


class SparkSubject:
    """Spark, with the sandbox as its far end."""

    reasons = tuple(CODES)

    def __init__(self, sandbox: SandboxThread, address: SandboxAddress) -> None:
        self._sandbox = sandbox
        self.secret = address.api_secret
        self.provider = IflytekSpark(connector(address), url=address.spark_url, domain="generalv3.5")

    def _order(self, fault: str, *, times: int = 1, **options: object) -> None:
        self._sandbox.faults.add(parse_fault_requests({"service": "chat", "fault": fault, "times": times, **options}))

    def refuse_next(self, reason: Reason) -> None:
        self._sandbox.faults.clear()
        self._order("error", times=LIMITS.attempts, code=CODES[reason], at="first", message=f"no: {self.secret}")

    def break_next(self) -> None:
        self._order("truncate", after=2)

    def stall_next(self, *, after_first: bool) -> None:
        self._order("stall", times=LIMITS.attempts, at="middle" if after_first else "first")

    async def open_calls(self) -> int:
        return await open_calls(self._sandbox)


class RecognitionSubject:
    """Dictation or picture text, with the sandbox as its far end."""

    def __init__(
        self,
        sandbox: SandboxThread,
        address: SandboxAddress,
        service: str,
        codes: Mapping[Reason, int],
        nothing: str,
        recognize: Callable[[], Awaitable[RecognizedText]],
    ) -> None:
        self._sandbox = sandbox
        self._service = service
        self._codes = codes
        self._nothing = nothing
        self._recognize = recognize
        self.secret = address.api_secret
        self.reasons = tuple(codes)

    async def recognize(self) -> RecognizedText:
        return await self._recognize()

    def _order(self, fault: str, *, times: int = 1, **options: object) -> None:
        self._sandbox.faults.add(
            parse_fault_requests({"service": self._service, "fault": fault, "times": times, **options})
        )

    def refuse_next(self, reason: Reason) -> None:
        self._sandbox.faults.clear()
        self._order("error", times=LIMITS.attempts, code=self._codes[reason], message=f"no: {self.secret}")

    def find_nothing_next(self) -> None:
        self._order(self._nothing)

    def stall_next(self) -> None:
        self._order("stall", times=LIMITS.attempts, seconds=1.0)

    async def open_calls(self) -> int:
        return await open_calls(self._sandbox)


class TestDictation(UnaryProviderSuite):
    @pytest.fixture
    async def subject(self, sandbox: tuple[SandboxThread, SandboxAddress]) -> RecognitionSubject:
        thread, address = sandbox
        thread.faults.clear()
        provider = IflytekDictation(
            connector(address), url=address.dictation_url, options=DictationOptions(), pace=0.0, frame_bytes=8000
        )
        clip = Pcm(b"\x00\x10\x00\xf0" * 8000, 16000)
        codes = {
            Reason.NOT_ALLOWED: 10313,
            Reason.EXHAUSTED: 11201,
            Reason.BROKEN: 10165,
            Reason.BAD_INPUT: 10009,
            Reason.TOO_LONG: 10114,
            Reason.BUSY: 10110,
        }
        return RecognitionSubject(thread, address, "dictation", codes, "silence", lambda: provider.transcribe(clip))


class TestOcr(UnaryProviderSuite):
    @pytest.fixture
    async def subject(self, sandbox: tuple[SandboxThread, SandboxAddress]) -> AsyncIterator[RecognitionSubject]:
        thread, address = sandbox
        thread.faults.clear()
        drawn = io.BytesIO()
        Image.new("RGB", (40, 20), "white").save(drawn, "PNG")
        picture = Picture(drawn.getvalue(), "png", 40, 20)
        async with open_session() as http:
            provider = IflytekOcr(connector(address), url=address.ocr_url, http=http)
            codes = {
                Reason.EXHAUSTED: 11201,
                Reason.BAD_INPUT: 10163,
                Reason.BUSY: 11202,
                Reason.NOT_ALLOWED: 10105,
                Reason.BROKEN: 10019,
            }
            yield RecognitionSubject(thread, address, "ocr", codes, "empty", lambda: provider.read(picture))


class TestSpark(ChatProviderSuite):
    @pytest.fixture
    async def subject(self, sandbox: tuple[SandboxThread, SandboxAddress]) -> AsyncIterator[SparkSubject]:
        sandbox[0].faults.clear()
        subject = SparkSubject(*sandbox)
        yield subject
        subject.provider.close()


class TestToy(ChatProviderSuite):
    @pytest.fixture
    async def subject(self) -> EchoSubject:
        return EchoSubject()
