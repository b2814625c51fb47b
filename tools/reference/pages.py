"""All generated pages, by their paths in the clone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from aiproject.messages.table import TABLE
from tools.reference.api import api_page
from tools.reference.catalogue import ENGLISH, Catalogue, Translate, english
from tools.reference.commands import commands_page
from tools.reference.errors import errors_page
from tools.reference.settings import settings_page

__all__ = ["PAGES", "pages"]

PAGES: Final[Mapping[str, Callable[[Translate], str]]] = MappingProxyType(
    {"settings.md": settings_page, "commands.md": commands_page, "errors.md": errors_page}
)

NOTICE: Final = "<!-- Written by `python -m tools.reference` from the code. Do not edit this page. -->\n\n"

_CHINESE: Final = re.compile(r"[\u4e00-\u9fff]")


def pages() -> dict[str, str]:
    """Return the text of each page, by its path relative to the clone.

    Raises:
        Untranslated: a catalogue and the code differ.
    """
    chinese, to_english = Catalogue(), Catalogue(ENGLISH)
    written = {
        f"docs/{language}/reference/{name}": NOTICE + page(translate)
        for language, translate in (("en", english), ("zh", chinese))
        for name, page in PAGES.items()
    }
    # The OpenAPI description is written in Chinese, so it is the English page that needs a catalogue.
    messages = {text.zh: text.en for text in TABLE.values()}
    written["docs/en/reference/api.md"] = NOTICE + api_page(
        english, lambda text: messages.get(text) or (to_english(text) if _CHINESE.search(text) else text)
    )
    written["docs/zh/reference/api.md"] = NOTICE + api_page(
        chinese, lambda text: text if _CHINESE.search(text) else chinese(text)
    )
    chinese.check()
    to_english.check()
    return written
