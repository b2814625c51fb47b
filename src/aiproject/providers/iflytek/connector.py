"""The way to iFlytek's platform: signing, the platform's clock, time limits and tries; shared by its three services."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

from aiproject.adapters.log import get_logger
from aiproject.adapters.net.deadline import Deadline
from aiproject.adapters.net.dialer import Dialer, client_tls
from aiproject.adapters.net.websocket import WebSocketConnection, connect
from aiproject.config.iflytek import IflytekCredentials
from aiproject.errors import UpstreamFailed, UpstreamTimeout, UpstreamUnreachable
from aiproject.protocols.iflytek.signing import clock_offset, http_date, sign_url

__all__ = ["IflytekConnector", "TimeLimits"]

log = get_logger("upstreams")

T = TypeVar("T")

FIRST_BACKOFF = 0.2
"""Seconds before the second try, doubled for each further one and jittered, so that callers do not come in waves."""

NOTICEABLE_SKEW = 30.0
"""Seconds of clock difference that are worth a correction. The platform allows 300 (auth chapter 3)."""


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long upstream may keep us waiting, in seconds.

    Attributes:
        connect: address look-up, TCP, TLS and handshake.
        first_frame: from the sent question to the first frame.
        gap: between two frames.
        call: one whole call, tries included.
        attempts: tries at a call.
    """

    connect: float
    first_frame: float
    gap: float
    call: float
    attempts: int


class IflytekConnector:
    """Signs addresses with the platform's time and opens connections to it."""

    def __init__(
        self,
        credentials: IflytekCredentials,
        limits: TimeLimits,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.credentials = credentials
        self.limits = limits
        self._clock = clock
        self._offset = timedelta(0)
        self._ssl = ssl_context or client_tls()
        self._dialer = Dialer()
        self._latest: tuple[tuple[str, str, datetime], str] | None = None

    @property
    def clock_offset_seconds(self) -> float:
        """What is added to our clock to have the platform's; 0 until a refusal told us better."""
        return self._offset.total_seconds()

    def signed(self, url: str, method: Literal["GET", "POST"]) -> str:
        """Return ``url`` signed for this moment. A secret for the next 300 s: never log it."""
        moment = (self._clock() + self._offset).replace(microsecond=0)
        signed_for = (url, method, moment)
        if self._latest is None or self._latest[0] != signed_for:
            # What is signed is the address and the second, nothing else: all calls of a second have the same signature.
            signed = sign_url(
                url,
                method=method,
                api_key=self.credentials.api_key,
                api_secret=self.credentials.api_secret,
                date=http_date(moment),
            )
            self._latest = (signed_for, signed)
        return self._latest[1]

    async def open(self, url: str) -> WebSocketConnection:
        """Open a signed websocket connection.

        Raises:
            UpstreamUnreachable: retryable also where the refusal showed that our clock is off, since it is set now.
            UpstreamTimeout: with phase ``connect``.
        """
        secure = url.startswith("wss:")
        try:
            return await connect(
                self.signed(url, "GET"),
                timeout=self.limits.connect,
                ssl_context=self._ssl if secure else None,
                dialer=self._dialer,
            )
        except UpstreamUnreachable as error:
            self.correct_clock(error)
            raise

    def redact(self, failure: UpstreamFailed) -> None:
        """Leave our credentials out of a failure's texts, which may repeat our request.

        What a signed address looks like is left out where the vendor's text is quoted; here, what only we know.
        """
        for secret in (self.credentials.api_key, self.credentials.api_secret):
            if secret:
                failure.detail = failure.detail.replace(secret, "…")
                failure.hint = failure.hint.replace(secret, "…")
                failure.sid = failure.sid and failure.sid.replace(secret, "…")
        failure.args = (failure.detail or type(failure).__name__,)

    def correct_clock(self, refusal: UpstreamUnreachable) -> None:
        """Set our idea of the platform's clock from a 403's ``Date`` header, and make that refusal retryable.

        Source: auth chapters 3 and 4: a clock that is off by more than 300 s is refused with 403 and a body about the
        date; matched by status and a substring, since the documents print two wordings.
        """
        if refusal.status != 403 or "date" not in refusal.detail.lower() or refusal.server_date is None:
            return
        offset = clock_offset(refusal.server_date, self._clock())
        if offset is None:
            return
        if abs(offset - self.clock_offset_seconds) < NOTICEABLE_SKEW:
            # Nothing new; but if we correct already, the refused call was signed before another one learned of it.
            refusal.retryable = abs(offset) >= NOTICEABLE_SKEW
            return
        self._offset = timedelta(seconds=offset)
        refusal.retryable = True
        log.warning(
            "the clock of this machine is off; corrected for the platform by its Date header",
            seconds=round(offset),
        )

    async def attempt(self, call: Callable[[], Awaitable[T]], *, service: str) -> T:
        """Run ``call`` until it succeeds, fails for good, or tries and time are used up.

        Only for calls of which nothing has reached the caller yet.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.limits.call
        for number in range(1, self.limits.attempts + 1):
            try:
                with Deadline(loop, deadline):
                    return await call()
            except TimeoutError:
                raise UpstreamTimeout("call", self.limits.call) from None
            except UpstreamFailed as error:
                self.redact(error)
                pause = max(error.retry_delay, FIRST_BACKOFF * 2 ** (number - 1)) * random.uniform(0.8, 1.3)  # noqa: S311
                if not error.retryable or number == self.limits.attempts or loop.time() + pause > deadline:
                    raise
                log.info(
                    "upstream failed, trying again",
                    service=service,
                    attempt=number,
                    code=error.code,
                    sid=error.sid,
                    error=type(error).__name__,
                )
            await asyncio.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")
