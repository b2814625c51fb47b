"""The table of messages: complete, in both languages, with the placeholders that raise sites fill."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest

from aiproject import errors
from aiproject.codes import Code, Detail, Success, Term
from aiproject.messages.commands import Line
from aiproject.messages.formatting import AGAIN, Language, Message, format_error, format_message
from aiproject.messages.table import TABLE, MessageCode
from aiproject.messages.text import Text

SOURCES = sorted((Path(__file__).parents[3] / "src" / "aiproject").rglob("*.py"))
KINDS: tuple[type[StrEnum], ...] = (Code, Detail, Success, Term, Line)
NAMES = {kind.__name__: kind for kind in KINDS}
BESIDE_PARAMS = {"headers", "retry_after", "status"}
"""Keywords of errors that are no parameters of their message."""


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in text)


class TestTable:
    def test_every_code_of_every_kind_has_one_message(self) -> None:
        members = [member for kind in KINDS for member in kind]
        assert set(TABLE) == set(members)
        assert len(TABLE) == len(members), "two codes of different kinds have the same value"

    def test_a_code_is_its_own_name(self) -> None:
        assert all(member.name == member.value for kind in KINDS for member in kind)

    @pytest.mark.parametrize("code", TABLE)
    def test_both_languages_say_it_with_the_same_placeholders(self, code: MessageCode) -> None:
        text = TABLE[code]
        assert placeholders(text.zh) == placeholders(text.en)
        for words in text:
            assert words.strip() == words != ""
            # What commands print may be several sentences; an answer's message is one.
            assert isinstance(code, Line) or not words.endswith(("。", "."))
        assert not is_chinese(text.en)


def uses(path: Path) -> Iterator[tuple[str, MessageCode, set[str], int]]:
    """Yield where a code is handed to a call together with parameters: the call, the code and their names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or any(keyword.arg is None for keyword in node.keywords):
            continue
        for argument in node.args:
            if isinstance(argument, ast.Attribute) and isinstance(argument.value, ast.Name):
                kind = NAMES.get(argument.value.id)
                if kind is not None and argument.attr in kind.__members__:
                    names = {str(keyword.arg) for keyword in node.keywords} - BESIDE_PARAMS
                    yield ast.unparse(node.func), kind[argument.attr], names, node.lineno  # type: ignore[misc]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_raise_sites_fill_the_placeholders(path: Path) -> None:
    for call, code, names, line in uses(path):
        kind = getattr(errors, call.rpartition(".")[2], None)
        if isinstance(kind, type) and issubclass(kind, errors.AiProjectError):
            assert names == placeholders(TABLE[code].zh) - {AGAIN}, f"{path.name}:{line}"


