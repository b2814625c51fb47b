"""Build the documentation site, English and Chinese, into build/docs; `make docs` runs it.

The sources are read as they lie in the repository, where their links work, too: docs/en, docs/zh, docs/decisions and
docs/assets. Each language becomes a site of its own (theme language, search index), below one entrance. The generator
runs in strict mode, so that a link to a page or a heading that is not there ends the build, and so does a page that
would make a browser ask another host for anything.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

CLONE = Path(__file__).resolve().parents[1]
DOCS = CLONE / "docs"
LANGUAGES = ("en", "zh")
SECTIONS = ("tutorials", "how-to", "reference", "explanation")

FEATURES = (
    "navigation.indexes",
    "navigation.sections",
    "navigation.top",
    "navigation.footer",
    "content.code.copy",
    "search.highlight",
)

FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]\[]*)\]\(([^()\s]+)\)")

ENTRANCE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>AiProject</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'self' file: 'unsafe-inline'">
<script>location.replace(/^zh/i.test(navigator.language) ? "zh/index.html" : "en/index.html")</script>
</head><body><p><a href="zh/index.html" lang="zh">中文</a> · <a href="en/index.html">English</a></p></body></html>
"""

BROKEN_CHINESE = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n *(?=(?:\*\*|\[|`)?[\u3000-\u9fff\uff00-\uffef])")
"""A line break between two Chinese characters, which a browser would show as a blank."""


class DocumentationBroken(Exception):
    """The site cannot be built, or a page of it would load something from another host."""


def site() -> dict[str, Any]:
    """Return docs/site.toml."""
    return tomllib.loads((DOCS / "site.toml").read_text("utf-8"))


def pages() -> list[str]:
    """Return the paths of the site's pages in their order, relative to docs/en and docs/zh alike."""
    settings = site()
    return [settings["home"], *(f"{part}/{name}.md" for part in SECTIONS for name in settings["sections"][part])]


def build(target: Path) -> None:
    """Build the site into ``target``, which is replaced once everything is right. Raises DocumentationBroken."""
    work = target.with_name(f"{target.name}-work")
    built = work / "built"
    shutil.rmtree(work, ignore_errors=True)
    # The generator takes relative paths below its settings only.
    shutil.copytree(DOCS / "theme", work / "theme")
    for language in LANGUAGES:
        _Stage(work / language, language).lay()
        configuration = work / f"{language}.toml"
        configuration.write_text(_configuration(language), "utf-8")
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(configuration)]
        run = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})
        if run.returncode:
            raise DocumentationBroken(re.sub(r"\x1b\[[0-9;]*m", "", run.stdout + run.stderr.partition("Traceback")[0]))
    (built / "index.html").write_text(ENTRANCE, "utf-8")
    foreign = list(foreign_requests(built))
    if foreign:
        raise DocumentationBroken("\n".join(["these would be loaded from another host:", *foreign]))
    shutil.rmtree(target, ignore_errors=True)
    built.rename(target)
    shutil.rmtree(work)


def foreign_requests(built: Path) -> Iterator[str]:
    """Yield what the pages and style sheets below ``built`` load from elsewhere, as "file: address".

    Scripts are not read: the theme's name addresses of add-ons (diagrams, galleries) that no page of ours uses, and
    each page's content security policy keeps them from being loaded; a page without that policy is yielded, too.
    """
    for path in sorted(built.rglob("*.html")):
        reader = _Loads()
        reader.feed(path.read_text("utf-8"))
        if not reader.has_policy:
            yield f"{path.relative_to(built)}: no content security policy"
        yield from (f"{path.relative_to(built)}: {address}" for address in reader.addresses if _is_foreign(address))
    for path in sorted([*built.rglob("*.css"), *built.rglob("*.svg")]):
        found = re.findall(r"""(?:url\(|@import\s|\bhref=|\bsrc=)\s*['"]?([^'")\s]+)""", path.read_text("utf-8"))
        yield from (f"{path.relative_to(built)}: {address}" for address in found if _is_foreign(address))


class _Loads(HTMLParser):
    """Collects the addresses that a browser fetches to show a page; links to be clicked are not among them."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.has_policy = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "meta" and values.get("http-equiv") == "Content-Security-Policy":
            self.has_policy = "default-src 'self'" in values["content"]
        for name in ("src", "srcset", "poster", "data", "action", "xlink:href"):
            if name in values:
                self.addresses.append(values[name])
        if tag not in ("a", "area") and "href" in values:
            self.addresses.append(values["href"])
        self.addresses += re.findall(r"""url\(\s*['"]?([^'")]+)""", values.get("style", ""))


def _is_foreign(address: str) -> bool:
    return re.match(r"(?:https?:)?//", address.strip()) is not None


class _Stage:
    """The folder of one language: its pages and pictures as the site shows them, and beside English the decisions."""

    def __init__(self, folder: Path, language: str) -> None:
        self._folder = folder
        self._language = language
        self._moved = {
            **{DOCS / name: folder.parent / name for name in LANGUAGES},
            DOCS / "decisions": folder.parent / "en" / "decisions",
            DOCS / "assets": folder / "assets",
        }

    def lay(self) -> None:
        sources = [DOCS / self._language / name for name in pages()]
        if self._language == "en":
            sources += sorted((DOCS / "decisions").glob("*.md"))
        for source in sources:
            target = self._place(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self._adapted(source), "utf-8")
        shutil.copytree(DOCS / "assets", self._folder / "assets")

    def _adapted(self, source: Path) -> str:
        """Return a page with its links adapted; code is left alone.

        A link leads to where its target is laid. One to a file of the repository that is no page becomes its text.
        """
        text = source.read_text("utf-8")
        done, end = [], 0
        for fence in FENCE.finditer(text):
            done += [self._prose(text[end : fence.start()], source), fence[0]]
            end = fence.end()
        return "".join([*done, self._prose(text[end:], source)])

    def _prose(self, text: str, source: Path) -> str:
        return BROKEN_CHINESE.sub("", LINK.sub(lambda link: self._led(link, source), text))

    def _led(self, link: re.Match[str], source: Path) -> str:
        path, mark, anchor = link[2].partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return link[0]
        wanted = Path(os.path.normpath(source.parent / path))
        if not wanted.exists():
            raise DocumentationBroken(f"{source.relative_to(CLONE)} links to {link[2]}, which is not there")
        if not any(wanted.is_relative_to(known) for known in self._moved):
            return link[1]
        found = self._place(wanted)
        address = os.path.relpath(found, self._place(source).parent)
        if not found.is_relative_to(self._folder):
            # The generator knows one language's pages; a link into the other's is written as it will be served.
            address = address.removesuffix(".md") + ".html"
        return f"[{link[1]}]({address}{mark}{anchor})"

    def _place(self, path: Path) -> Path:
        """Return where ``path`` is laid. Raises StopIteration if the site does not have it."""
        old = next(known for known in self._moved if path.is_relative_to(known))
        place = self._moved[old] / path.relative_to(old)
        if path.is_dir():
            place /= "index.md"
        return place.with_name("index.md") if place.name == "README.md" else place


def _configuration(language: str) -> str:
    """Return the generator's settings for one language; JSON's texts and lists are TOML's, too."""
    settings = site()
    words = settings["languages"][language]
    shown = pages()
    navigation: list[str] = [json.dumps(settings["home"])]
    for part in SECTIONS:
        names = [name for name in shown if name.startswith(f"{part}/")]
        navigation.append(f"{{{json.dumps(words[part], ensure_ascii=False)} = {json.dumps(names)}}}")
    if language == "en":
        decisions = [f"decisions/{path.name}" for path in sorted((DOCS / "decisions").glob("[0-9]*.md"))]
        navigation.append(f"{{{json.dumps(words['decisions'])} = {json.dumps(['decisions/index.md', *decisions])}}}")
    other = next(name for name in LANGUAGES if name != language)
    other_name = json.dumps(settings["languages"][other]["name"], ensure_ascii=False)
    return f"""[project]
site_name = "AiProject"
site_description = {json.dumps(words["description"], ensure_ascii=False)}
docs_dir = "{language}"
site_dir = "built/{language}"
use_directory_urls = false
nav = [{", ".join(navigation)}]
[project.theme]
language = "{language}"
font = false
custom_dir = "theme"
features = {json.dumps(FEATURES)}
[[project.theme.palette]]
media = "(prefers-color-scheme)"
[project.extra]
generator = false
alternate = [{{name = {other_name}, link = "../{other}/index.html", lang = "{other}"}}]
[project.markdown_extensions.tables]
[project.markdown_extensions.toc]
permalink = true
[project.markdown_extensions.toc.slugify]
object = "pymdownx.slugs.slugify"
kwds = {{case = "lower"}}
[project.markdown_extensions.pymdownx.highlight]
[project.markdown_extensions.pymdownx.superfences]
[project.markdown_extensions.pymdownx.inlinehilite]
"""


if __name__ == "__main__":
    wanted = CLONE / "build" / "docs"
    try:
        build(wanted)
    except DocumentationBroken as error:
        sys.exit(str(error))
    print(f"{len(list(wanted.rglob('*.html')))} pages: {wanted.relative_to(CLONE)}/index.html")
