"""The console's trial of the text model: one call, charged to no account and recorded in the audit log."""

from __future__ import annotations

from dataclasses import dataclass

from aiproject.administration.bodies import TrialQuestion
from aiproject.audit.model import AuditContext, Fact
from aiproject.audit.service import AuditLog
from aiproject.calls.running import RunningCalls
from aiproject.errors import InvalidInput, UpstreamFailed
from aiproject.protocols.chat import ChatMessage, ChatRequest, Usage
from aiproject.providers.base import ChatProvider

__all__ = ["ModelTrial", "TrialAnswer", "trial_request"]

MAX_TOKENS = 8192
"""The console's slider ends there; the platform takes 1 to 8192 for most models, the upstream lowers it for others."""

MIN_TEMPERATURE = 0.01
"""The platform takes (0, 1]; the console's slider begins at 0."""


@dataclass(frozen=True, slots=True)
class TrialAnswer:
    """The model's answer, and the tokens that it consumed."""

    content: str
    consumed: int


def trial_request(question: TrialQuestion) -> ChatRequest:
    """Return the console's question with its numbers brought into the platform's bounds.

    Raises:
        InvalidInput: a text has a lone surrogate, which no frame can carry.
    """
    try:
        for message in question.dialog:
            message.content.encode()
    except UnicodeEncodeError:
        raise InvalidInput from None
    messages = tuple(ChatMessage(message.role, message.content) for message in question.dialog)
    return ChatRequest(
        messages,
        max_tokens=int(_clamped(question.limit, 1, MAX_TOKENS)),
        temperature=_clamped(question.temperature, MIN_TEMPERATURE, 1.0),
        top_k=int(_clamped(question.top_k, 1, 6)),
    )


def _clamped(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)


class ModelTrial:
    """Asks the model for an administrator."""

    def __init__(self, upstream: ChatProvider, calls: RunningCalls, audit: AuditLog) -> None:
        self._upstream = upstream
        self._calls = calls
        self._audit = audit

    async def ask(self, request: ChatRequest, origin: AuditContext) -> TrialAnswer:
        """Return the whole answer. What it consumed is recorded in the audit log and charged to no account.

        Raises:
            InvalidInput: the dialog holds nothing that the model accepts.
            UpstreamFailed: the platform's fault.
            Unavailable: the server is stopping, or the audit log cannot be written: then there is no answer.
        """
        facts: dict[str, Fact] = {
            "limit": request.max_tokens,
            "top_k": request.top_k,
            "temperature": request.temperature,
        }
        try:
            with self._calls.enter():
                answer = await self._ask(request)
        except UpstreamFailed as error:
            await self._note(origin, facts | {"outcome": type(error).__name__})
            raise
        await self._note(origin, facts | {"outcome": "finished", "tokens": answer.consumed})
        return answer

    async def _ask(self, request: ChatRequest) -> TrialAnswer:
        stream = await self._upstream.ask(request)
        parts: list[str] = []
        try:
            with self._calls.streaming(stream):
                is_whole = False
                while not is_whole:
                    for event in await stream.receive():
                        parts.append(event.text)
                        is_whole = event.is_last
        finally:
            stream.close()
        content = "".join(parts)
        return TrialAnswer(content, (stream.usage or self._estimate(request, content)).total_tokens)

    async def _note(self, origin: AuditContext, facts: dict[str, Fact]) -> None:
        await self._audit.record(origin, "model.trial", "text model", after=facts)

    def _estimate(self, request: ChatRequest, content: str) -> Usage:
        prompt = self._upstream.estimate_prompt(request.messages)
        completion = self._upstream.estimate_tokens(content)
        return Usage(prompt, completion, prompt + completion)
