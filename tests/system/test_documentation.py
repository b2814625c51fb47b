"""The documentation site builds, with links checked, and asks no other host for anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tools import build_docs


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository's documents that the builder reads instead."""
    clone = tmp_path / "clone"
    shutil.copytree(build_docs.DOCS, clone / "docs")
    for path in build_docs.CLONE.iterdir():
        if not (clone / path.name).exists():
            (clone / path.name).symlink_to(path)
    monkeypatch.setattr(build_docs, "CLONE", clone)
    monkeypatch.setattr(build_docs, "DOCS", clone / "docs")
    return clone / "docs"


def test_both_languages_are_built_and_can_be_searched(tmp_path: Path) -> None:
    built = tmp_path / "site"
    build_docs.build(built)
    for language in build_docs.LANGUAGES:
        for name in build_docs.pages():
            page = (built / language / name).with_suffix(".html").read_text("utf-8")
            assert f'<html lang="{language}"' in page
            other = (built / language / name).parent / _same_page_elsewhere(page)
            assert other.exists(), other
            assert other.resolve() != (built / language / name).with_suffix(".html").resolve()
        index = json.loads((built / language / "search.json").read_text("utf-8"))
        assert index["config"]["lang"] == [language]
        assert {entry["location"].partition("#")[0] for entry in index["items"]} >= {
            name.removesuffix(".md") + ".html" for name in build_docs.pages()
        }


def _same_page_elsewhere(page: str) -> str:
    return page.partition('class="md-header__button">')[0].rpartition('<a href="')[2].partition('"')[0]


@pytest.mark.parametrize(
    "line",
    ["[x](nowhere.md)", "[x](index.md#no-such-heading)", "![x](https://example.com/x.png)"],
)
def test_a_page_that_is_wrong_ends_the_build(sources: Path, tmp_path: Path, line: str) -> None:
    with (sources / "zh" / "index.md").open("a", encoding="utf-8") as page:
        page.write(f"\n{line}\n")
    with pytest.raises(build_docs.DocumentationBroken):
        build_docs.build(tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_whatever_a_page_loads_from_another_host_is_found(tmp_path: Path) -> None:
    policy = """<meta http-equiv="Content-Security-Policy" content="default-src 'self'">"""
    (tmp_path / "page.html").write_text(
        policy
        + """<a href="https://a.example/">a link to click</a><link href="https://b.example/x.css" rel="stylesheet">
        <script src="//c.example/x.js"></script><p style="background: url('http://d.example/x.png')">""",
        "utf-8",
    )
    (tmp_path / "plain.html").write_text("<p>no policy</p>", "utf-8")
    (tmp_path / "x.css").write_text("@import 'https://e.example/'; a { background: url(//f.example/y) }", "utf-8")
    assert list(build_docs.foreign_requests(tmp_path)) == [
        "page.html: https://b.example/x.css",
        "page.html: //c.example/x.js",
        "page.html: http://d.example/x.png",
        "plain.html: no content security policy",
        "x.css: https://e.example/",
        "x.css: //f.example/y",
    ]
