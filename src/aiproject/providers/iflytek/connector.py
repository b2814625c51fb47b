"""Connects to iFlytek's platform: signing, clock correction, time limits and retries, shared by its three services."""

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
"""Seconds before the second attempt, doubled for each further one and jittered, so that retries do not synchronise."""

NOTICEABLE_SKEW = 30.0
"""Seconds of clock difference that justify a correction. The platform allows 300 (auth chapter 3)."""


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Time limits for the platform, in seconds.

    Attributes:
        connect: address look-up, TCP, TLS and handshake.
        first_frame: from the question to the first frame.
        gap: between two frames.
        call: one call, all attempts included.
        attempts: the number of attempts.
    """

    connect: float
    first_frame: float
    gap: float
    call: float
    attempts: int


class IflytekConnector:
    """Signs URLs with the platform's time and opens connections to it."""

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
        """Seconds that are added to our clock to get the platform's; 0 until a refusal proves a difference."""
        return self._offset.total_seconds()

    def signed(self, url: str, method: Literal["GET", "POST"]) -> str:
        """Return ``url`` signed for the current time. The result is a secret for the next 300 s: never log it."""
        moment = (self._clock() + self._offset).replace(microsecond=0)
        signed_for = (url, method, moment)
        if self._latest is None or self._latest[0] != signed_for:
            # The signature covers the URL and the second, nothing else, so calls of the same second can share it.
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
            UpstreamUnreachable: also retryable if the refusal revealed that our clock is off, which is then corrected.
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
            # Not retried here: `attempt` retries a refusal that the correction has made retryable.
            self.correct_clock(error)
            raise

    def redact(self, failure: UpstreamFailed) -> None:
        """Remove our credentials from a failure's texts, which may repeat our request.

        Quoting the vendor's text already removes what looks like a signed URL. This removes the exact secrets, which
        only this object knows.
        """
        for secret in (self.credentials.api_key, self.credentials.api_secret):
            if secret:
                failure.detail = failure.detail.replace(secret, "…")
                failure.hint = failure.hint.replace(secret, "…")
                failure.sid = failure.sid and failure.sid.replace(secret, "…")
        # The text of the exception was built from the detail.
        failure.args = (failure.detail or type(failure).__name__,)

    def correct_clock(self, refusal: UpstreamUnreachable) -> None:
        """Correct our offset to the platform's clock from the ``Date`` header of a 403, and make the refusal retryable.

        Source: auth chapters 3 and 4: the platform refuses a clock that is off by more than 300 s with 403 and a body
        about the date. The refusal is recognised by its status and a substring, because the documents contain two
        wordings.
        """
        if refusal.status != 403 or "date" not in refusal.detail.lower() or refusal.server_date is None:
            return
        offset = clock_offset(refusal.server_date, self._clock())
        if offset is None:
            return
        if abs(offset - self.clock_offset_seconds) < NOTICEABLE_SKEW:
            # Nothing new. But with a correction in place, the refused call was signed before another call made it.
            refusal.retryable = abs(offset) >= NOTICEABLE_SKEW
            return
        self._offset = timedelta(seconds=offset)
        refusal.retryable = True
        log.warning(
            "the clock of this machine is off; corrected for the platform by its Date header",
            seconds=round(offset),
        )

    async def attempt(self, call: Callable[[], Awaitable[T]], *, service: str) -> T:
        """Run ``call`` until it succeeds, fails permanently, or the attempts or the time are used up.

        Only for calls of which nothing has reached the caller yet.
        """
        # One deadline for all attempts: retries must not extend what the caller waits.
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.limits.call
        for number in range(1, self.limits.attempts + 1):
            try:
                with Deadline(loop, deadline):
                    return await call()
            # Raised by the deadline alone: shorter time limits inside of a call raise UpstreamTimeout.
            except TimeoutError:
                raise UpstreamTimeout("call", self.limits.call) from None
            except UpstreamFailed as error:
                self.redact(error)
                pause = max(error.retry_delay, FIRST_BACKOFF * 2 ** (number - 1)) * random.uniform(0.8, 1.3)  # noqa: S311
                # An attempt that could only start after the deadline is not worth the wait.
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
