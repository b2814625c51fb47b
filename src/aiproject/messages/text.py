"""One entry of the table of messages."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Text"]


class Text(NamedTuple):
    """A message in both languages; ``{name}`` in it is filled by the parameter of that name.

    Attributes:
        zh: Chinese, without a full stop where it is a single sentence, as the apps show it.
        en: English, likewise.
    """

    zh: str
    en: str
