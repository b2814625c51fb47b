"""The vendor clients: what the relay asks, and the adapters that carry the protocol cores over real connections.

The interfaces stand in `aiproject.providers.base`; an upstream is chosen in `aiproject.wiring`.
"""

from aiproject.providers.base import ChatProvider, ChatStream, DictationProvider, OcrProvider, RecognizedText
from aiproject.providers.iflytek.connector import IflytekConnector, TimeLimits
from aiproject.providers.iflytek.dictation import IflytekDictation
from aiproject.providers.iflytek.ocr import IflytekOcr
from aiproject.providers.iflytek.spark import IflytekSpark

__all__ = [
    "ChatProvider",
    "ChatStream",
    "DictationProvider",
    "IflytekConnector",
    "IflytekDictation",
    "IflytekOcr",
    "IflytekSpark",
    "OcrProvider",
    "RecognizedText",
    "TimeLimits",
]
