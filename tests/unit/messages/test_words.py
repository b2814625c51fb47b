"""Sentences for people stand in the table of messages and nowhere else; raise sites say codes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiproject import errors

ROOT = Path(__file__).parents[3] / "src" / "aiproject"
SOURCES = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] != "messages")
CHINESE = re.compile(r"[\u4e00-\u9fff]")

OTHER_TEXTS = (
    "web/openapi/",
    # Whole texts in both languages at once, whose readers' language nobody knows.
    "accounts/selfservice/emails.py",
    "web/mail_pages.py",
    # Explanations of receipts, which always come in both languages; a meter's noun stands in its one declaration.
    "ledger/receipts.py",
    "meters.py",
    # The translation of a word that is used in English otherwise.
    "cli/main.py",
    # What the stand-in for the vendor answers.
    "sandbox/",
)

DECLARATIONS = {"Access", "BodyOperation", "Meta", "Operation"}
"""Whoever imports one of these declares a part of the HTTP interface, with its description beside it."""

PATTERNS = ("protocols/names.py",)
"""Ranges of characters, no words."""


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def texts(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the string constants that are no docstrings, each with its line."""
    docstrings = {
        id(line.value)
        for node in ast.walk(tree)
        for line in (getattr(node, "body", None) if isinstance(getattr(node, "body", None), list) else None) or []
        if isinstance(line, ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value, node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_no_chinese_outside_the_table(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if place(path).startswith(OTHER_TEXTS + PATTERNS) or imported(tree) & DECLARATIONS:
        return
    for text, line in texts(tree):
        assert not CHINESE.search(text), f"{place(path)}:{line}: {text[:40]}"


def imported(tree: ast.Module) -> set[str]:
    return {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}


def takes_codes(call: ast.expr) -> bool:
    """Whether a call makes an error that is shown to people, or an answer."""
    name = ast.unparse(call).rpartition(".")[2]
    kind = getattr(errors, name, None)
    is_shown = isinstance(kind, type) and issubclass(kind, errors.Refused | errors.Misconfigured)
    # Their first argument names a meter, as the database does.
    return (is_shown and name not in ("QuotaExhausted", "SpendLimitReached")) or name in ("success", "succeed")


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_errors_and_answers_are_given_codes(path: Path) -> None:
    """A type would say so as well, but for the subclasses with constructors of their own."""
    if "openapi" in path.parts:  # where `success` describes an answer
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and takes_codes(node.func):
            for argument in node.args:
                is_text = isinstance(argument, ast.JoinedStr) or (
                    isinstance(argument, ast.Constant) and isinstance(argument.value, str)
                )
                assert not is_text, f"{place(path)}:{node.lineno}: {ast.unparse(node)}"
