"""The vendor's two dictation protocols: how a URL selects one, their options, and their limits.

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
"""Samples per second; the vendor supports no others."""

BYTES_PER_SAMPLE = 2
"""16 bits, mono, little-endian."""

MAX_AUDIO_SECONDS = 60
"""Audio of one connection; the platform refuses more with 10114."""

MAX_AUDIO_BASE64 = 13_000
"""Base64 characters in one frame; the classic protocol refuses more with 10163. The document of the large model allows
more, but larger frames have no advantage, so one limit serves both."""

MAX_AUDIO_BYTES_PER_FRAME = MAX_AUDIO_BASE64 // 4 * 3
"""9750 bytes of PCM, the same limit before Base64."""


class DictationDialect(StrEnum):
    """The two generations of the protocol. Their frames have only the order of messages in common."""

    CLASSIC = "classic"
    LARGE_MODEL = "large-model"


_END_OF_SPEECH_MS = {DictationDialect.CLASSIC: (1, 10_000), DictationDialect.LARGE_MODEL: (600, 60_000)}


@dataclass(frozen=True, slots=True)
class DictationOptions:
    """Options of the recogniser.

    Attributes:
        language: ``zh_cn``, ``en_us`` (classic), ``mul_cn`` (large model), or a value that the vendor's console shows.
        accent: ``mandarin``, ``mulacc`` (the large model's dialects); empty: not sent.
        domain: empty selects the dialect's general one: ``iat`` (classic), ``slm`` (large model).
        dynamic_correction: whether to request ``dwa=wpgs``, with which later pieces correct earlier ones. It improves
            interim text and does not change the final text; without a licence the vendor ignores it silently.
        end_of_speech_ms: silence after which the vendor ends the session. The default is the largest value that the
            classic protocol accepts, so that a pause does not truncate a clip.
        punctuation: whether the text has punctuation.
    """

    language: str = "zh_cn"
    accent: str = "mandarin"
    domain: str = ""
    dynamic_correction: bool = False
    end_of_speech_ms: int = 10_000
    punctuation: bool = True

    def check(self, dialect: DictationDialect) -> None:
        """Raise `errors.Misconfigured` if the dialect does not support these options."""
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
        """Return the domain to send."""
        return self.domain or ("iat" if dialect is DictationDialect.CLASSIC else "slm")


def dictation_dialect(url: str) -> DictationDialect:
    """Return the dialect for the path of a dictation URL.

    Only the path decides, not the host or the port, so that other implementations of the platform work at any address,
    also behind a path prefix. ``…/v2/iat`` is classic, ``…/v1`` the large model. Any other path counts as classic: that
    is the protocol of the default URL and of other implementations, and its error frames show at once if the choice was
    wrong.

    Raises:
        errors.Misconfigured: the URL cannot be parsed.
    """
    try:
        path = urlsplit(url).path.rstrip("/")
    except ValueError as broken:
        raise errors.Misconfigured(Detail.DICTATION_URL_MALFORMED) from broken
    if path.endswith("/v1"):
        return DictationDialect.LARGE_MODEL
    return DictationDialect.CLASSIC
