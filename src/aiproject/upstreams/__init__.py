"""The vendor clients: what the relay asks, and the adapters that carry the protocol cores over real connections.

The interfaces stand in `aiproject.upstreams.interface`; an upstream is chosen in `aiproject.wiring`.
"""

from aiproject.upstreams.dictation import IflytekDictation
from aiproject.upstreams.interface import ChatStream, ChatUpstream, Dictated, DictationUpstream, OcrUpstream
from aiproject.upstreams.link import Link, TimeLimits
from aiproject.upstreams.ocr import IflytekOcr
from aiproject.upstreams.spark import SparkUpstream

__all__ = [
    "ChatStream",
    "ChatUpstream",
    "Dictated",
    "DictationUpstream",
    "IflytekDictation",
    "IflytekOcr",
    "Link",
    "OcrUpstream",
    "SparkUpstream",
    "TimeLimits",
]
