"""What a new password must be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from aiproject.accounts.login.password_policy import check_new_password, common_passwords
from aiproject.adapters.db.schema import name_key
from aiproject.errors import InvalidInput
from aiproject.messages.formatting import Language, format_error


def complaint(password: str, username: str = "小明", *, min_length: int = 8) -> str:
    with pytest.raises(InvalidInput) as caught:
        check_new_password(password, username, min_length)
    return format_error(caught.value, Language.ZH)


@pytest.mark.parametrize(
    "password",
    [
        "aaaaaaab",  # no rule of composition
        "correct horse battery staple",
        "我的密码有八个字",
        "🔑🗝️🔒🔓🏠🌳🌊🔥",
        "密钥" * 64,
        "e\u0301" * 128,  # composed by NFKC to 128
        "Ｐａｓｓｗｏｒｔ９９！",
    ],
)
def test_any_characters_of_the_right_length(password: str) -> None:
    assert check_new_password(f" {password}\n", "小明") == password


def test_lengths_are_counted_after_nfkc() -> None:
    assert complaint("1234 67") == "密码至少需要 8 个字符"
    assert complaint("e\u0301" * 7) == "密码至少需要 8 个字符"
    assert complaint("密" * 129) == "密码不能超过 128 个字符"
    assert complaint("ﷺ" * 8) == "密码不能超过 128 个字符"
    assert complaint("x" * 10_000_000) == "密码不能超过 128 个字符"
    assert complaint(" \u3000\t") == "密码不能为空"


@pytest.mark.parametrize("min_length", [6, 7, 12])
def test_the_shortest_length_is_chosen(min_length: int) -> None:
    shortest = "密码可以有十二个字符那么长"[:min_length]
    assert check_new_password(shortest, "小明", min_length) == shortest
    assert complaint(shortest[1:], min_length=min_length) == f"密码至少需要 {min_length} 个字符"


@pytest.mark.parametrize("password", ["123456", "monkey", "Ｄragon"])
def test_common_ones_are_refused_at_every_length(password: str) -> None:
    assert complaint(password, min_length=6) == "密码过于常见，请换一个"


@pytest.mark.parametrize(
    "password", ["password", "PassWord", " password ", "ｐａｓｓｗｏｒｄ", "12345678", "qwertyuiop", "iloveyou"]
)
def test_common_ones_in_any_spelling(password: str) -> None:
    assert complaint(password) == "密码过于常见，请换一个"


def test_the_list_is_long_enough() -> None:
    """ASVS 5.0, 6.2.4: at least the 3000 most common that the rules of length leave."""
    listed = [name_key(entry) for entry in FREQUENCY_LISTS["passwords"]]
    assert sum(len(password) >= 8 and password in common_passwords() for password in listed) > 10_000
    assert len(common_passwords()) == len({password for password in listed if len(password) >= 6})


def test_the_list_holds_nothing_else() -> None:
    """It keeps hashes, so this is what a collision would look like."""
    assert not [n for n in range(100_000) if f"no such password {n}" in common_passwords()]
    assert "" not in common_passwords()
    assert "\ud800" not in common_passwords()


def test_not_the_user_name() -> None:
    assert complaint("LongUserName", "longusername") == "密码不能与用户名相同"
    assert complaint("ｌｏｎｇusername", " LongUserName ") == "密码不能与用户名相同"
    assert check_new_password("longusername", "longusernam") == "longusername"


def test_what_nobody_can_type() -> None:
    for character in "\0\x1b\x7f\ud800":
        assert complaint(f"long enough {character} password") == "密码含有控制字符"


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=300))
def test_what_passes_passes_again_as_it_is_hashed(password: str) -> None:
    try:
        passed = check_new_password(password, "小明")
    except InvalidInput:
        return
    assert check_new_password(passed, "小明") == passed


def test_a_complaint_never_quotes() -> None:
    for password in ("Password123", "short", "x" * 200, "a\0bcdefghijk"):
        assert password not in complaint(password)
