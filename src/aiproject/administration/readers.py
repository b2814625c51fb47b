"""How fields are read that the console and operators' scripts write more freely than their JSON type allows.

Each makes a value and raises `ValueError` for what it does not take; see `aiproject.adapters.http.fields.reads`.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, Final

from msgspec import Meta

from aiproject.adapters.http.fields import reads
from aiproject.administration.model import Role

__all__ = [
    "read_filled",
    "read_filter",
    "read_flag",
    "read_moment",
    "read_role",
    "read_slider",
    "read_trimmed",
    "read_units",
    "reads_at_most",
]

MAX_FILTER_LENGTH: Final = 200
"""Characters of one filter of the audit log."""


def read_filled(value: Any) -> str:
    """Read a text that holds something; blanks around it stay, since the use case trims what it stores."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("blank, or no text")
    return value


def read_trimmed(value: Any) -> str | None:
    """Read a text without the blanks around it; ``None`` for an empty one and for ``null``."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("no text")
    return value.strip() or None


def read_units(value: Any) -> Any:
    """Read a number of tokens or pictures; a text of digits is one, as forms send it."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) <= 16:
        return int(value)
    return value


def read_flag(value: Any) -> bool:
    """Read a switch: 0 or 1, as number, text or boolean."""
    if value in (True, "1", "true"):
        return True
    if value in (False, "0", "false"):
        return False
    raise ValueError("no switch")


def read_role(value: Any) -> Role | None:
    """Read a role; ``None`` where it is left empty."""
    word = read_trimmed(value)
    return None if word is None else Role(word)


def read_slider(value: Any) -> int | float:
    """Read a number of any size, as the console's sliders give it; it is brought into the platform's bounds later."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("no number")
    if isinstance(value, float) and not math.isfinite(value):  # an int can be too large to be asked
        raise ValueError("no finite number")
    return value


def reads_at_most(most: int) -> Meta:
    """Return the annotation of a number of a query, which counts as ``most`` where it is larger."""

    def read(text: Any) -> int:
        if not text or len(text) > 12 or not (text.isascii() and text.isdigit()):
            raise ValueError("no number")
        return min(int(text), most)

    return reads(read)


def read_filter(text: Any) -> str:
    """Read a filter of the audit log."""
    if "\0" in text or len(text) > MAX_FILTER_LENGTH:
        raise ValueError("no filter")
    return str(text)


def read_moment(text: Any) -> int:
    """Read a moment: milliseconds since 1970, or ISO 8601 with a zone."""
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return int(text)
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no zone")
    try:
        return int(moment.timestamp() * 1000)
    except OverflowError:
        raise ValueError("out of the calendar") from None
