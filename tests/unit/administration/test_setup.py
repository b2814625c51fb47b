"""The code by which the first administrator is made."""

from __future__ import annotations

import re

import pytest

from aiproject.administration.setup import MAX_GUESSES, SETUP_SECONDS, SetupCode, SetupGuard
from aiproject.errors import LoginFailed

CODE = SetupCode("7G3K-QX0N-M2RD-94VB", 1000.0)


def gate(now: float = 0.0, code: SetupCode | None = CODE) -> SetupGuard:
    return SetupGuard(code, clock=lambda: now)


def test_a_drawn_one() -> None:
    code = SetupCode.draw()
    assert re.fullmatch(r"([0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}", code.code)
    assert code.code != SetupCode.draw().code
    assert code.code not in repr(code)
    assert SETUP_SECONDS <= 3600


def test_right_in_any_case() -> None:
    gate().check(" 7g3k-qx0n-m2rd-94vb ")


@pytest.mark.parametrize("guess", ["", "7G3K-QX0N-M2RD-94VC", "\ud800", "x" * 10_000])
def test_wrong(guess: str) -> None:
    with pytest.raises(LoginFailed):
        gate().check(guess)


def test_over() -> None:
    gate(999.9).check(CODE.code)
    with pytest.raises(LoginFailed):
        gate(1000.0).check(CODE.code)


def test_none() -> None:
    with pytest.raises(LoginFailed):
        gate(code=None).check("")


def test_few_guesses() -> None:
    opened = gate()
    for _ in range(MAX_GUESSES):
        with pytest.raises(LoginFailed):
            opened.check("wrong")
    with pytest.raises(LoginFailed):
        opened.check(CODE.code)


def test_once() -> None:
    opened = gate()
    opened.check(CODE.code)
    opened.close()
    with pytest.raises(LoginFailed):
        opened.check(CODE.code)
