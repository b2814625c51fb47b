"""The providers: vendors' services behind one contract.

`base` is the contract, `iflytek` fulfils it for the platform, and `wiring` opens what the settings name. Calls depend
on the contract alone.
"""

from aiproject.providers.base import (
    ChatProvider,
    ChatStream,
    DictationProvider,
    ModelLimits,
    OcrProvider,
    RecognizedText,
)

__all__ = ["ChatProvider", "ChatStream", "DictationProvider", "ModelLimits", "OcrProvider", "RecognizedText"]
