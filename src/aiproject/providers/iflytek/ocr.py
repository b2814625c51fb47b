"""iFlytek OCR over HTTP: the last element of the URL's path selects one of three services."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from aiproject.adapters.net.http_client import SpokeTooSoon
from aiproject.errors import UpstreamProtocolViolation, UpstreamTimeout, UpstreamUnreachable
from aiproject.protocols.iflytek.ocr.client import MAX_BODY_BYTES, ocr_service
from aiproject.providers.base import RecognizedText
from aiproject.providers.iflytek.connector import IflytekConnector

if TYPE_CHECKING:
    from aiproject.media.picture import Picture

__all__ = ["IflytekOcr"]


class IflytekOcr:
    """The OCR service. Implements `OcrProvider`.

    Args:
        http: the HTTP session of the process (`aiproject.adapters.net.http_client`), which pools connections; not
            closed here.
    """

    def __init__(self, connector: IflytekConnector, *, url: str, http: aiohttp.ClientSession) -> None:
        self._connector = connector
        self._url = url
        self._service = ocr_service(url)
        self._http = http
        limits = connector.limits
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=limits.connect, connect=limits.connect, sock_read=limits.first_frame
        )

    async def read(self, picture: Picture) -> RecognizedText:
        """Implements `OcrProvider.read`."""
        # In a thread: encoding megabytes in Base64 would block the event loop.
        request = await asyncio.to_thread(
            self._service.build_request,
            picture.data,
            encoding=picture.encoding,
            app_id=self._connector.credentials.app_id,
            uid=None,
        )
        return await self._connector.attempt(lambda: self._recognize_once(request), service="ocr")

    async def _recognize_once(self, request: bytes) -> RecognizedText:
        limits = self._connector.limits
        try:
            async with self._http.post(
                URL(self._connector.signed(self._url, "POST"), encoded=True),
                data=io.BytesIO(request),  # sent in chunks: given bytes, aiohttp writes all megabytes at once
                headers={"Content-Type": "application/json"},
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                body = bytearray()
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > MAX_BODY_BYTES:
                        raise UpstreamProtocolViolation(f"an answer of more than {MAX_BODY_BYTES} bytes")
                status, server_date = response.status, response.headers.get("Date")
        except SpokeTooSoon:
            raise UpstreamProtocolViolation("ocr: spoke before it was asked", retryable=True) from None
        except aiohttp.ConnectionTimeoutError:
            raise UpstreamTimeout("connect", limits.connect, retryable=True) from None
        except aiohttp.ServerTimeoutError:
            raise UpstreamTimeout("first frame", limits.first_frame) from None
        except aiohttp.ClientConnectorCertificateError:
            raise UpstreamUnreachable("TLS failed: the certificate is not trusted") from None
        except (aiohttp.ClientError, OSError) as error:
            # The text of aiohttp's errors contains the URL and thus the signature, so only the type is reported.
            raise UpstreamUnreachable(f"connection failed: {type(error).__name__}", retryable=True) from None
        try:
            read = self._service.read_answer(status, bytes(body))
        except UpstreamUnreachable as error:
            error.server_date = error.server_date or server_date
            self._connector.correct_clock(error)
            raise
        return RecognizedText(read.text, read.sid)
