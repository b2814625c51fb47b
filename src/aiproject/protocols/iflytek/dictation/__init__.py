"""Dictation: sound in, text out, over a websocket, in both generations of the vendor's protocol.

`dialect` tells the generations apart, `client` is our side with `transcript` as its memory, `server` is the
platform's side (for the sandbox).
"""

from aiproject.protocols.iflytek.dictation.client import (
    MAX_FRAME_BYTES,
    DictationConversation,
    DictationResult,
    dictation_conversation,
)
from aiproject.protocols.iflytek.dictation.dialect import (
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
from aiproject.protocols.iflytek.dictation.server import AudioPiece, DictationRequestError, DictationServerSession
from aiproject.protocols.iflytek.dictation.transcript import MAX_PIECES, MAX_SN, MAX_TRANSCRIPT, Transcript

__all__ = [
    "BYTES_PER_SAMPLE",
    "MAX_AUDIO_BASE64",
    "MAX_AUDIO_BYTES_PER_FRAME",
    "MAX_AUDIO_SECONDS",
    "MAX_FRAME_BYTES",
    "MAX_PIECES",
    "MAX_SN",
    "MAX_TRANSCRIPT",
    "RECOMMENDED_FRAME_BYTES",
    "RECOMMENDED_FRAME_SECONDS",
    "SAMPLE_RATES",
    "AudioPiece",
    "DictationConversation",
    "DictationDialect",
    "DictationOptions",
    "DictationRequestError",
    "DictationResult",
    "DictationServerSession",
    "Transcript",
    "dictation_conversation",
    "dictation_dialect",
]
