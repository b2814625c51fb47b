"""The tree of errors: its drawing, and that every error is data without a secret in it."""

from __future__ import annotations

import re

import pytest

from aiproject import errors
from aiproject.codes import Detail
from aiproject.errors import AiProjectError
from aiproject.messages.formatting import Language, format_error


def tree(kind: type[AiProjectError]) -> list[type[AiProjectError]]:
    """A class and all below it that the module defines, in the order of their definition."""
    found = [kind]
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            found += tree(child)
    return found


def drawn() -> list[tuple[int, str]]:
    """Depth and name of every line of the drawing in the module's docstring."""
    lines = (errors.__doc__ or "").splitlines()
    matches = (re.match(r"    ((?:│   |    )*(?:[├└]── )?)([A-Z]\w+)(?:  |$)", line) for line in lines)
    return [(len(match[1]) // 4, match[2]) for match in matches if match]


def depth(kind: type[AiProjectError]) -> int:
    return kind.__mro__.index(AiProjectError)


def test_the_drawing_is_the_tree() -> None:
    assert drawn() == [(depth(kind), kind.__name__) for kind in tree(AiProjectError)]


def test_all_names_are_exported() -> None:
    assert sorted(errors.__all__) == sorted(["Reason", *(kind.__name__ for kind in tree(AiProjectError))])


@pytest.mark.parametrize("kind", tree(AiProjectError), ids=lambda kind: kind.__name__)
def test_every_class_has_a_sentence(kind: type[AiProjectError]) -> None:
    assert (kind.__doc__ or "").strip().partition("\n")[0].endswith(".")


def test_an_error_describes_itself_for_the_log() -> None:
    assert str(errors.InvalidInput(Detail.FIELD_MISSING, field="uuid")) == "FIELD_MISSING field='uuid'"
    assert str(errors.LoginFailed()) == "LoginFailed"
    assert str(errors.UpstreamTimeout("gap", 2.5)) == "no word from upstream: gap limit of 2.5 s"
    assert str(errors.BodyTooLarge(16 * 1024 * 1024)) == "BODY_OVER_LIMIT megabytes=16.0"
    assert format_error(errors.BodyTooLarge(16 * 1024 * 1024), Language.ZH) == "请求体超过上限（16 MB）"


def test_a_retry_is_never_asked_for_at_once() -> None:
    assert errors.TooManyRequests(-3).retry_after == 1
    assert errors.TooManyRequests(7).retry_after == 7
