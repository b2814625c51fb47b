"""What our letters say."""

from __future__ import annotations

from aiproject.accounts.selfservice.emails import reset_email, verification_email

TOKEN = "t" * 43


def test_links_hold_the_token_behind_the_hash() -> None:
    letter = verification_email("a@b.cn", TOKEN, "https://ai.example.com/app/")
    assert letter.text.count(f"https://ai.example.com/app/mail#verify={TOKEN}") == 2, "in both languages"
    assert reset_email("a@b.cn", "小明", TOKEN, "https://x").text.count(f"https://x/mail#reset={TOKEN}") == 2


def test_without_an_address_of_our_own_the_token_stands_alone() -> None:
    letter = reset_email("a@b.cn", "小明", TOKEN, None)
    assert letter.text.count(f"验证码 / code: {TOKEN}") == 2
    assert "http" not in letter.text
    assert letter.text.count("小明") == 2


def test_nothing_secret_shows_in_a_repr() -> None:
    letter = reset_email("a@b.cn", "小明", TOKEN, None)
    assert TOKEN not in repr(letter)
    assert "a@b.cn" not in repr(letter)
