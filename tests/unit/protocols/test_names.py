"""Keys of names, and names that mislead."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.protocols.names import (
    exact_name_key,
    hides_characters,
    is_reordering,
    lookup_keys,
    mixes_digits,
    name_key,
)

IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u180e\u200b\u200c\u200d\u200e\u202e\u2060\u2066\u3164\ufe0f\ufeff\uffa0\U000e0041"
)
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)


class TestKeys:
    @pytest.mark.parametrize("character", IGNORABLE)
    def test_what_is_not_displayed_makes_no_difference(self, character: str) -> None:
        for name in (f"owner{character}", f"{character}OWNER", f"ow{character * 3}ner", f" {character} owner"):
            assert name_key(name) == "owner"
        assert name_key(f"小{character}明") == "小明"

    def test_every_format_character_is_ignorable_but_the_displayed_ones(self) -> None:
        """As UAX #44 derives the property: without annotation marks, Egyptian controls and prepended marks."""
        displayed = {0xFFF9, 0xFFFA, 0xFFFB, *range(0x13430, 0x13440), *range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891}
        displayed |= {0x8E2, 0x110BD, 0x110CD}
        formats = {code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"}
        kept = {code for code in formats if name_key(f"a{chr(code)}b") != "ab"}
        assert kept == formats & displayed

    def test_variants_of_an_emoji_are_one_name(self) -> None:
        assert name_key("小明❤\ufe0f") == name_key("小明❤")

    @given(ANY_TEXT)
    def test_the_key_of_a_key_is_itself(self, name: str) -> None:
        assert name_key(name_key(name)) == name_key(name)
        assert exact_name_key(exact_name_key(name)) == exact_name_key(name)

    @given(ANY_TEXT)
    def test_names_of_displayed_characters_keep_the_key_that_they_have(self, name: str) -> None:
        displayed = "".join(character for character in name if name_key(f"a{character}b") != "ab")
        assert name_key(displayed) == exact_name_key(displayed)
        assert len(lookup_keys(displayed)) <= 1

    @given(st.text(st.characters(codec="ascii")))
    def test_the_short_way_of_ascii_is_the_same(self, name: str) -> None:
        assert name_key(name) == exact_name_key(name)

    def test_the_exact_key_is_looked_up_first(self) -> None:
        assert lookup_keys("Owner\u200b") == ("owner\u200b", "owner")
        assert lookup_keys("Owner") == ("owner",)
        assert lookup_keys("\u200b") == ("\u200b",)
        assert lookup_keys(" ") == ()


@pytest.mark.parametrize("character", "\u202a\u202d\u202e\u2066\u2067\u2069")
def test_what_turns_the_direction_is_seen(character: str) -> None:
    assert is_reordering(f"{character}nimda")


@pytest.mark.parametrize("name", ["admin", "小明", "محمد", "\u200fמשה", "👩\u200d🚀"])
def test_what_has_its_direction_by_itself_is_not(name: str) -> None:
    assert not is_reordering(name)


@pytest.mark.parametrize(
    "name",
    [
        "owner\ufff9",  # an annotation mark, which is a format character that no rule ignores
        "owner\u0605",
        "owner\U0001d159",
        "owner\ufffc",
        "own\u2028er",
        "20260001\u2800",  # a blank of a script; digits are of every script
        "20260001\u1680",
        "20260001\U0001107f",
        "20260001\ue000",
        "zhang  san",
        "zhang\u00a0\u2009san",
        "zhang \u200b san",
        "admi\u0307n",
        "admi\u0323\u0307n",
        "Jose\u0301\u0301",
        "o\u0300\u0301\u0302\u0303\u0304",
    ],
)
def test_what_nobody_sees_is_found(name: str) -> None:
    assert hides_characters(name)


@pytest.mark.parametrize(
    "name",
    [
        "小明 Tom",
        "👩\u200d🚀",
        "İbrahim",
        "Jos\u00e9",
        "Nguy\u1ec5n V\u0103n",
        "नरेन्द्र",
        "ที่รัก",
        "محمد",
        "❤\ufe0f",
        "a\u200bb",
        "20260001",
    ],
)
def test_what_is_displayed_hides_nothing(name: str) -> None:
    assert not hides_characters(name)


@pytest.mark.parametrize("name", ["2026000\u06f1", "2026000\u0661", "\u0661\u06f2", "小明1\u09ea"])
def test_digits_of_several_kinds_are_found(name: str) -> None:
    assert mixes_digits(name)


@pytest.mark.parametrize("name", ["20260001", "２０２６1", "محمد \u0661\u0662", "小明2026", "①2"])
def test_digits_of_one_kind_are_fine(name: str) -> None:
    assert not mixes_digits(name)
