"""Which of the vendor's two dictation protocols a URL speaks, what can be asked of it, and its limits.

Sources: iFlytek, 《语音听写（流式版）WebAPI 文档》 (classic, ``/v2/iat``) and 《中英识别大模型 WebAPI 文档》 with
《方言识别大模型》 (large model, ``/v1``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from aiproject import errors
from aiproject.codes import Detail

__all__ = [
    "BYTES_PER_SAMPLE",
    "MAX_AUDIO_BASE64",
    "MAX_AUDIO_BYTES_PER_FRAME",
    "MAX_AUDIO_SECONDS",
    "SAMPLE_RATES",
    "DictationDialect",
    "DictationOptions",
    "dictation_dialect",
]

SAMPLE_RATES = (8000, 16000)
"""Samples a second; the vendor knows no others."""

BYTES_PER_SAMPLE = 2
"""16 bit, mono, little-endian."""

MAX_AUDIO_SECONDS = 60
"""Audio of one connection; more is refused with 10114."""

MAX_AUDIO_BASE64 = 13_000
"""Base64 characters in one frame; more is refused with 10163 by the classic protocol. The large model's document
allows more, yet nothing is won by larger frames, so one limit serves both."""

MAX_AUDIO_BYTES_PER_FRAME = MAX_AUDIO_BASE64 // 4 * 3
"""9750 bytes of PCM, the same limit before Base64."""


class DictationDialect(StrEnum):
    """The two generations of the protocol. Their frames share nothing but the order of things."""

    CLASSIC = "classic"
    LARGE_MODEL = "large-model"


_END_OF_SPEECH_MS = {DictationDialect.CLASSIC: (1, 10_000), DictationDialect.LARGE_MODEL: (600, 60_000)}


@dataclass(frozen=True, slots=True)
class DictationOptions:
    """What is asked of the recogniser.

    Attributes:
        language: ``zh_cn``, ``en_us`` (classic), ``mul_cn`` (large model), or what the vendor's console shows.
        accent: ``mandarin``, ``mulacc`` (large model's dialects); empty: not sent.
        domain: empty stands for the dialect's general one: ``iat`` (classic), ``slm`` (large model).
        dynamic_correction: ask for ``dwa=wpgs``, by which later pieces correct earlier ones. It makes interim text
            better and the final text no different; without a licence the vendor ignores it silently.
        end_of_speech_ms: silence after which the vendor ends the session by itself. The default is the most that the
            classic protocol takes, so that a pause does not cut a clip in two.
        punctuation: write punctuation.
    """

    language: str = "zh_cn"
    accent: str = "mandarin"
    domain: str = ""
    dynamic_correction: bool = False
    end_of_speech_ms: int = 10_000
    punctuation: bool = True

    def check(self, dialect: DictationDialect) -> None:
        """Raise `errors.Misconfigured` if the dialect cannot carry these options."""
        low, high = _END_OF_SPEECH_MS[dialect]
        if not low <= self.end_of_speech_ms <= high:
            raise errors.Misconfigured(
                Detail.DICTATION_SILENCE_OUT_OF_RANGE,
                least=low,
                most=high,
                dialect=dialect.value,
                milliseconds=self.end_of_speech_ms,
            )
        if not self.language:
            raise errors.Misconfigured(Detail.DICTATION_LANGUAGE_MISSING)

    def domain_for(self, dialect: DictationDialect) -> str:
        """The domain as it is sent."""
        return self.domain or ("iat" if dialect is DictationDialect.CLASSIC else "slm")


def dictation_dialect(url: str) -> DictationDialect:
    """Tell the dialect from the path of a dictation URL.

    Only the path decides, never host or port, so that a stand-in for the platform works at any address, behind a
    path prefix as well. ``…/v2/iat`` is classic, ``…/v1`` the large model. Any other path counts as classic: that is
    the protocol of the default URL and the one that stand-ins of others speak, and its error frames say at once if
    the guess was wrong.

    Raises:
        errors.Misconfigured: this is no URL.
    """
    try:
        path = urlsplit(url).path.rstrip("/")
    except ValueError as broken:
        raise errors.Misconfigured(Detail.DICTATION_URL_MALFORMED) from broken
    if path.endswith("/v1"):
        return DictationDialect.LARGE_MODEL
    return DictationDialect.CLASSIC
