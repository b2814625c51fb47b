"""The provider contract: what a call needs from a vendor's service, in terms that are independent of the vendor.

A provider is a class that implements one of the protocols below. `tests/contract/test_provider_contract.py` verifies
the behaviour that the types cannot express. Failures are `aiproject.errors.UpstreamFailed` with a
`aiproject.errors.Reason`; they say whether another attempt (`retryable`) or another route (`may_reroute`) makes sense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aiproject.media.audio import Pcm
from aiproject.protocols.chat import ChatEvent, ChatMessage, ChatRequest, Usage

if TYPE_CHECKING:
    from aiproject.media.picture import Picture

__all__ = ["ChatProvider", "ChatStream", "DictationProvider", "ModelLimits", "OcrProvider", "RecognizedText"]


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """The limits of a model, in tokens of its own tokenizer.

    Attributes:
        context: the limit of prompt and completion together.
        completion: the largest ``max_tokens``.
    """

    context: int
    completion: int


class ChatStream(Protocol):
    """One answer in progress. Call `close` on every path; it stops the generation at the provider.

    Attributes:
        native_format: the protocol whose messages `ChatEvent.native` holds, for example ``spark``; ``None``: none.
        sid: the vendor's session id, once a message contained it.
        usage: the consumption of the answer, once the provider reported it. The numbers are validated: they are neither
            negative nor implausibly large.
        is_warm: whether the connection was open before the question came.
    """

    @property
    def native_format(self) -> str | None: ...

    @property
    def is_warm(self) -> bool: ...

    @property
    def sid(self) -> str | None: ...

    @property
    def usage(self) -> Usage | None: ...

    async def receive(self) -> Sequence[ChatEvent]:
        """Return the next events: all that have arrived, at least one. There are none after one with ``is_last``.

        If an answer fails after some events, these are returned first, and the next call raises the error.

        Raises:
            UpstreamFailed: the answer ends here; its ``reason`` decides what is charged.
            BaseException: the exception given to `abort`.
        """
        ...

    def abort(self, reason: BaseException) -> None:
        """Make the pending `receive` (and every later one) raise ``reason``; may be called from any callback."""
        ...

    def close(self) -> None:
        """Release the connection; may be called more than once."""
        ...


class ChatProvider(Protocol):
    """A text model behind a vendor's protocol."""

    def limits(self, model: str) -> ModelLimits:
        """Return the limits of ``model``; for an unknown model, the smallest limits of all models."""
        ...

    def estimate_tokens(self, text: str) -> int:
        """Return about how many tokens a text has for this provider's models, erring on the high side.

        The result is 0 only for an empty text. It is what an account is charged if the provider reports no usage, so
        it must be hard to find text that has far more tokens than estimated.
        """
        ...

    def estimate_prompt(self, messages: Iterable[ChatMessage]) -> int:
        """Return about how many tokens the provider bills for a dialog in the form in which it is sent."""
        ...

    async def ask(self, request: ChatRequest, *, on_sent: Callable[[], None] = lambda: None) -> ChatStream:
        """Send the question and return once the first event has arrived, which the first `receive` returns.

        Retries on a new connection where that makes sense: nothing has reached the caller by then.

        Args:
            on_sent: called when the question may have reached the provider, which may bill it from then on; once for
                each attempt.

        Raises:
            InvalidInput: the request holds nothing that the model accepts, or needs what the model does not support.
            UpstreamFailed: the last attempt failed, or the failure is not retryable.
        """
        ...


@dataclass(frozen=True, slots=True)
class RecognizedText:
    """The text recognised in a clip or a picture.

    Attributes:
        text: may be empty: silence, or a picture without text.
        sid: the vendor's session id, if there is one.
    """

    text: str
    sid: str | None


class DictationProvider(Protocol):
    """Speech to text, one clip of at most 60 s per call."""

    async def transcribe(self, audio: Pcm) -> RecognizedText:
        """Return the text of a clip.

        Raises:
            UpstreamFailed: the last attempt failed, or the failure is not retryable.
        """
        ...


class OcrProvider(Protocol):
    """Picture to text, one picture per call."""

    async def read(self, picture: Picture) -> RecognizedText:
        """Return the text in a picture.

        Raises:
            UpstreamFailed: the last attempt failed, or the failure is not retryable.
        """
        ...
