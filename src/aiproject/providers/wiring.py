"""Opens the providers that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiproject.config.iflytek import IflytekCredentials
from aiproject.config.settings import Settings
from aiproject.protocols.iflytek.dictation.dialect import DictationOptions
from aiproject.protocols.iflytek.ocr.client import ocr_service
from aiproject.providers.base import ChatProvider, DictationProvider, OcrProvider, RecognizedText
from aiproject.providers.iflytek.connector import IflytekConnector, TimeLimits
from aiproject.providers.iflytek.dictation import IflytekDictation
from aiproject.providers.iflytek.spark import IflytekSpark

if TYPE_CHECKING:
    from aiproject.media.picture import Picture

__all__ = ["OpenProviders", "Providers", "iflytek_connector", "iflytek_spark", "open_providers"]


@dataclass(frozen=True, slots=True)
class Providers:
    """One provider for each kind of call."""

    chat: ChatProvider
    dictation: DictationProvider
    ocr: OcrProvider


OpenProviders = Callable[[Settings, IflytekCredentials], AbstractAsyncContextManager[Providers]]
"""Opens providers and closes them at the end; `open_providers` is the default, and tests supply others."""


def iflytek_connector(settings: Settings, credentials: IflytekCredentials) -> IflytekConnector:
    """Return the connector that signs URLs of the platform and connects to it."""
    limits = TimeLimits(
        connect=settings.upstream_connect_timeout,
        first_frame=settings.first_frame_timeout,
        gap=settings.upstream_timeout,
        call=settings.upstream_call_timeout,
        attempts=settings.upstream_attempts,
    )
    return IflytekConnector(credentials, limits)


def iflytek_spark(settings: Settings, connector: IflytekConnector, *, warm: int = 0) -> IflytekSpark:
    """Return the text model.

    Args:
        warm: the largest number of connections kept open for the next questions.
    """
    return IflytekSpark(
        connector,
        url=settings.iflytek.spark.url,
        domain=settings.iflytek.spark.domain,
        warm=warm,
        concurrency=settings.iflytek.spark.concurrency,
    )


@asynccontextmanager
async def open_providers(settings: Settings, credentials: IflytekCredentials) -> AsyncIterator[Providers]:
    """Open iFlytek's three services with the console's credentials or the sandbox's.

    Raises:
        Misconfigured: the platform does not have one of the URLs or options.
    """
    connector = iflytek_connector(settings, credentials)
    dictation = IflytekDictation(
        connector,
        url=settings.iflytek.dictation.url,
        options=DictationOptions(
            language=settings.iflytek.dictation.language,
            accent=settings.iflytek.dictation.accent,
            dynamic_correction=settings.iflytek.dictation.correction,
        ),
        pace=settings.iflytek.dictation.pace,
        frame_bytes=settings.iflytek.dictation.frame_bytes,
    )
    async with AsyncExitStack() as stack:
        ocr = _OcrOnDemand(connector, settings.iflytek.ocr.url, stack)
        spark = iflytek_spark(settings, connector, warm=settings.iflytek.spark.warm_connections)
        # Closes the waiting connections and cancels the pool's timer.
        stack.callback(spark.close)
        yield Providers(spark, dictation, ocr)


class _OcrOnDemand:
    """Opens picture recognition with the first picture: its HTTP client takes 7 MB of every process."""

    def __init__(self, connector: IflytekConnector, url: str, stack: AsyncExitStack) -> None:
        ocr_service(url)  # an URL that the platform does not have is refused at the start
        self._connector = connector
        self._url = url
        self._stack = stack
        self._opened: OcrProvider | None = None

    async def read(self, picture: Picture) -> RecognizedText:
        """See `OcrProvider.read`."""
        if self._opened is None:
            from aiproject.adapters.net.http_client import open_session
            from aiproject.providers.iflytek.ocr import IflytekOcr

            # Nothing is awaited before the assignment, so that two first pictures at once open one session.
            session = open_session()
            self._stack.push_async_callback(session.close)
            self._opened = IflytekOcr(self._connector, url=self._url, http=session)
        return await self._opened.read(picture)
