"""The documents say what the code does: settings, commands, limits, errors and links."""

from __future__ import annotations

import re
import tomllib
from html import unescape
from pathlib import Path

import pytest

from aiproject.accounts.principal.permissions import NEEDS, Action, Requirement
from aiproject.accounts.principal.principal import Credential
from aiproject.accounts.routes import legacy as accounts_routes
from aiproject.accounts.routes import mail as mail_routes
from aiproject.adapters.http.event_limits import Rate
from aiproject.administration import routes as administration_routes
from aiproject.api.legacy import files as relay_files
from aiproject.config.settings import Settings
from aiproject.protocols.iflytek.spark.models import known_domains
from aiproject.vouchers import routes as vouchers_routes
from tools.build_docs import site

CLONE = Path(__file__).resolve().parents[2]
READMES = ("README.md", "README.zh-CN.md")
LANGUAGES = ("en", "zh")
PAGES = sorted(path.relative_to(CLONE / "docs" / "en").as_posix() for path in (CLONE / "docs" / "en").rglob("*.md"))
DOCUMENTS = sorted(
    path.relative_to(CLONE).as_posix() for path in [*CLONE.glob("*.md"), *(CLONE / "docs").rglob("*.md")]
)
DECISIONS = sorted((CLONE / "docs" / "decisions").glob("[0-9]*.md"))

PICTURE = "docs/assets/first-chat.svg"

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]\[]*\]\(([^()\s]+)\)")


def read(name: str) -> str:
    return (CLONE / name).read_text(encoding="utf-8")


def prose(text: str) -> str:
    """A document without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def rows(text: str, start: str) -> list[list[str]]:
    """The cells of the table rows whose first cell begins with ``start``."""
    return [
        [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith(f"| {start}")
    ]


def slugs(text: str) -> set[str]:
    """The anchors of a document's headings, as repository hosts make them."""
    titles = (title for _, title in HEADING.findall(FENCE.sub("", text)))
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("readme", READMES)
class TestReadme:
    def test_it_fits_on_a_screen_or_two(self, readme: str) -> None:
        assert len(read(readme).splitlines()) <= 150

    def test_the_make_targets_exist(self, readme: str) -> None:
        targets = [row[0].strip("`").split()[1] for row in rows(read(readme), "`make ")]
        assert targets
        for target in targets:
            assert re.search(rf"^{target}:", read("Makefile"), re.MULTILINE), target


@pytest.mark.parametrize("language", LANGUAGES)
class TestPages:
    def test_the_rate_limits_are_those_in_force(self, language: str) -> None:
        page = read(f"docs/{language}/explanation/limits.md")
        shown = [int(row[1].split(" / ")[0]) for row in _with_limits(page)]
        rates = [
            value
            for module in (administration_routes, accounts_routes, mail_routes, relay_files, vouchers_routes)
            for value in vars(module).values()
            if type(value) is Rate
        ]
        fields = Settings.model_fields
        a_minute = [fields[f"{who}_requests_per_minute"].default for who in ("address", "account")]
        at_once = [fields[f"{who}_concurrent_calls"].default for who in ("address", "account")]
        assert all(rate.item.get_expiry() == 60 for rate in rates)
        assert sorted(shown) == sorted([*a_minute, *(rate.item.amount for rate in rates)])
        assert [
            int(found) for found in re.findall(r"\| (?:同时 )?(\d+)(?: at once)? \|$", page, re.MULTILINE)
        ] == at_once

    def test_models_and_their_domains_fit(self, language: str) -> None:
        page = read(f"docs/{language}/how-to/credentials.md")
        models = [row for row in rows(page, "") if len(row) == 3 and row[1].startswith("`wss://")]
        assert len(models) > 5
        for _, address, domains in models:
            for domain in re.findall(r"`([^`]+)`", domains):
                assert domain in (known_domains(address.strip("`")) or ()), address


def test_both_readmes_have_the_same_sections_code_and_tables() -> None:
    english, chinese = map(read, READMES)
    _assert_equal_in_form(english, chinese)
    first_cells = [[row[0] for row in rows(text, "`make ")] for text in (english, chinese)]
    assert first_cells[0] == first_cells[1]
    assert {link.replace("docs/en/", "docs/zh/") for link in LINK.findall(prose(english))} - {"README.zh-CN.md"} == {
        link.replace("docs/en/", "docs/zh/") for link in LINK.findall(prose(chinese))
    } - {"README.md"}