def answers(path: Path) -> Iterator[tuple[Success, set[str], int]]:
    """Yield the successes that a module answers with, and the names of their parameters."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("success", "succeed"):
            codes = [each.attr for argument in node.args for each in ast.walk(argument)
                     if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "Success"]  # fmt: skip
            given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "params")]
            keys = {
                str(ast.literal_eval(key))
                for argument in given
                if isinstance(argument, ast.Dict)
                for key in argument.keys
                if key is not None
            }
            for code in codes:
                yield Success[code], keys, node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_answers_fill_the_placeholders(path: Path) -> None:
    if "openapi" in path.parts:
        return
    for code, keys, line in answers(path):
        assert keys == placeholders(TABLE[code].zh), f"{path.name}:{line}"


CLI = [path for path in SOURCES if "cli" in path.parts]


@pytest.mark.parametrize("path", CLI, ids=lambda path: path.stem)
def test_commands_fill_the_placeholders(path: Path) -> None:
    for call, code, names, line in uses(path):
        if isinstance(code, Line) and call in ("say", "format_message", "Finding"):
            assert names - {"console", "style"} == placeholders(TABLE[code].zh), f"{path.name}:{line}"


class TestFormatting:
    def test_a_message_in_either_language(self) -> None:
        assert format_message(Detail.FIELD_MISSING, Language.ZH, field="uuid") == "缺少 uuid"
        assert format_message(Detail.FIELD_MISSING, Language.EN, field="uuid") == "uuid is missing"

    def test_a_term_is_put_in_by_its_words(self) -> None:
        error = errors.UnusableFile(Detail.PICTURE_OF_OTHER_KIND, kind=Term.GIF_PICTURE)
        assert format_error(error, Language.ZH) == "上传的是GIF 图片，请上传 JPG、PNG 或 BMP 图片"
        assert "a GIF picture;" in format_error(error, Language.EN)

    def test_several_are_a_list(self) -> None:
        error = errors.InvalidInput(Detail.FIELD_UNKNOWN, fields=["limits", "name"])
        assert format_error(error, Language.ZH) == "含有未知字段，可用的有 limits、name"
        assert format_error(error, Language.EN) == "There is an unknown field; known are limits, name"

    def test_sentences_within_a_sentence_are_in_its_language(self) -> None:
        complaints = (Message(Line.BLOCKED_BY_PRIMARY_KEY), Message(Line.BLOCKED_BY_NAMELESS, {"count": 2}))
        error = errors.Misconfigured(Detail.USER_TABLE_BLOCKED, complaints=complaints)
        assert format_error(error, Language.ZH).endswith("：Id 不是它的主键；2 行没有 UserName；请补上或删除这些行")
        assert "key; 2 rows have no UserName; give" in format_error(error, Language.EN)

    def test_an_error_within_a_message_is_in_its_language(self) -> None:
        reason = errors.InvalidInput(Detail.VOUCHER_WITHOUT_USES)
        message = Message(Line.LEFT_VOUCHER_REFUSED, {"name": "spring", "reason": reason})
        assert message.text(Language.ZH) == "令牌 spring：令牌至少应能使用一次"
        assert message.text(Language.EN) == "voucher spring: a voucher must be good for at least one use"

    def test_what_a_caller_sent_is_no_template(self) -> None:
        error = errors.InvalidInput(Detail.FIELD_MISSING, field="{again.__class__}")
        assert format_error(error, Language.EN) == "{again.__class__} is missing"

    def test_a_missing_parameter_is_a_defect(self) -> None:
        with pytest.raises(KeyError):
            format_message(Detail.FIELD_MISSING, Language.ZH)

    def test_without_a_detail_the_code_says_it(self) -> None:
        assert format_error(errors.NameTaken(), Language.EN) == TABLE[Code.USER_NAME_REPEAT].en
        assert format_error(errors.InvalidInput(), Language.EN, code=Code.MODEL_ERROR) == TABLE[Code.MODEL_ERROR].en

    def test_a_rate_limit_says_when_to_come_back(self) -> None:
        error = errors.TooManyRequests(7, Detail.TOO_MANY_AT_ONCE)
        assert format_error(error, Language.EN) == "Too many requests at once, please try again later"
        assert format_error(error, Language.EN, in_seconds=True) == "Too many requests at once, please try again in 7 s"
        lock = errors.TooManyRequests(86_400, Detail.LOGIN_LOCKED)
        assert format_error(lock, Language.ZH, in_seconds=True) == TABLE[Detail.LOGIN_LOCKED].zh

    @pytest.mark.parametrize(
        ("hint", "zh", "en"),
        [
            ("换个问题吧", "换个问题吧", "Too many requests, please try again later (换个问题吧)"),
            ("ask less", "请求过于频繁，请稍后再试（ask less）", "ask less"),
            ("", "请求过于频繁，请稍后再试", "Too many requests, please try again later"),
        ],
    )
    def test_a_vendor_s_hint_stands_alone_only_in_the_reader_s_language(self, hint: str, zh: str, en: str) -> None:
        error = errors.UpstreamRefused(hint=hint, advice=Detail.VENDOR_TOO_MANY_REQUESTS)
        assert format_error(error, Language.ZH, code=Code.MODEL_ERROR) == zh
        assert format_error(error, Language.EN, code=Code.MODEL_ERROR) == en

    def test_a_failure_of_the_vendor_without_advice_is_the_endpoint_s(self) -> None:
        error = errors.UpstreamFailed("10.0.0.1 said <html>")
        assert format_error(error, Language.EN, code=Code.MODEL_ERROR) == "The text model failed"

    def test_our_own_faults_tell_no_diagnostics(self) -> None:
        assert "10.0.0.1" not in format_error(errors.Unavailable("10.0.0.1 is away"), Language.EN)

    def test_an_error_is_logged_as_code_and_parameters(self) -> None:
        assert str(errors.InvalidInput(Detail.FIELD_MISSING, field="uuid")) == "FIELD_MISSING field='uuid'"
        assert str(errors.NameTaken()) == "NameTaken"

    def test_a_text_has_two_languages(self) -> None:
        assert Text("一", "one") == ("一", "one")
        assert [language.value for language in Language] == ["zh", "en"]
        assert format_message(Success.DONE, Language.EN) == "Done"
