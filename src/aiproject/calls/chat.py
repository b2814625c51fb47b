"""A chat, from admission to settlement."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import msgspec

from aiproject.accounts.principal.principal import Principal
from aiproject.adapters.fault_points import fault_point
from aiproject.adapters.http.asgi import Scope, note, request_id
from aiproject.adapters.http.bodies import ClientGone
from aiproject.adapters.log import get_logger
from aiproject.calls.client_watch import CancelIfGone, ClientWatch
from aiproject.calls.idempotency import IdempotencyClaim, IdempotencyStore
from aiproject.calls.incoming import IncomingCall
from aiproject.calls.limits import CallLimits
from aiproject.calls.running import RunningCalls
from aiproject.calls.settlement import CallSettlement, outcome_of
from aiproject.calls.time_limit import CallTimeLimit
from aiproject.errors import AiProjectError
from aiproject.ledger.model import Hold, Meter, Outcome, Stage
from aiproject.ledger.service import Quotas
from aiproject.protocols.chat import ChatEvent, ChatRequest, Usage
from aiproject.providers.base import ChatProvider, ChatStream

__all__ = ["CallTimes", "ChatAnswer", "ChatCalls", "ChatWriter"]

log = get_logger("relay")


class CallTimes(msgspec.Struct, frozen=True):
    """Time limits of a call, in seconds.

    Attributes:
        call: the whole call, whichever side delays it.
        drain: how long an answer is read after its client disconnected; 0 closes the connection immediately.
    """

    call: float
    drain: float


class ChatAnswer:
    """An answer in progress: its events, what it has consumed so far, and its settlement.

    Attributes:
        is_complete: whether the last event has been received.
        is_stored: whether the caller sent an ``Idempotency-Key``, so that the written answer must be given to `settle`.
    """

    __slots__ = (
        "_client",
        "_other_output",
        "_parts",
        "_prompt_tokens",
        "_provider",
        "_settlement",
        "_stream",
        "_usage",
        "claim",
        "is_complete",
        "is_stored",
        "scope",
    )

    def __init__(self, scope: Scope, provider: ChatProvider, prompt_tokens: int, claim: IdempotencyClaim) -> None:
        self.scope = scope
        self.claim = claim
        self.is_stored = claim.is_wanted
        self.is_complete = False
        self._provider = provider
        self._prompt_tokens = prompt_tokens
        self._parts: list[str] = []
        # Reasoning and tool calls. The provider bills them like text, so they count in the estimate.
        self._other_output: list[str] = []
        self._usage: Usage | None = None
        self._stream: ChatStream
        self._settlement: CallSettlement
        self._client: ClientWatch

    def begin(self, stream: ChatStream, settlement: CallSettlement, client: ClientWatch) -> None:
        """Attach the stream that the provider opened, once its first event has arrived."""
        self._stream = stream
        self._settlement = settlement
        self._client = client

    def end(self) -> None:
        """Drop the references of `begin`; afterwards only the estimate is available.

        The settlement refers to the answer for that estimate, so the two form a reference cycle. Without this, each
        answer would stay in memory until the next garbage collection and be a quarter of what it has to process.
        """
        del self._stream, self._settlement, self._client

    async def receive(self) -> Sequence[ChatEvent]:
        """Return the next events: all that have arrived, at least one. Must not be called once `is_complete`.

        Raises:
            UpstreamFailed: the answer ends here.
            ClientGone: the client has disconnected, or reads too slowly.
            Unavailable: the server is stopping.
        """
        events = await self._stream.receive()
        parts = self._parts
        for event in events:
            if event.text:
                parts.append(event.text)
            if event.reasoning or event.tool_calls:
                self._add_other_output(event)
        # Only the last event of a read can be the last of the answer.
        self.is_complete = events[-1].is_last
        return events

    def _add_other_output(self, event: ChatEvent) -> None:
        self._other_output.append(event.reasoning)
        for call in event.tool_calls:
            self._other_output += (call.name, call.arguments)

    @property
    def sid(self) -> str | None:
        """The vendor's session id, once it is known."""
        return self._stream.sid

    @property
    def native_format(self) -> str | None:
        """The protocol whose messages `ChatEvent.native` holds."""
        return self._stream.native_format

    @property
    def text(self) -> str:
        """The text received so far."""
        return "".join(self._parts)

    @property
    def has_reported_usage(self) -> bool:
        """Whether the provider reported what the answer consumed."""
        return self._stream.usage is not None

    @property
    def usage(self) -> Usage:
        """What the whole answer consumed: the provider's numbers, or an estimate if it reported none."""
        if self._usage is None:
            self._usage = self._stream.usage
            if self._usage is None:
                self._usage = self._estimate()
                note(self.scope, tokens_estimated=True)
                log.warning("the provider told no usage; the estimate is charged", request_id=request_id(self.scope))
        return self._usage

    def _estimate(self) -> Usage:
        estimate = self._provider.estimate_tokens
        completion = estimate(self.text) + (estimate("".join(self._other_output)) if self._other_output else 0)
        return Usage(self._prompt_tokens, completion, self._prompt_tokens + completion)

    def consumed(self) -> int:
        """Return our estimate of what the call has consumed so far, in tokens."""
        return self._estimate().total_tokens

    async def settle(self, written: bytes | None = None) -> None:
        """Charge the whole answer. Must be called before the caller has all of it.

        Args:
            written: the answer as the caller gets it, stored for calls that repeat the ``Idempotency-Key``.

        Raises:
            KeyLost: the answer must not be sent; nothing is charged.
        """
        usage, settlement = self.usage, self._settlement
        settlement.reached(Stage.LAST_FRAME, sid=self._stream.sid)
        charged = await settlement.settle(
            Outcome.CLIENT_GONE if self._client.is_gone else Outcome.FINISHED,
            # A client that left during the drain time pays the provider's number, like one that stayed.
            reported=usage.total_tokens if self.has_reported_usage else None,
            answer=None if written is None else self.claim.stored(written),
        )
        note(self.scope, tokens=usage.total_tokens)
        if charged != usage.total_tokens:
            note(self.scope, taken=charged)
        fault_point("before reply")

    async def fail(self, error: AiProjectError) -> None:
        """Settle an answer that failed after part of it was written, before the writer reports the error."""
        await self._settlement.settle(outcome_of(error))


