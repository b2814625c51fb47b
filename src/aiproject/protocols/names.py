"""Names of accounts and administrators: the keys that identify them, and the detection of misleading new names.

Sources: The Unicode Standard, sections 3.13 (D146 and D147, caseless matching; `NFKC_Casefold`) and 5.21 (default
ignorable code points); Unicode Technical Standard #39, sections 5.1 and 5.2 (scripts of a string, restriction levels),
5.3 (mixed numbers) and 5.4 (optional detection: invisible marks).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

__all__ = [
    "exact_name_key",
    "hides_characters",
    "is_reordering",
    "lookup_keys",
    "mixes_digits",
    "mixes_scripts",
    "name_key",
]

_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f-\u1160\u17b4-\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""`Default_Ignorable_Code_Point` of Unicode 17, which includes every `Bidi_Control` character.

The ranges are fixed here instead of taken from a library because stored keys depend on them: an update must not change
them. They include reserved code points, so that later characters of this kind are covered from the start.
"""

_REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Embeddings, overrides and isolates: the text after one of them may be displayed from right to left."""

_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
"""Categories that are not displayed: controls, annotation marks, private use, line separators."""

_INVISIBLE = re.compile(
    " {2}"  # a page displays two spaces as one
    "|[\u1680\u2800\ufffc\U00016fe4\U0001107f\U00013441-\U00013442\U0001d159]"  # blanks, fillers, joiners with a script
)
"""Characters displayed as nothing, or as something else, although their categories are those of visible characters."""

_HIDDEN_DOT = re.compile("[ijl\u0131\u0237\u0456\u0458][\u0316-\u0319\u031c-\u0333]*\u0307")
"""A dot above a letter that already has one or looks like one that has; marks below the letter may come between."""

_MAX_MARKS = 4
"""Nonspacing marks on one character: as many as UTS #39, section 5.4, allows. More would overlap neighbouring lines."""

_PLAIN = re.compile("[\u0000-\u007f\u3007\u4e00-\u9fff]*")
"""ASCII and the Chinese characters of nearly all names, which may be mixed with each other."""

_COMMON = frozenset({"Zyyy", "Zinh"})  # shared by all scripts: digits, punctuation, emoji, combining marks

_WRITING_SYSTEMS = {
    "Hani": {"Hanb", "Jpan", "Kore"},
    "Hira": {"Jpan"},
    "Kana": {"Jpan"},
    "Hang": {"Kore"},
    "Bopo": {"Hanb"},
}
"""Writing systems that combine a script with others (UTS #39, table 1)."""

_HIGHLY_RESTRICTIVE = tuple(frozenset({"Latn", system}) for system in ("Hanb", "Jpan", "Kore"))
"""The combinations that the level "Highly Restrictive" allows beside single scripts (UTS #39, section 5.2)."""


def name_key(name: str) -> str:
    """Return the form under which a name is unique.

    Case, compatibility forms, surrounding blanks and invisible characters make no difference: ``"Ａlice "`` and
    ``"al\\u200bice"`` both become ``"alice"``. The key may be empty, or longer than the name. The function is
    idempotent.
    """
    if name.isascii():  # most names that programs choose, at a tenth of the time
        return name.lower().strip()
    key = name
    while True:  # a second pass is needed only if a compatibility form yields another ignorable character
        key = exact_name_key(_IGNORABLE.sub("", key))
        if not _IGNORABLE.search(key):
            return key


def exact_name_key(name: str) -> str:
    """Return the key of a name with its ignorable characters.

    Releases before migration 0004 stored this key. An account keeps it if its `name_key` belongs to another account.
    """
    key = unicodedata.normalize("NFD", name)
    for _ in range(2):
        # Twice, because case folding can produce text that normalises further, and the reverse.
        key = unicodedata.normalize("NFKC", key.casefold())
    return key.strip()


def lookup_keys(name: str) -> tuple[str, ...]:
    """Return the keys under which an existing name may be stored, the preferred one first."""
    exact, key = (name_key(name),) * 2 if name.isascii() else (exact_name_key(name), name_key(name))
    return tuple(dict.fromkeys(form for form in (exact, key) if form))


def is_reordering(name: str) -> bool:
    """Whether parts of the name may be displayed in an order other than the stored one."""
    return _REORDERING.search(name) is not None


def hides_characters(name: str) -> bool:
    """Whether a name has invisible characters, beyond those that its key ignores.

    These are blanks that look like one or none, format controls, private-use characters, a mark that covers the same
    mark, and a second dot on an ``"i"``.
    """
    visible = unicodedata.normalize("NFKC", _IGNORABLE.sub("", name))
    if _INVISIBLE.search(visible) or any(
        unicodedata.category(character) in _INVISIBLE_CATEGORIES for character in visible
    ):
        return True
    if visible.isascii():
        return False
    decomposed = unicodedata.normalize("NFD", visible)
    return _HIDDEN_DOT.search(decomposed) is not None or _stacks_marks(decomposed)


def _stacks_marks(decomposed: str) -> bool:
    last, count = "", 0
    for character in decomposed:
        count = count + 1 if unicodedata.category(character) == "Mn" else 0
        if count > _MAX_MARKS or (count and character == last):
            return True
        last = character
    return False


def mixes_digits(name: str) -> bool:
    """Whether a name has digits of several scripts, which may look alike: an Arabic digit like an ASCII one."""
    if _PLAIN.fullmatch(name):
        return False
    digits = (character for character in unicodedata.normalize("NFKC", name) if character.isdecimal())
    return len({ord(character) - unicodedata.decimal(character) for character in digits}) > 1


def mixes_scripts(name: str) -> bool:
    """Whether the scripts of a name go beyond UTS #39's level "Highly Restrictive".

    A name has one script, or Latin letters together with those of Chinese, Japanese or Korean: ``"小明Tom"`` is
    allowed, ``"раyраl"`` with Cyrillic letters is not. The level's restriction to identifier characters is not applied,
    because names contain blanks, punctuation and emoji.
    """
    if _PLAIN.fullmatch(name):
        return False
    characters = set(unicodedata.normalize("NFKC", _IGNORABLE.sub("", name)))
    scripts = [found for character in characters if (found := _scripts(character))]
    if not scripts or frozenset.intersection(*scripts):
        return False
    return not any(_is_covered(scripts, allowed) for allowed in _HIGHLY_RESTRICTIVE)


def _scripts(character: str) -> frozenset[str]:
    """Return a character's scripts and the writing systems that use them; empty: it is common to all scripts."""
    from fontTools.unicodedata import script_extension  # 2 MB of tables, which most names do not need

    scripts: set[str] = script_extension(character)
    if scripts & _COMMON:
        return frozenset()
    return frozenset(scripts.union(*(_WRITING_SYSTEMS.get(script, ()) for script in scripts)))


def _is_covered(scripts: Iterable[frozenset[str]], allowed: frozenset[str]) -> bool:
    return all(of_character & allowed for of_character in scripts)
