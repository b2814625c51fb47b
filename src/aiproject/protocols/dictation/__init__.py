"""Dictation: sound in, text out, over a websocket, in both generations of the vendor's protocol.

`dialect` tells the generations apart, `server` is the platform's side (for the sandbox).
"""

from aiproject.protocols.dictation.dialect import (
    BYTES_PER_SAMPLE,
    MAX_AUDIO_BASE64,
    MAX_AUDIO_BYTES_PER_FRAME,
    MAX_AUDIO_SECONDS,
    RECOMMENDED_FRAME_BYTES,
    RECOMMENDED_FRAME_SECONDS,
    SAMPLE_RATES,
    DictationDialect,
    DictationOptions,
    dictation_dialect,
)
from aiproject.protocols.dictation.server import AudioPiece, DictationRequestError, DictationServerSession

__all__ = [
    "BYTES_PER_SAMPLE",
    "MAX_AUDIO_BASE64",
    "MAX_AUDIO_BYTES_PER_FRAME",
    "MAX_AUDIO_SECONDS",
    "RECOMMENDED_FRAME_BYTES",
    "RECOMMENDED_FRAME_SECONDS",
    "SAMPLE_RATES",
    "AudioPiece",
    "DictationDialect",
    "DictationOptions",
    "DictationRequestError",
    "DictationServerSession",
    "dictation_dialect",
]
