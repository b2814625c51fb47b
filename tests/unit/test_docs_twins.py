"""The English and the Chinese pages of the documentation say the same: headings, code and tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(path.relative_to(DOCS / "zh").as_posix() for path in (DOCS / "zh").rglob("*.md"))

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#{1,6}) ", re.MULTILINE)
INDENTED = re.compile(r"^ {4}(?![-*|] )(\S.*)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]\[]*\]\(([^()\s#]+)(#[^()\s]*)?\)")
CODE = re.compile(r"`([^`]+)`")


def both(page: str) -> tuple[str, str]:
    return (DOCS / "en" / page).read_text("utf-8"), (DOCS / "zh" / page).read_text("utf-8")


def prose(text: str) -> str:
    return FENCE.sub("", text)


def tables(text: str) -> list[list[int]]:
    """The number of cells in each row of each table."""
    found = re.findall(r"(?:^\|.*\n)+", prose(text) + "\n", re.MULTILINE)
    return [[len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()] for table in found]


def test_every_page_exists_in_both_languages() -> None:
    assert sorted(path.relative_to(DOCS / "en").as_posix() for path in (DOCS / "en").rglob("*.md")) == PAGES


@pytest.mark.parametrize("page", PAGES)
class TestTwins:
    def test_the_headings_have_the_same_levels(self, page: str) -> None:
        english, chinese = (HEADING.findall(prose(text)) for text in both(page))
        assert english == chinese

    def test_the_code_is_the_same(self, page: str) -> None:
        english, chinese = both(page)
        assert list(map(_code_of, FENCE.findall(english))) == list(map(_code_of, FENCE.findall(chinese)))
        assert INDENTED.findall(prose(english)) == INDENTED.findall(prose(chinese))

    def test_the_tables_have_the_same_rows_and_columns(self, page: str) -> None:
        english, chinese = map(tables, both(page))
        assert english == chinese

    def test_they_lead_to_the_same_pages(self, page: str) -> None:
        english, chinese = (prose(text) for text in both(page))
        assert {target for target, _ in LINK.findall(english)} == {target for target, _ in LINK.findall(chinese)}


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith(("reference/", "explanation/"))])
def test_they_name_the_same_things(page: str) -> None:
    # Guides are freer: what is code in one language may be words in the other.
    english, chinese = (prose(text) for text in both(page))
    assert _code_words(english) == _code_words(chinese)


def _code_words(text: str) -> set[str]:
    return {" ".join(found.split()) for found in CODE.findall(text)}


def _code_of(fence: tuple[str, str, str]) -> tuple[str, list[str]]:
    """The language and the lines of a block; not the lines of what a command prints, which follow the locale."""
    _, language, code = fence
    return language, [] if language == "text" else _without_comments(code)


def _without_comments(code: str) -> list[str]:
    return [line for line in (re.sub(r"\s*(?<!\S)# .*$", "", line).rstrip() for line in code.splitlines()) if line]


def _named_files(text: str) -> set[str]:
    """Files that a page names in code: modules, and what has a folder and the ending of a file of this repository."""
    words = CODE.findall(prose(text))
    form = r"[\w-]+\.py|[\w.-][\w./-]*/[\w-]+\.(py|md|toml|txt|json|sh)"
    return {word for word in words if re.fullmatch(form, word)}


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_a_page_names_exist(page: str) -> None:
    clone = DOCS.parent
    modules = {path.name for path in (clone / "src" / "aiproject").rglob("*.py")}
    for name in _named_files(both(page)[0]) - modules:
        assert any((root / name).exists() for root in (clone, clone / "src" / "aiproject", clone / "tests")), name


def test_the_constants_that_the_architecture_page_names_are_where_it_says() -> None:
    source = DOCS.parent / "src" / "aiproject"
    rows = [line for line in both("explanation/architecture.md")[0].splitlines() if line.startswith("| ")]
    named = {
        (constant, tuple(re.findall(r"`([\w/]+\.py)`", row)))
        for row in rows
        for constant in re.findall(r"`([A-Z][A-Z_]+)`", row)
        if ".py`" in row and not constant.startswith("AIPROJECT_")
    }
    assert len(named) > 10
    for constant, files in named:
        texts = [(source / name).read_text("utf-8") for name in files if (source / name).is_file()]
        assert any(re.search(rf"^_?{constant}\b.* = ", text, re.MULTILINE) for text in texts), (constant, files)
