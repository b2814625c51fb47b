"""Keys of names, and names that mislead."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.protocols.names import exact_name_key, is_reordering, lookup_keys, name_key

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
