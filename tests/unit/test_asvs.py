"""The table of ASVS requirements is complete, and names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parents[2]

# Levels 1 and 2 of ASVS 5.0.0: how many requirements each section's numbering has, and which of them are level 3.
SECTIONS = {
    "2.1": 3,
    "2.2": 3,
    "2.3": 5,
    "2.4": 2,
    "4.1": 5,
    "4.2": 5,
    "4.3": 2,
    "4.4": 4,
    "6.1": 3,
    "6.2": 12,
    "6.3": 8,
    "6.4": 6,
    "6.5": 8,
    "6.6": 4,
    "6.7": 2,
    "6.8": 4,
    "7.1": 3,
    "7.2": 4,
    "7.3": 2,
    "7.4": 5,
    "7.5": 3,
    "7.6": 2,
    "8.1": 4,
    "8.2": 4,
    "8.3": 3,
    "8.4": 2,
    "9.1": 3,
    "9.2": 4,
    "11.1": 4,
    "11.2": 5,
    "11.3": 5,
    "11.4": 4,
    "11.5": 2,
    "11.6": 2,
    "11.7": 2,
    "16.1": 1,
    "16.2": 5,
    "16.3": 4,
    "16.4": 3,
    "16.5": 4,
}
LEVEL_3 = {
    "2.3.5",
    "2.4.2",
    "4.1.4",
    "4.1.5",
    "4.2.2",
    "4.2.3",
    "4.2.4",
    "4.2.5",
    "6.3.5",
    "6.3.6",
    "6.3.7",
    "6.3.8",
    "6.4.5",
    "6.4.6",
    "6.5.6",
    "6.5.7",
    "6.5.8",
    "6.6.4",
    "6.7.1",
    "6.7.2",
    "7.5.3",
    "8.1.3",
    "8.1.4",
    "8.2.4",
    "8.3.2",
    "8.3.3",
    "8.4.2",
    "11.1.3",
    "11.1.4",
    "11.2.4",
    "11.2.5",
    "11.3.4",
    "11.3.5",
    "11.5.2",
    "11.6.2",
    "11.7.1",
    "11.7.2",
    "16.5.4",
}
REQUIRED = [
    f"{section}.{number}"
    for section, count in SECTIONS.items()
    for number in range(1, count + 1)
    if f"{section}.{number}" not in LEVEL_3
]


def rows(language: str) -> list[tuple[str, ...]]:
    page = CLONE / "docs" / language / "explanation" / "asvs.md"
    return [
        tuple(cell.strip() for cell in line[1:-1].split("|"))
        for line in page.read_text("utf-8").splitlines()
        if re.match(r"\| \d", line)
    ]


ROWS = rows("en")


def test_every_requirement_of_levels_1_and_2_has_a_row_in_order() -> None:
    assert [row[0] for row in ROWS] == REQUIRED


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_says_whether_it_is_met_and_what_shows_it(row: tuple[str, ...]) -> None:
    number, level, requirement, met, how, tests = row
    assert level in ("1", "2")
    assert requirement
    assert met in ("yes", "partly", "no", "operator", "n/a"), met
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
    documents = number in ("11.1.2", "16.1.1")  # documents themselves
    assert bool(named) == (met != "n/a" and not documents)
    assert how or met == "yes"
    for file, name in named:
        path = CLONE / "tests" / file
        assert path.is_file(), file
        assert re.search(rf"^\s*(async )?def {name}\(", path.read_text("utf-8"), re.MULTILINE), (file, name)


def test_the_chinese_page_says_the_same_of_each_requirement() -> None:
    met = {"是": "yes", "部分": "partly", "否": "no", "运营者": "operator", "不适用": "n/a"}
    chinese = [(number, level, met[word], tests.replace("、", ", ")) for number, level, _, word, _, tests in rows("zh")]
    assert chinese == [(number, level, word, tests) for number, level, _, word, _, tests in ROWS]
