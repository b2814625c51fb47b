"""The preferred language of a reader: from ``Accept-Language``, or from the variables of a POSIX locale."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from aiproject.messages.formatting import Language

__all__ = ["locale_language", "preferred_language"]

MAX_HEADER_LENGTH = 1024
"""Characters of an ``Accept-Language`` that are read; browsers send a few dozen."""

_RANGE = re.compile(
    r"\s*([A-Za-z]{1,8}|\*)((?:-[A-Za-z0-9]{1,8})*)\s*(?:;\s*[qQ]\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*)?"
)
_LOCALE_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")


def preferred_language(accept_language: str | None) -> Language:
    """Return the language in which to answer a request.

    This is the acceptable language with the highest quality; of several, the one that is named first. A range stands
    for its primary subtag (``zh-TW`` for ``zh``), as in the lookup of RFC 4647, section 3.4; ``*`` stands for the
    languages that no other range names. Malformed members are ignored.

    Args:
        accept_language: the field's value (RFC 9110, section 12.5.4); ``None`` if the field is missing.

    Returns:
        `Language.ZH` if the field is missing or names no supported language.
    """
    qualities: dict[str, float] = {}
    for subtag, quality in _ranges((accept_language or "")[:MAX_HEADER_LENGTH]):
        qualities[subtag] = max(quality, qualities.get(subtag, 0.0))
    offered = [Language(subtag) for subtag in qualities if subtag in tuple(Language)]
    offered += [language for language in Language if language not in offered]  # for `*`: Chinese comes first
    best = max(offered, key=lambda language: qualities.get(language, qualities.get("*", 0.0)))
    return best if qualities.get(best, qualities.get("*", 0.0)) > 0 else Language.ZH


def _ranges(header: str) -> Iterator[tuple[str, float]]:
    for member in header.split(","):
        found = _RANGE.fullmatch(member)
        if found is not None and not (found[1] == "*" and found[2]):
            yield found[1].lower(), float(found[3] or 1)


def locale_language(environment: Mapping[str, str]) -> Language:
    """Return the language of commands, from ``LC_ALL``, ``LC_MESSAGES`` or ``LANG``: the first that is not empty.

    Returns:
        `Language.ZH` for every Chinese locale (``zh_CN.UTF-8``, ``zh_TW``), otherwise `Language.EN`.
    """
    locale = next((environment[name] for name in _LOCALE_VARIABLES if environment.get(name)), "")
    return Language.ZH if re.match(r"zh(?![A-Za-z])", locale) else Language.EN
