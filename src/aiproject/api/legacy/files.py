"""``/voiceModel/chat`` and ``/PictureToTextModel/chat``: a file in, its words out."""

from __future__ import annotations

from urllib.parse import parse_qs

from aiproject.accounts.identity.authenticator import Authenticator
from aiproject.accounts.principal.principal import Principal
from aiproject.adapters.fault_points import fault_point
from aiproject.adapters.http.asgi import Receive, Scope, Send, client_group, note, request_id, send_json
from aiproject.adapters.http.bodies import read_upload
from aiproject.adapters.http.event_limits import EventRateLimiter, Rate
from aiproject.adapters.workers import Workers
from aiproject.api.legacy.endpoint import Endpoint, read_identified
from aiproject.calls.idempotency import IdempotencyStore
from aiproject.calls.limits import CallLimits
from aiproject.calls.running import RunningCalls
from aiproject.calls.settlement import CallSettlement
from aiproject.codes import Code
from aiproject.errors import AccountUnknown, InvalidInput
from aiproject.ledger import Hold, Meter, Outcome, Quotas, Stage
from aiproject.media import Pcm, prepare_audio, prepare_picture
from aiproject.protocols.legacy import json_bytes, success
from aiproject.providers import DictationUpstream, OcrUpstream

__all__ = ["PictureText", "VoiceText"]

MAX_UPLOAD_BYTES = 16 * 1024 * 1024
"""Bytes of an uploaded file; the original took 16,000,000 of a whole body."""

ANONYMOUS_VOICE = Rate("anonymous voice", "60/minute", guards_money=True)
"""For callers without an account, by address: somebody who talks all the time sends one clip of 60 s a minute, and a
class behind one address takes turns."""


class PictureText(Endpoint):
    """Read the text in a picture; takes one of ``picTimes``, only on success."""

    failure_code = Code.PICTURE_TO_TEXT_ERROR

    def __init__(
        self,
        calls: RunningCalls,
        authenticator: Authenticator,
        quotas: Quotas,
        upstream: OcrUpstream,
        workers: Workers,
        idempotency: IdempotencyStore,
        limits: CallLimits,
    ) -> None:
        super().__init__(calls)
        self._limits = limits
        self._workers = workers
        self._idempotency = idempotency
        self._authenticator = authenticator
        self._quotas = quotas
        self._upstream = upstream

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal, data = await read_identified(
            scope,
            receive,
            lambda: self._principal(scope),
            lambda: read_upload(receive, scope["headers"], limit=MAX_UPLOAD_BYTES),
        )
        account = principal.account
        async with (
            self._limits.enter(scope, principal),
            self._idempotency.claim(scope, account.account_id, data) as claim,
        ):
            if claim.answer is not None:
                await send_json(send, 200, claim.answer)
                return
            hold = await self._quotas.hold(
                account,
                Meter.PIC_TIMES,
                1,
                request_id=request_id(scope),
                key_id=principal.key_id,
                pair=principal.unconfirmed,
            )
            async with CallSettlement(self._quotas, hold, estimate=lambda: 1) as charge:
                picture = await self._workers.run(prepare_picture, data)
                charge.reached(Stage.SENT)
                text = await self._upstream.read(picture)
                note(scope, sid=text.sid)
                charge.reached(Stage.LAST_FRAME, sid=text.sid)
                answer = json_bytes(success("请求成功", content=text.text))
                await charge.settle(Outcome.FINISHED, reported=1, answer=claim.stored(answer))
        note(scope, outcome="ok", pictures=1)
        fault_point("before reply")
        await send_json(send, 200, answer)

    async def _principal(self, scope: Scope) -> Principal:
        principal = await self._authenticator.of_headers(
            scope, is_confirmed_later=not self._idempotency.is_asked(scope)
        )
        principal.require(Meter.PIC_TIMES)
        return principal


class VoiceText(Endpoint):
    """Hear a clip of at most 60 s; takes its length from accounts whose dictation is metered. An empty clip is silence.

    Args:
        anonymous: whether callers without (valid) headers are served, limited by their address.
    """

    failure_code = Code.AUDIO_TO_TEXT_ERROR

    def __init__(
        self,
        calls: RunningCalls,
        authenticator: Authenticator,
        quotas: Quotas,
        upstream: DictationUpstream,
        limiter: EventRateLimiter,
        workers: Workers,
        idempotency: IdempotencyStore,
        limits: CallLimits,
        *,
        anonymous: bool,
    ) -> None:
        super().__init__(calls)
        self._authenticator = authenticator
        self._quotas = quotas
        self._upstream = upstream
        self._limits = limits
        self._limiter = limiter
        self._workers = workers
        self._idempotency = idempotency
        self._anonymous = anonymous

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        rate = _rate(scope)
        principal, data = await read_identified(
            scope,
            receive,
            lambda: self._principal(scope),
            lambda: read_upload(receive, scope["headers"], limit=MAX_UPLOAD_BYTES, may_be_empty=True),
        )
        async with self._limits.enter(scope, principal):
            await self._hear(scope, send, principal, data, rate)

    async def _hear(self, scope: Scope, send: Send, principal: Principal | None, data: bytes, rate: int) -> None:
        audio = await self._workers.run(prepare_audio, data, rate=rate)
        milliseconds = audio.duration_ms
        note(scope, voice_ms=milliseconds)
        async with self._idempotency.claim(
            scope, None if principal is None else principal.account.account_id, data
        ) as claim:
            if claim.answer is not None:
                await send_json(send, 200, claim.answer)
                return
            if principal is None:
                hold = Hold(None, Meter.VOICE_SECONDS, milliseconds, request_id(scope))
            else:
                hold = await self._quotas.hold(
                    principal.account,
                    Meter.VOICE_SECONDS,
                    milliseconds,
                    request_id=request_id(scope),
                    key_id=principal.key_id,
                    pair=principal.unconfirmed,
                )
            async with CallSettlement(self._quotas, hold, estimate=lambda: milliseconds) as charge:
                text = await self._text_of(audio, charge, scope)
                answer = json_bytes(success("请求成功", content=text))
                await charge.settle(Outcome.FINISHED, reported=milliseconds, answer=claim.stored(answer))
        note(scope, outcome="ok")
        fault_point("before reply")
        await send_json(send, 200, answer)

    async def _text_of(self, audio: Pcm, charge: CallSettlement, scope: Scope) -> str:
        if not audio.samples:
            # Somebody only tapped the recorder's button. An existing app ends if that is refused.
            return ""
        charge.reached(Stage.SENT)
        heard = await self._upstream.hear(audio)
        note(scope, sid=heard.sid)
        charge.reached(Stage.LAST_FRAME, sid=heard.sid)
        return heard.text

    async def _principal(self, scope: Scope) -> Principal | None:
        try:
            principal = await self._authenticator.of_headers(
                scope, is_confirmed_later=not self._idempotency.is_asked(scope)
            )
        except AccountUnknown:
            # The document asks for no headers here, and the original looked at none: wrong ones are as good as none.
            # An API key that is not good is refused: whoever shows one means to be known.
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
        raise InvalidInput("rate 只能是 8000 或 16000")
    return int(values[-1])