class ChatWriter(Protocol):
    """Writes an answer to its client in the format of one API.

    Attributes:
        is_streaming: whether the client receives the answer while it is generated, so that it has seen part of an
            answer that fails.
    """

    @property
    def is_streaming(self) -> bool: ...

    async def write(self, answer: ChatAnswer) -> None:
        """Receive the events until the answer is complete, write them, and call `ChatAnswer.settle` before the last.

        Errors of `ChatAnswer.receive` propagate unless something has been written; in that case, `ChatAnswer.fail`
        settles the call, and the writer ends the answer in the format of its API.
        """
        ...

    async def repeat(self, written: bytes) -> None:
        """Write the stored answer of an earlier call with the same ``Idempotency-Key``."""
        ...


class ChatCalls:
    """Runs the chats of every API on a provider.

    Args:
        running: the running calls, which the server's shutdown ends.
        model: the name of the model for the limits of API keys.
    """

    def __init__(
        self,
        running: RunningCalls,
        quotas: Quotas,
        provider: ChatProvider,
        idempotency: IdempotencyStore,
        limits: CallLimits,
        *,
        model: str,
        times: CallTimes,
    ) -> None:
        self.model = model
        self._running = running
        self._quotas = quotas
        self._provider = provider
        self._idempotency = idempotency
        self._limits = limits
        self._times = times

    def confirms_principal(self, scope: Scope) -> bool:
        """Whether the call's hold verifies that the caller's account still exists, so that no other check is needed."""
        # A repeated call returns a stored answer without a hold, so its principal must be verified separately.
        return not self._idempotency.has_key(scope)

    async def run(self, call: IncomingCall[Principal], request: ChatRequest, writer: ChatWriter) -> None:
        """Admit a call, ask the provider, have the answer written, and charge it.

        Raises:
            AiProjectError: nothing has been written; the call is settled, usually without a charge.
            ClientGone: the client disconnected; the call is settled by what was generated.
        """
        scope, principal = call.scope, call.principal
        principal.require(Meter.TOKENS, self.model)
        estimate = self._provider.estimate_prompt
        # Limits come before the claim: a refused call must not occupy its key. Both come before the hold, and the hold
        # before the question, so that nothing is asked that cannot be paid for.
        async with (
            self._limits.enter(
                scope, principal, tokens=lambda: estimate(request.messages) + request.max_tokens
            ) as running,
            self._idempotency.claim(scope, principal.account.account_id, call.body) as claim,
        ):
            if claim.answer is not None:
                await writer.repeat(claim.answer)
                return
            prompt_tokens = estimate(request.messages)
            hold = await self._hold(call, request, prompt_tokens)
            # A small balance, or a small remainder of a key's limit, gives a short answer instead of a refusal.
            if hold.amount - prompt_tokens < request.max_tokens:
                request = msgspec.structs.replace(request, max_tokens=hold.amount - prompt_tokens)
            answer = ChatAnswer(scope, self._provider, prompt_tokens, claim)
            # What a caller has seen of a failed answer counts towards its daily bound of unpaid usage. An answer that
            # is sent in one piece has not been seen before its end.
            seen = answer.consumed if writer.is_streaming else lambda: prompt_tokens
            async with CallSettlement(self._quotas, hold, estimate=answer.consumed, seen=seen) as settlement:
                # What the call was charged replaces the estimate in the count of its key's tokens.
                running.consumed = lambda: settlement.charged
                await self._converse(call, request, answer, settlement, writer)

    async def _hold(self, call: IncomingCall[Principal], request: ChatRequest, prompt_tokens: int) -> Hold:
        """Hold the most that the call can cost, or what the quota has, but enough for one token of an answer."""
        principal = call.principal
        return await self._quotas.hold(
            principal.account,
            Meter.TOKENS,
            prompt_tokens + request.max_tokens,
            need=prompt_tokens + 1,
            request_id=request_id(call.scope),
            key_id=principal.key_id,
            pair=principal.unconfirmed,
            watch=partial(CancelIfGone, call.scope, call.receive),
            prompt_estimate=prompt_tokens,
            completion_limit=request.max_tokens,
        )

    async def _converse(
        self,
        call: IncomingCall[Principal],
        request: ChatRequest,
        answer: ChatAnswer,
        settlement: CallSettlement,
        writer: ChatWriter,
    ) -> None:
        """Ask the provider and have its answer written, watching for a client that disconnects at any time."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an endpoint runs in a task
        loop = asyncio.get_running_loop()
        scope, times = call.scope, self._times
        ends_at = loop.time() + times.call
        # Before the first frame a client that leaves cancels its question. One that sent a key comes back for the
        # answer, so its call continues and is charged once.
        on_gone = _keep_running if answer.is_stored else task.cancel
        with ClientWatch(scope, call.receive, on_gone) as client:
            try:
                stream = await self._provider.ask(request, on_sent=partial(settlement.reached, Stage.SENT))
            except asyncio.CancelledError:
                if not client.is_gone:
                    raise
                # The client watch cancelled this task, not the server: clear the cancellation and report the reason.
                task.uncancel()
                raise ClientGone from None
            note(scope, warm=stream.is_warm)
            settlement.reached(Stage.FIRST_FRAME, sid=stream.sid)
            answer.begin(stream, settlement, client)
            drain: asyncio.TimerHandle | None = None

            def client_gone() -> None:
                # What has been generated must be paid for, and the platform reports the usage in the last frame only.
                # So the rest is read for a limited time. With a key there is no limit: the client comes back for the
                # answer, and would be charged twice if it were cut off.
                nonlocal drain
                if not answer.is_stored:
                    drain = loop.call_later(times.drain, stream.abort, ClientGone())

            client.on_gone = client_gone
            time_limit = CallTimeLimit(scope, stream, client, loop, times.call, ends_at)
            try:
                with self._running.streaming(stream), time_limit:
                    await writer.write(answer)
            finally:
                answer.end()
                # Stops the generation at the provider, if the answer is incomplete.
                stream.close()
                if drain is not None:
                    drain.cancel()
                note(scope, sid=stream.sid)
                if client.is_gone:
                    note(scope, outcome="client gone")


def _keep_running() -> None:
    """Let a client disconnect without ending its call."""
