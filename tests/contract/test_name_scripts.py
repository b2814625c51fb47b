"""Scripts of names, by the tables of fontTools: what UTS #39's level "Highly Restrictive" lets pass."""

from __future__ import annotations

import pytest

from aiproject.protocols.names import mixes_scripts


@pytest.mark.parametrize(
    "name",
    [
        "",
        "owner_1 (二号)",
        "小明Tom",
        "José Müller",
        "小明❤\ufe0f👩\u200d🚀",
        "欧阳·娜娜",
        "ㄅㄆ小明Tom",
        "田中さくらＡ",
        "ラーメン大好き",
        "김민준 金 Kim",
        "Иван Петров",
        "Ελένη",
        "محمد",
        "བཀྲ་ཤིས",
        "ᠮᠣᠩᠭᠣᠯ",
        "ꆈꌠꉙ",
        "𝕺wner",
    ],
)
def test_one_script_or_a_usual_combination(name: str) -> None:
    assert not mixes_scripts(name)


@pytest.mark.parametrize(
    "name",
    ["оwner", "раyраl", "аdmin", "οwner", "小明\u0430", "Tomі", "ownеr\u200b", "さ김", "小明α", "Иван Ivan"],
)
def test_a_mixture_that_looks_like_one(name: str) -> None:
    assert mixes_scripts(name)
