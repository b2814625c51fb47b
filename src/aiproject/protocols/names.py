"""Names of accounts and administrators: the keys under which they are compared, and which new ones may mislead people.

Sources: The Unicode Standard, sections 3.13 (D146 and D147, caseless matching; `NFKC_Casefold`) and 5.21 (default
ignorable code points); Unicode Technical Standard #39, sections 5.1 and 5.2 (scripts of a string, restriction levels),
5.3 (mixed numbers) and 5.4 (optional detection: marks that are not seen).
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
"""`Default_Ignorable_Code_Point` of Unicode 17, which every `Bidi_Control` character is part of.

Written down rather than taken from a library, because stored keys are made with it: an update must not change them. The
ranges include reserved code points, so that later characters of this kind are in it from the start.
"""

_REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Embeddings, overrides and isolates: what stands after one may be displayed from right to left."""

_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
"""Of what is left without the ignorable characters: controls, annotation marks, private use, separators of lines."""

_INVISIBLE = re.compile(
    " {2}"  # a page shows two blanks as one
    "|[\u1680\u2800\ufffc\U00016fe4\U0001107f\U00013441-\U00013442\U0001d159]"  # blanks, fillers, joiners with a script
)
"""What is displayed as nothing, or as something else, although its categories are those of displayed characters."""

_HIDDEN_DOT = re.compile("[ijl\u0131\u0237\u0456\u0458][\u0316-\u0319\u031c-\u0333]*\u0307")
"""A dot above a letter that has one, or that looks like one that has; marks below the letter may stand between."""

_MAX_MARKS = 4
"""Nonspacing marks of one character: as many as UTS #39, section 5.4, allows. More grow over the lines around."""

_PLAIN = re.compile("[\u0000-\u007f\u3007\u4e00-\u9fff]*")
"""ASCII and the Chinese characters of nearly all names, which may stand beside each other."""

_COMMON = frozenset({"Zyyy", "Zinh"})  # of every script: digits, punctuation, emoji, combining marks

_WRITING_SYSTEMS = {
    "Hani": {"Hanb", "Jpan", "Kore"},
    "Hira": {"Jpan"},
    "Kana": {"Jpan"},
    "Hang": {"Kore"},
    "Bopo": {"Hanb"},
}
"""Writing systems in which a script is used beside others (UTS #39, table 1)."""

_HIGHLY_RESTRICTIVE = tuple(frozenset({"Latn", system}) for system in ("Hanb", "Jpan", "Kore"))
"""What the level "Highly Restrictive" allows beside single scripts (UTS #39, section 5.2)."""


def name_key(name: str) -> str:
    """Return the form under which a name is unique.

    Case, compatibility forms, blanks around the name and characters that are not displayed make no difference:
    ``"Ａlice "`` and ``"al\\u200bice"`` are ``"alice"``. The key may be empty, or longer than the name. The key of a
    key is that key.
    """
    if name.isascii():  # most names of programs, at a tenth of the time
        return name.lower().strip()
    key = name
    while True:  # twice only if a compatibility form brings forth another ignorable character
        key = exact_name_key(_IGNORABLE.sub("", key))
        if not _IGNORABLE.search(key):
            return key


def exact_name_key(name: str) -> str:
    """Return the key of a name with its ignorable characters.

    Releases before the migration 0004 stored it. Accounts keep it whose `name_key` belongs to another one.
    """
    key = unicodedata.normalize("NFD", name)
    for _ in range(2):
        # Twice, because folding can bring forth what normalises further, and the other way round.
        key = unicodedata.normalize("NFKC", key.casefold())
    return key.strip()


def lookup_keys(name: str) -> tuple[str, ...]:
    """Return the keys under which an existing name may be stored, the one that wins first."""
    exact, key = (name_key(name),) * 2 if name.isascii() else (exact_name_key(name), name_key(name))
    return tuple(dict.fromkeys(form for form in (exact, key) if form))


def is_reordering(name: str) -> bool:
    """Whether parts of the name may be displayed in another order than they are stored."""
    return _REORDERING.search(name) is not None


def hides_characters(name: str) -> bool:
    """Whether a name has characters that nobody sees, beyond those that make no difference to its key.

    Blanks that look like one or like none, format controls, private characters, a mark that covers the same mark, or
    the dot of an ``"i"`` once more.
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
    """Whether a name has digits of several kinds, which may look like other ones: an Arabic one like an ASCII one."""
    if _PLAIN.fullmatch(name):
        return False
    digits = (character for character in unicodedata.normalize("NFKC", name) if character.isdecimal())
    return len({ord(character) - unicodedata.decimal(character) for character in digits}) > 1


def mixes_scripts(name: str) -> bool:
    """Whether the scripts of a name go beyond UTS #39's level "Highly Restrictive".

    A name has one script, or Latin letters beside those of Chinese, Japanese or Korean: ``"小明Tom"`` is fine,
    ``"раyраl"`` with Cyrillic letters is not. The level's limit to the characters of an identifier is left out: names
    hold blanks, punctuation and emoji.
    """
    if _PLAIN.fullmatch(name):
        return False
    characters = set(unicodedata.normalize("NFKC", _IGNORABLE.sub("", name)))
    scripts = [found for character in characters if (found := _scripts(character))]
    if not scripts or frozenset.intersection(*scripts):
        return False
    return not any(_is_covered(scripts, allowed) for allowed in _HIGHLY_RESTRICTIVE)


def _scripts(character: str) -> frozenset[str]:
    """Return a character's scripts with the writing systems that use them; empty: it is of every script."""
    from fontTools.unicodedata import script_extension  # 2 MB of tables, which most names do not need

    scripts: set[str] = script_extension(character)
    if scripts & _COMMON:
        return frozenset()
    return frozenset(scripts.union(*(_WRITING_SYSTEMS.get(script, ()) for script in scripts)))


def _is_covered(scripts: Iterable[frozenset[str]], allowed: frozenset[str]) -> bool:
    return all(of_character & allowed for of_character in scripts)
