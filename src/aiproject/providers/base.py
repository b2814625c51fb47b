"""What the relay asks of an upstream, in words that no vendor owns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiproject.media import Pcm, Picture
from aiproject.protocols.chat import ChatEvent, ChatRequest, Usage
from aiproject.protocols.iflytek.ocr import OcrText

__all__ = ["ChatStream", "ChatUpstream", "Dictated", "DictationUpstream", "OcrUpstream"]


class ChatStream(Protocol):
    """One answer on its way. `close` it on every path; that stops the generation upstream.

    Attributes:
        sid: the vendor's session id, once a frame told it.
        usage: what the answer consumed, once upstream told it.
        is_warm: the connection was open before the question came.
    """

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
            UpstreamFailed: the answer ends here; nothing is charged by the vendor's word.
            BaseException: what `abort` was given.
        """
        ...

    def abort(self, reason: BaseException) -> None:
        """Make the waiting `receive` (and every later one) raise ``reason``; callable from any callback of the loop."""
        ...

    def close(self) -> None:
        """Let go of the connection; harmless when repeated."""
        ...


class ChatUpstream(Protocol):
    """A text model behind some vendor's protocol."""

    async def ask(self, request: ChatRequest, *, on_sent: Callable[[], None] = lambda: None) -> ChatStream:
        """Send the question and return once the first event is there (it is the first that `receive` returns).

        Args:
            on_sent: called when the question may have reached upstream, which may bill it from then on; once for each
                try.

        Tries again on a new connection where that makes sense: nothing has reached the caller by then.

        Raises:
            InvalidInput: the dialog holds nothing that the model accepts.
            UpstreamFailed: also after the last try.
        """
        ...


@dataclass(frozen=True, slots=True)
class Dictated:
    """What was heard: the text (may be empty: silence) and the vendor's session id."""

    text: str
    sid: str | None


class DictationUpstream(Protocol):
    """Speech to text, one clip of at most 60 s a call."""

    async def hear(self, audio: Pcm) -> Dictated:
        """Return what was said.

        Raises:
            UpstreamFailed: also after the last try.
        """
        ...


class OcrUpstream(Protocol):
    """Picture to text, one picture a call."""

    async def read(self, picture: Picture) -> OcrText:
        """Return the text in the picture; empty where there is none.

        Raises:
            UpstreamFailed: also after the last try.
        """
        ...
