"""Opens the providers that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from aiproject.adapters.net.http_client import open_session
from aiproject.config.iflytek import IflytekCredentials
from aiproject.config.settings import Settings
from aiproject.protocols.iflytek.dictation.dialect import DictationOptions
from aiproject.providers.base import ChatProvider, DictationProvider, OcrProvider
from aiproject.providers.iflytek.connector import IflytekConnector, TimeLimits
from aiproject.providers.iflytek.dictation import IflytekDictation
from aiproject.providers.iflytek.ocr import IflytekOcr
from aiproject.providers.iflytek.spark import IflytekSpark

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
    async with open_session() as http:
        ocr = IflytekOcr(connector, url=settings.iflytek.ocr.url, http=http)
        spark = iflytek_spark(settings, connector, warm=settings.iflytek.spark.warm_connections)
        try:
            yield Providers(spark, dictation, ocr)
        finally:
            # Closes the waiting connections and cancels the pool's timer.
            spark.close()
