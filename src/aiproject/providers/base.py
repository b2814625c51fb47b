"""The provider contract: what a call asks of a vendor's service, in terms that no vendor owns.

A provider is a class that implements one of the protocols below; `tests/contract/test_provider_contract.py` holds what
each must do beyond its types. Failures are `aiproject.errors.UpstreamFailed` with a `aiproject.errors.Reason`, which
says whether another try (`retryable`) or another route (`may_reroute`) makes sense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiproject.media.audio import Pcm
from aiproject.media.picture import Picture
from aiproject.protocols.chat import ChatEvent, ChatMessage, ChatRequest, Usage

__all__ = ["ChatProvider", "ChatStream", "DictationProvider", "ModelLimits", "OcrProvider", "RecognizedText"]


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What a model takes, in tokens of its own tokenizer.

    Attributes:
        context: prompt and completion together.
        completion: the largest ``max_tokens``.
    """

    context: int
    completion: int


class ChatStream(Protocol):
    """One answer on its way. `close` it on every path; that stops the generation at the provider.

    Attributes:
        native_format: the protocol whose messages `ChatEvent.native` holds, for example ``spark``; ``None``: none.
        sid: the vendor's session id, once a message told it.
        usage: what the answer consumed, once the provider told it. It is bounded: never negative, never absurd.
        is_warm: the connection was open before the question came.
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
        """Return the next events, all that are here and at least one; after one with ``is_last`` there is none.

        Where the answer ends badly after some of them, those come first and the error with the next call.

        Raises:
            UpstreamFailed: the answer ends here; its ``reason`` decides what is charged.
            BaseException: what `abort` was given.
        """
        ...

    def abort(self, reason: BaseException) -> None:
        """Make the waiting `receive` (and every later one) raise ``reason``; callable from any callback of the loop."""
        ...

    def close(self) -> None:
        """Let go of the connection; harmless when repeated."""
        ...


class ChatProvider(Protocol):
    """A text model behind some vendor's protocol."""

    def limits(self, model: str) -> ModelLimits:
        """Return what ``model`` takes; for a model that the provider does not know, the least that any of its takes."""
        ...

    def estimate_tokens(self, text: str) -> int:
        """Return about how many tokens a text has for this provider's models, rather too many than too few.

        0 only for an empty text. Every byte of an answer and of a question is charged by it where the provider tells
        no usage, so that it must not be cheap to fool.
        """
        ...

    def estimate_prompt(self, messages: Iterable[ChatMessage]) -> int:
        """Return about how many tokens the provider bills for a dialog as it sends it."""
        ...

    async def ask(self, request: ChatRequest, *, on_sent: Callable[[], None] = lambda: None) -> ChatStream:
        """Send the question and return once the first event is there (it is the first that `receive` returns).

        Tries again on a new connection where that makes sense: nothing has reached the caller by then.

        Args:
            on_sent: called when the question may have reached the provider, which may bill it from then on; once for
                each try.

        Raises:
            InvalidInput: the request holds nothing that the model accepts, or asks for what the model cannot do.
            UpstreamFailed: also after the last try.
        """
        ...


@dataclass(frozen=True, slots=True)
class RecognizedText:
    """What was heard or read.

    Attributes:
        text: may be empty: silence, or a picture without text.
        sid: the vendor's session id, where it gave one.
    """

    text: str
    sid: str | None


class DictationProvider(Protocol):
    """Speech to text, one clip of at most 60 s a call."""

    async def transcribe(self, audio: Pcm) -> RecognizedText:
        """Return what was said.

        Raises:
            UpstreamFailed: also after the last try.
        """
        ...


class OcrProvider(Protocol):
    """Picture to text, one picture a call."""

    async def read(self, picture: Picture) -> RecognizedText:
        """Return the text in the picture.

        Raises:
            UpstreamFailed: also after the last try.
        """
        ...
