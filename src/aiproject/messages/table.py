"""The table of messages, from its parts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from aiproject.codes import Code, Detail, Success, Term
from aiproject.messages.answers import SUCCESSES, TERMS
from aiproject.messages.commands import LINES, Line
from aiproject.messages.failures import CODES, DETAILS
from aiproject.messages.operators import OPERATOR_DETAILS
from aiproject.messages.text import Text
from aiproject.messages.vendor import VENDOR_DETAILS

__all__ = ["TABLE", "MessageCode"]

MessageCode = Code | Detail | Success | Term | Line
"""What has a sentence, or stands in one."""

_PARTS: Final[tuple[Mapping[Any, Text], ...]] = (
    CODES,
    DETAILS,
    VENDOR_DETAILS,
    OPERATOR_DETAILS,
    SUCCESSES,
    TERMS,
    LINES,
)

TABLE: Final[Mapping[MessageCode, Text]] = MappingProxyType(
    {code: text for part in _PARTS for code, text in part.items()}
)
"""Every message, by its code. No two codes of different kinds have the same value, which a test ensures."""
