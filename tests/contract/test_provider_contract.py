"""Every provider passes the suite of the contract: Spark against the sandbox, and the toy that is its example."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from aiproject.config.iflytek import IflytekCredentials
from aiproject.errors import Reason
from aiproject.providers.iflytek.connector import IflytekConnector, TimeLimits
from aiproject.providers.iflytek.spark import IflytekSpark
from aiproject.sandbox.faults import parse_orders
from aiproject.sandbox.running import SandboxAddress, SandboxThread
from provider_suite import ChatProviderSuite
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


class SparkSubject:
    """Spark, with the sandbox as its far end."""

    reasons = tuple(CODES)

    def __init__(self, sandbox: SandboxThread, address: SandboxAddress) -> None:
        self._sandbox = sandbox
        self.secret = address.api_secret
        credentials = IflytekCredentials(address.app_id, address.api_key, address.api_secret)
        self.provider = IflytekSpark(IflytekConnector(credentials, LIMITS), url=address.spark_url, domain="generalv3.5")

    def _order(self, fault: str, *, times: int = 1, **options: object) -> None:
        self._sandbox.faults.add(parse_orders({"service": "chat", "fault": fault, "times": times, **options}))

    def refuse_next(self, reason: Reason) -> None:
        self._sandbox.faults.clear()
        self._order("error", times=LIMITS.attempts, code=CODES[reason], at="first", message=f"no: {self.secret}")

    def break_next(self) -> None:
        self._order("truncate", after=2)

    def stall_next(self, *, after_first: bool) -> None:
        self._order("stall", times=LIMITS.attempts, at="middle" if after_first else "first")

    async def open_calls(self) -> int:
        for _ in range(200):
            count = sum(counts["open"] for counts in self._sandbox.calls()["services"].values())
            if not count:
                break
            await asyncio.sleep(0.01)
        return int(count)


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
