"""All generated pages, by their paths in the clone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from tools.reference.catalogue import Catalogue, Translate, english
from tools.reference.commands import commands_page
from tools.reference.errors import errors_page
from tools.reference.settings import settings_page

__all__ = ["PAGES", "pages"]

PAGES: Final[Mapping[str, Callable[[Translate], str]]] = MappingProxyType(
    {"settings.md": settings_page, "commands.md": commands_page, "errors.md": errors_page}
)

NOTICE: Final = "<!-- Written by `python -m tools.reference` from the code. Do not edit this page. -->\n\n"


def pages() -> dict[str, str]:
    """Return the text of each page, by its path relative to the clone.

    Raises:
        Untranslated: the catalogue and the code differ.
    """
    chinese = Catalogue()
    written = {
        f"docs/{language}/reference/{name}": NOTICE + page(translate)
        for language, translate in (("en", english), ("zh", chinese))
        for name, page in PAGES.items()
    }
    chinese.check()
    return written