def _assert_equal_in_form(english: str, chinese: str) -> None:
    """Two pages have the same levels of headings, and the same code but for comments.

    What commands print (``text``) may be in the page's language.
    """
    assert [level for level, _ in HEADING.findall(FENCE.sub("", english))] == [
        level for level, _ in HEADING.findall(FENCE.sub("", chinese))
    ]
    for own, other in zip(FENCE.findall(english), FENCE.findall(chinese), strict=True):
        assert own[1] == other[1]
        if own[1] == "text":
            assert own[2].count("\n") == other[2].count("\n")
        else:
            assert _without_comments(own[2]) == _without_comments(other[2])


def test_the_picture_shows_what_the_readme_says() -> None:
    """`tools/make_picture.py` drew it from a run of the README's commands: it must be drawn again if they change."""
    drawn = re.sub(r"\s", "", unescape("".join(re.findall(r"<text [^>]*>([^<]*)</text>", read(PICTURE)))))
    start, chat, printed = (code for _, _, code in FENCE.findall(read("README.md"))[:3])
    for line in [start.splitlines()[-1], *chat.splitlines(), *printed.splitlines()]:
        assert re.sub(r"\s", "", line) in drawn, line


class TestBothLanguages:
    def test_the_site_lists_every_page_and_has_it_in_both(self) -> None:
        sections = site()["sections"]
        listed = {"index.md", *(f"{section}/{name}.md" for section, names in sections.items() for name in names)}
        for language in LANGUAGES:
            folder = CLONE / "docs" / language
            assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.md")} == listed, language

    @pytest.mark.parametrize("page", PAGES)
    def test_a_page_has_the_same_sections_and_commands_in_both(self, page: str) -> None:
        _assert_equal_in_form(read(f"docs/en/{page}"), read(f"docs/zh/{page}"))


@pytest.mark.parametrize("document", DOCUMENTS)
class TestLinks:
    def test_relative_links_resolve(self, document: str) -> None:
        for link in LINK.findall(prose(read(document))):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (CLONE / document).parent / path if path else CLONE / document
            assert target.exists(), link
            if anchor:
                assert anchor in slugs(target.read_text(encoding="utf-8")), link

    def test_no_path_of_somebodys_machine(self, document: str) -> None:
        assert not re.search(r"(?<![\w.])/(work|root|home|Users|tmp)/", read(document))


class TestDecisions:
    def test_they_are_numbered_without_a_gap_and_listed(self) -> None:
        assert [int(path.name[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))
        listed = LINK.findall(read("docs/decisions/README.md"))
        assert [link for link in listed if re.match(r"\d{4}-", link)] == [path.name for path in DECISIONS]

    @pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.name)
    def test_each_has_the_four_parts(self, path: Path) -> None:
        titles = [title for level, title in HEADING.findall(path.read_text(encoding="utf-8")) if level == "##"]
        assert titles == ["Context", "Decision", "Consequences", "Alternatives"]


def test_the_table_of_credentials_is_the_one_in_force() -> None:
    table = rows(read("docs/en/explanation/accounts.md"), "")
    shown = {row[0]: row[1:] for row in table if len(row) == 4 and row[0] in set(Action)}
    credentials = (Credential.UUID, Credential.SESSION, Credential.API_KEY)
    # The password is the one way to reauthenticate that there is.
    said = {Requirement.NOTHING: "yes", Requirement.REAUTHENTICATION: "with the password", Requirement.REFUSED: "no"}
    assert shown == {str(act): [said[NEEDS[act, credential]] for credential in credentials] for act in Action}
    words = {"可以": "yes", "需要密码": "with the password", "不可以": "no"}
    chinese = [row[1:] for row in rows(read("docs/zh/explanation/accounts.md"), "") if {*row[1:]} <= words.keys()]
    assert [[words[cell] for cell in row] for row in chinese] == list(shown.values())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_table_of_packages_is_the_contract_of_imports(language: str) -> None:
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    declared = [sorted(layer.replace("aiproject.", "").split(" | ")) for layer in layers[1:]]  # without __main__
    table = read(f"docs/{language}/explanation/architecture.md").split("|---|---|\n")[1].split("\n\n")[0]
    shown = [sorted(re.findall(r"`(\w+)`", line.split(" | ")[0])) for line in table.splitlines()]
    assert shown == declared


def _with_limits(text: str) -> list[list[str]]:
    return [row for row in rows(text, "") if len(row) == 2 and re.fullmatch(r"\d+ / (minute|分钟)", row[1])]


def _without_comments(code: str) -> list[str]:
    return [line for line in (re.sub(r"\s*(?<!\S)# .*$", "", line).rstrip() for line in code.splitlines()) if line]
