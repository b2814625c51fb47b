"""Looks texts up in the other language, and keeps account of what is missing and what is no longer used."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Protocol

__all__ = ["CHINESE", "ENGLISH", "Catalogue", "Translate", "Untranslated", "english", "paragraphs"]

CHINESE = Path(__file__).with_name("zh.toml")
"""The Chinese of the English texts of settings, commands and the pages themselves."""

ENGLISH = Path(__file__).with_name("en.toml")
"""The English of the Chinese texts of the OpenAPI description."""


class Untranslated(Exception):
    """A catalogue lacks texts that the code has, or has texts that the code no longer has."""


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
    """Texts in one language, by the text in the other as it stands in the code.

    Args:
        path: a TOML file whose tables group the texts for the reader only.

    Raises:
        Untranslated: a text stands in two tables.
    """

    def __init__(self, path: Path = CHINESE) -> None:
        self._name = path.name
        self._texts: dict[str, str] = {}
        self._used: set[str] = set()
        self._missing: list[str] = []
        for table in tomllib.loads(path.read_text(encoding="utf-8")).values():
            twice = self._texts.keys() & table.keys()
            if twice:
                raise Untranslated(f"{path.name} has these texts twice: {sorted(twice)}")
            self._texts |= table

    def __call__(self, text: str, **parameters: object) -> str:
        """Return the translation of ``text``; the text itself, noted as missing, where there is none."""
        self._used.add(text)
        if text not in self._texts:
            self._missing.append(text)
        return english(self._texts.get(text, text), **parameters)

    def check(self) -> None:
        """Complain of every text that was asked for in vain, and of every one that nothing asked for.

        Raises:
            Untranslated: with a line for each.
        """
        complaints = [f"{self._name} has no translation of: {text!r}" for text in dict.fromkeys(self._missing)]
        complaints += [
            f"{self._name} has a text that no page uses: {text!r}" for text in self._texts.keys() - self._used
        ]
        if complaints:
            raise Untranslated("\n".join(sorted(complaints)))
