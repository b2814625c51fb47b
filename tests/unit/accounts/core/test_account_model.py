"""What somebody may register with."""

from __future__ import annotations

import time
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.accounts.core.model import Account, NewAccount, check_new_account, is_askable
from aiproject.errors import InvalidInput
from aiproject.messages.formatting import Language, format_error

PASSWORD = "secret word"


def check(
    username: str = "小明", password: str = PASSWORD, email: str = "xxx", academy: str | None = None
) -> NewAccount:
    return check_new_account(username, password, email, academy)


def complaint(username: str = "小明", password: str = PASSWORD, email: str = "xxx", academy: str | None = None) -> str:
    with pytest.raises(InvalidInput) as caught:
        check(username, password, email, academy)
    assert password not in format_error(caught.value, Language.ZH)
    return format_error(caught.value, Language.ZH)


def test_all_four_are_trimmed() -> None:
    new = check(" 小明\t", "　secret word\n", " a@b.cn ", " 计算机学院 ")
    assert (new.username, new.password, new.email, new.academy) == ("小明", "secret word", "a@b.cn", "计算机学院")


def test_email_and_academy_may_be_empty() -> None:
    assert check(email="").email == ""
    assert check(academy="  ").academy is None
    assert check(academy=None).academy is None


@pytest.mark.parametrize("blank", ["", "   ", "\u3000", "\n"])
def test_name_and_password_may_not(blank: str) -> None:
    assert complaint(username=blank) == "用户名不能为空"
    with pytest.raises(InvalidInput, match="TERM_EMPTY field='PASSWORD'"):
        check(password=blank)


def test_a_name_nobody_can_see_is_empty() -> None:
    assert complaint(username="\u200b\u200d") == "用户名不能为空"
    assert check(username="👩\u200d🚀").username == "👩\u200d🚀"


def test_a_long_name_is_refused_before_it_is_normalised() -> None:
    """Sorting combining marks takes quadratic time: 64 KB of them kept the event loop busy for seconds."""
    hostile = "a" + "\u0301" * 16_000 + "\u0323" * 16_000
    started = time.process_time()
    for _ in range(3):
        assert "50" in complaint(username=hostile)
        assert not is_askable(hostile)
    assert time.process_time() - started < 1


def test_lengths_are_counted_in_characters() -> None:
    assert check(username="😀" * 50, password="密钥" * 64, email="e" * 254, academy="学" * 100)
    assert "50" in complaint(username="名" * 51)
    assert "128" in complaint(password="密" * 129)
    assert "254" in complaint(email="e" * 255)
    assert "100" in complaint(academy="学" * 101)


@pytest.mark.parametrize("character", ["\0", "\n", "\x1b", "\x7f", "\x85", "\ud800"])
def test_control_characters_and_half_surrogates(character: str) -> None:
    text = f"a{character}b"
    assert complaint(username=text) == "用户名含有控制字符"
    assert complaint(password=text) == "密码含有控制字符"
    assert complaint(email=text) == "邮箱含有控制字符"
    assert complaint(academy=text) == "学院含有控制字符"


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=60), st.text(max_size=140), st.text())
def test_what_passes_can_be_stored(username: str, password: str, email: str) -> None:
    try:
        new = check(username, password, email)
    except InvalidInput:
        return
    for text in (new.username, new.password, new.email):
        assert "\0" not in text.encode().decode()
        assert text == text.strip()
    assert is_askable(new.username)


def test_reprs_hold_no_secret() -> None:
    values: dict[str, object] = {field.name: f"<{field.name}>" for field in fields(Account)}
    account = Account(**values)  # type: ignore[arg-type]
    assert repr(account) == "Account(<account_id>)"
    new = repr(NewAccount("小明", "hunter2", "a@b.cn", None))
    assert "hunter2" not in new
    assert "a@b.cn" not in new


@pytest.mark.parametrize(("name", "is_fine"), [("小明", True), ("a\0", False), ("\ud83d", False), ("😀", True)])
def test_names_that_a_database_can_be_asked_for(name: str, is_fine: bool) -> None:
    assert is_askable(name) is is_fine
