"""``/voiceModel/chat`` and ``/PictureToTextModel/chat``: a file in, its text out."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs

from aiproject.accounts.identity.authenticator import Authenticator
from aiproject.accounts.principal.principal import Principal
from aiproject.adapters.http.asgi import Receive, Scope, Send, client_group, send_json
from aiproject.adapters.http.bodies import read_upload
from aiproject.adapters.http.event_limits import EventRateLimiter, Rate
from aiproject.api.endpoint import Endpoint, read_identified
from aiproject.calls.incoming import IncomingCall
from aiproject.calls.running import RunningCalls
from aiproject.calls.unary import ClipCalls, PictureCalls
from aiproject.codes import Detail, Success
from aiproject.errors import AccountUnknown, InvalidInput
from aiproject.ledger.model import Meter
from aiproject.messages.formatting import Language, format_message
from aiproject.protocols.legacy import json_bytes, success

__all__ = ["PictureText", "VoiceText"]

RECOGNIZED: Final = format_message(Success.DONE, Language.ZH)

MAX_UPLOAD_BYTES = 16 * 1024 * 1024
"""Bytes of an uploaded file; the original project accepted 16,000,000 for the whole body."""

ANONYMOUS_VOICE = Rate("anonymous voice", "60/minute", guards_money=True)
"""For anonymous callers, by address. Continuous speech is one clip of 60 s per minute, and a school class that shares
one address takes turns."""


def _render(text: str) -> bytes:
    return json_bytes(success(RECOGNIZED, content=text))


class PictureText(Endpoint):
    """Reads the text in a picture; costs one of ``picTimes``, only on success."""

    def __init__(self, running: RunningCalls, authenticator: Authenticator, calls: PictureCalls) -> None:
        super().__init__(running)
        self._authenticator = authenticator
        self._calls = calls

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal, data = await read_identified(
            scope,
            receive,
            lambda: self._principal(scope),
            lambda: read_upload(receive, scope["headers"], limit=MAX_UPLOAD_BYTES),
        )
        await send_json(send, 200, await self._calls.run(IncomingCall(scope, receive, principal, data), _render))

    async def _principal(self, scope: Scope) -> Principal:
        principal = await self._authenticator.of_headers(
            scope, is_confirmed_later=self._calls.confirms_principal(scope)
        )
        principal.require(Meter.PIC_TIMES)
        return principal


class VoiceText(Endpoint):
    """Transcribes a clip of at most 60 s. Accounts with metered dictation pay its length; an empty clip is silence.

    Args:
        anonymous: whether callers without (valid) credentials are served, limited by their address.
    """

    def __init__(
        self,
        running: RunningCalls,
        authenticator: Authenticator,
        calls: ClipCalls,
        limiter: EventRateLimiter,
        *,
        anonymous: bool,
    ) -> None:
        super().__init__(running)
        self._authenticator = authenticator
        self._calls = calls
        self._limiter = limiter
        self._anonymous = anonymous

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        rate = _rate(scope)
        principal, data = await read_identified(
            scope,
            receive,
            lambda: self._principal(scope),
            lambda: read_upload(receive, scope["headers"], limit=MAX_UPLOAD_BYTES, may_be_empty=True),
        )
        call = IncomingCall(scope, receive, principal, data)
        await send_json(send, 200, await self._calls.run(call, _render, rate=rate))

    async def _principal(self, scope: Scope) -> Principal | None:
        try:
            principal = await self._authenticator.of_headers(
                scope, is_confirmed_later=self._calls.confirms_principal(scope)
            )
        except AccountUnknown:
            # The document requires no header fields here and the original project ignored them, so wrong ones are
            # treated like none. Only an invalid API key is refused: its sender expects to be identified.
            if not self._anonymous:
                raise
        else:
            principal.require(Meter.VOICE_SECONDS)
            return principal
        await self._limiter.hit(ANONYMOUS_VOICE, client_group(scope))
        return None


def _rate(scope: Scope) -> int:
    values = parse_qs(scope["query_string"].decode("latin-1")).get("rate", ["16000"])
    if values[-1] not in ("8000", "16000"):
        raise InvalidInput(Detail.RATE_INVALID)
    return int(values[-1])
