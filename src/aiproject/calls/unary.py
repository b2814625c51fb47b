"""A call with a single answer: a picture that is read, a clip that is transcribed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from aiproject.accounts.principal.principal import Principal
from aiproject.adapters.fault_points import fault_point
from aiproject.adapters.http.asgi import Scope, note, request_id
from aiproject.adapters.workers import Workers
from aiproject.calls.client_watch import CancelIfGone
from aiproject.calls.idempotency import IdempotencyStore
from aiproject.calls.incoming import IncomingCall
from aiproject.calls.limits import CallLimits
from aiproject.calls.settlement import CallSettlement
from aiproject.ledger.model import Hold, Meter, Outcome, Stage
from aiproject.ledger.service import Quotas
from aiproject.media.audio import Pcm, prepare_audio
from aiproject.providers.base import DictationProvider, OcrProvider, RecognizedText

__all__ = ["ClipCalls", "PictureCalls", "Render"]

P = TypeVar("P", bound=Principal | None)

Render = Callable[[str], bytes]
"""Formats a recognised text as the answer of one API."""

SILENCE = RecognizedText("", None)


class _UnaryCalls:
    """What both kinds of call share.

    Args:
        workers: the threads that decode files.
    """

    meter: Meter

    def __init__(self, quotas: Quotas, workers: Workers, idempotency: IdempotencyStore, limits: CallLimits) -> None:
        self._quotas = quotas
        self._workers = workers
        self._idempotency = idempotency
        self._limits = limits

    def confirms_principal(self, scope: Scope) -> bool:
        """Whether the call's hold verifies that the caller's account still exists, so that no other check is needed."""
        # A repeated call returns a stored answer without a hold, so its principal must be verified separately.
        return not self._idempotency.has_key(scope)

    async def _run(
        self,
        call: IncomingCall[P],
        units: int,
        ask: Callable[[CallSettlement], Awaitable[RecognizedText]],
        render: Render,
    ) -> bytes:
        """Claim the key, hold ``units``, ask, charge; return the answer, new or stored."""
        scope, principal = call.scope, call.principal
        account_id = None if principal is None else principal.account.account_id
        async with self._idempotency.claim(scope, account_id, call.body) as claim:
            if claim.answer is not None:
                return claim.answer
            hold = await self._hold(call, units)
            async with CallSettlement(self._quotas, hold, estimate=lambda: units) as settlement:
                recognized = await ask(settlement)
                # Rendered before the settlement, which stores the answer in the transaction that charges for it.
                answer = render(recognized.text)
                await settlement.settle(Outcome.FINISHED, reported=units, answer=claim.stored(answer))
        note(scope, outcome="ok")
        fault_point("before reply")
        return answer

    async def _hold(self, call: IncomingCall[P], units: int) -> Hold:
        principal = call.principal
        if principal is None:
            # Nobody pays for an anonymous call, but it takes the same path as the others.
            return Hold(None, self.meter, units, request_id(call.scope))
        return await self._quotas.hold(
            principal.account,
            self.meter,
            units,
            request_id=request_id(call.scope),
            key_id=principal.key_id,
            pair=principal.unconfirmed,
            watch=partial(CancelIfGone, call.scope, call.receive),
        )


async def _ask(scope: Scope, settlement: CallSettlement, recognition: Awaitable[RecognizedText]) -> RecognizedText:
    # Recorded before the request is made: from here on the vendor may bill the call.
    settlement.reached(Stage.SENT)
    recognized = await recognition
    note(scope, sid=recognized.sid)
    settlement.reached(Stage.LAST_FRAME, sid=recognized.sid)
    return recognized


class PictureCalls(_UnaryCalls):
    """Reads the text in pictures; a picture costs one unit, only on success."""

    meter = Meter.PIC_TIMES

    def __init__(
        self,
        quotas: Quotas,
        provider: OcrProvider,
        workers: Workers,
        idempotency: IdempotencyStore,
        limits: CallLimits,
    ) -> None:
        super().__init__(quotas, workers, idempotency, limits)
        self._provider = provider

    async def run(self, call: IncomingCall[Principal], render: Render) -> bytes:
        """Return the answer that ``render`` makes of the text, or the stored one of an earlier call with the same key.

        Args:
            call: its body is the picture file.

        Raises:
            UnusableFile: the body is not a readable picture.
            AiProjectError: nothing is charged.
        """

        async def ask(settlement: CallSettlement) -> RecognizedText:
            # Decoded only after the hold: decoding takes up to a second of CPU, which an account without quota must
            # not be able to use.
            from aiproject.media.picture import prepare_picture  # Pillow and its libraries, with the first picture

            picture = await self._workers.run(prepare_picture, call.body)
            recognized = await _ask(call.scope, settlement, self._provider.read(picture))
            note(call.scope, pictures=1)
            return recognized

        async with self._limits.enter(call.scope, call.principal):
            return await self._run(call, 1, ask, render)


class ClipCalls(_UnaryCalls):
    """Transcribes clips of at most 60 s; accounts with metered dictation are charged their milliseconds."""

    meter = Meter.VOICE_SECONDS

    def __init__(
        self,
        quotas: Quotas,
        provider: DictationProvider,
        workers: Workers,
        idempotency: IdempotencyStore,
        limits: CallLimits,
    ) -> None:
        super().__init__(quotas, workers, idempotency, limits)
        self._provider = provider

    async def run(self, call: IncomingCall[Principal | None], render: Render, *, rate: int) -> bytes:
        """Return the answer that ``render`` makes of the text, or the stored one of an earlier call with the same key.

        Args:
            call: its body is the audio file; one without any audio is silence.
            rate: samples per second of a body that is raw PCM.

        Raises:
            UnusableFile: the body is not readable audio, or longer than 60 s.
            AiProjectError: nothing is charged.
        """
        async with self._limits.enter(call.scope, call.principal):
            # Decoded before the hold, unlike pictures, because the duration is the amount to hold.
            audio = await self._workers.run(prepare_audio, call.body, rate=rate)
            note(call.scope, voice_ms=audio.duration_ms)
            return await self._run(
                call, audio.duration_ms, lambda held: self._transcribe(call.scope, held, audio), render
            )

    async def _transcribe(self, scope: Scope, settlement: CallSettlement, audio: Pcm) -> RecognizedText:
        if not audio.samples:
            # The user only tapped the recorder's button. An existing app crashes if that is refused.
            return SILENCE
        return await _ask(scope, settlement, self._provider.transcribe(audio))
