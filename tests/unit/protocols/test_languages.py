"""Which language a reader gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.messages.formatting import Language
from aiproject.protocols.languages import locale_language, preferred_language

ZH, EN = Language.ZH, Language.EN


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, ZH),
        ("", ZH),
        ("en", EN),
        ("EN-us", EN),
        ("zh-CN,zh;q=0.9,en;q=0.8", ZH),
        ("en-US,en;q=0.9,zh-CN;q=0.8", EN),
        ("fr-CH, fr;q=0.9, en;q=0.8, de;q=0.7, *;q=0.5", EN),
        ("fr", ZH),
        ("*", ZH),
        ("fr, *;q=0.1", ZH),
        ("en;q=0.4, zh;q=0.400", EN),
        ("zh;q=0.4, en;q=0.400", ZH),
        ("en ; q=1.000 , zh ; Q=0.999", EN),
        ("zh;q=0", ZH),
        ("zh;q=0, en;q=0", ZH),
        ("zh;q=0, *", EN),
        ("en;q=0, *;q=0.1", ZH),
        ("en-GB;q=0, en;q=0.5, zh;q=0.1", EN),
        ("en;q=2, zh;q=0.1", ZH),
        ("*-CN, en", EN),
        ("english, zh;q=0.1", ZH),
        ("en_US", ZH),
        (",,en,,", EN),
        ("zh-Hant-TW", ZH),
        ("x" * 2000 + ",en", ZH),
    ],
)
def test_accept_language(header: str | None, language: Language) -> None:
    assert preferred_language(header) is language


@given(st.text())
def test_any_header_is_answered(header: str) -> None:
    assert preferred_language(header) in Language


@given(st.lists(st.tuples(st.sampled_from(["zh", "en", "zh-TW", "en-GB"]), st.integers(1, 1000))))
def test_the_highest_quality_decides(ranges: list[tuple[str, int]]) -> None:
    header = ", ".join(f"{tag};q={quality / 1000:.3f}" for tag, quality in ranges)
    best = {language: max([q for tag, q in ranges if tag[:2] == language] or [0]) for language in Language}
    found = preferred_language(header)
    assert best[found] == max(best.values())


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, EN),
        ({"LANG": "C.UTF-8"}, EN),
        ({"LANG": "zh_CN.UTF-8"}, ZH),
        ({"LANG": "zh"}, ZH),
        ({"LANG": "zh-Hans"}, ZH),
        ({"LANG": "zha_CN"}, EN),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, EN),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, ZH),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_TW.UTF-8"}, ZH),
        ({"LC_ALL": "en_US.UTF-8", "LC_MESSAGES": "zh_TW.UTF-8"}, EN),
        ({"LC_TIME": "zh_CN.UTF-8"}, EN),
    ],
)
def test_locale(environment: dict[str, str], language: Language) -> None:
    assert locale_language(environment) is language
