"""iFlytek's platform: Spark chat, dictation and picture text.

Sources: the vendor's documents, named in `aiproject.protocols.iflytek`.
"""

from aiproject.providers.iflytek.connector import IflytekConnector, TimeLimits
from aiproject.providers.iflytek.dictation import IflytekDictation
from aiproject.providers.iflytek.ocr import IflytekOcr
from aiproject.providers.iflytek.spark import IflytekSpark

__all__ = ["IflytekConnector", "IflytekDictation", "IflytekOcr", "IflytekSpark", "TimeLimits"]
