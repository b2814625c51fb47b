"""Looks up the Chinese of an English text, and keeps account of what is missing and what is no longer used."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Protocol

__all__ = ["CATALOGUE", "Catalogue", "Translate", "Untranslated", "english", "paragraphs"]

CATALOGUE = Path(__file__).with_name("zh.toml")


class Untranslated(Exception):
    """Texts of the code have no Chinese in the catalogue, or the catalogue has texts that the code no longer has."""


class Translate(Protocol):
    """Returns a text in the language of the page that is being written; parameters fill ``{name}`` in it."""

    def __call__(self, text: str, **parameters: object) -> str: ...


def english(text: str, **parameters: object) -> str:
    """Return the text itself."""
    return text.format(**parameters) if parameters else text


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text, which blank lines part, each in one line."""
    return [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]


class Catalogue:
    """The Chinese texts of ``zh.toml``, by their English.

    Args:
        path: a TOML file whose tables group the texts for the reader only: keys are English, values Chinese.

    Raises:
        Untranslated: an English text stands in two tables.
    """

    def __init__(self, path: Path = CATALOGUE) -> None:
        self._texts: dict[str, str] = {}
        self._used: set[str] = set()
        self._missing: list[str] = []
        for table in tomllib.loads(path.read_text(encoding="utf-8")).values():
            twice = self._texts.keys() & table.keys()
            if twice:
                raise Untranslated(f"{path.name} has these texts twice: {sorted(twice)}")
            self._texts |= table

    def __call__(self, text: str, **parameters: object) -> str:
        """Return the Chinese of ``text``; the English, noted as missing, where there is none."""
        self._used.add(text)
        if text not in self._texts:
            self._missing.append(text)
        return english(self._texts.get(text, text), **parameters)

    def check(self) -> None:
        """Complain of every text that was asked for in vain, and of every one that nothing asked for.

        Raises:
            Untranslated: with a line for each.
        """
        complaints = [f"zh.toml has no Chinese for: {text!r}" for text in dict.fromkeys(self._missing)]
        complaints += [f"zh.toml has a text that no page uses: {text!r}" for text in self._texts.keys() - self._used]
        if complaints:
            raise Untranslated("\n".join(sorted(complaints)))
