"""The reference pages are what the code says, in both languages."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import BaseModel, BeforeValidator, Field, SecretStr

from aiproject import errors
from aiproject.cli.common import EXIT_STATUSES
from aiproject.codes import Code, Detail
from aiproject.config.iflytek import SettingGroup
from aiproject.config.settings import Settings
from aiproject.config.sources import setting_fields
from aiproject.config.types import Unit
from aiproject.protocols.iflytek.error_codes import TABLES
from aiproject.web.openapi import describe
from tools.reference import settings
from tools.reference.catalogue import Catalogue, Untranslated, english
from tools.reference.commands import EXIT_MEANINGS, all_commands
from tools.reference.errors import EXAMPLES
from tools.reference.pages import pages

CLONE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return pages()


def test_the_committed_pages_are_what_the_generator_writes(written: dict[str, str]) -> None:
    stale = [path for path, text in written.items() if (CLONE / path).read_text(encoding="utf-8") != text]
    assert not stale, "run python -m tools.reference"


def test_every_setting_stands_in_exactly_one_section() -> None:
    shown = Counter(name for names in settings.SECTIONS.values() for name in names)
    assert shown == Counter(setting.name for setting in setting_fields(Settings))


def test_every_command_and_option_stands_on_the_page(written: dict[str, str]) -> None:
    for language in ("en", "zh"):
        page = written[f"docs/{language}/reference/commands.md"]
        for words, command in all_commands():
            assert f"# `aiproject {' '.join(words)}`\n" in page
            for param in command.params:
                assert all(f"`{name}" in page or f"/ {name}`" in page for name in param.opts if name.startswith("-"))


def test_every_exit_status_has_a_meaning() -> None:
    assert {status for _, status in EXIT_STATUSES} <= EXIT_MEANINGS.keys()


def test_every_error_that_callers_can_meet_is_on_the_page() -> None:
    exported = [getattr(errors, name) for name in errors.__all__]
    tree = [kind for kind in exported if issubclass(kind, errors.AiProjectError)]  # Reason stands beside the tree
    leaves = {kind for kind in tree if not any(other is not kind and issubclass(other, kind) for other in tree)}
    # QuotaExhausted is raised itself, too.
    assert {type(error) for error in EXAMPLES} == leaves | {errors.QuotaExhausted}


def test_every_code_and_the_platform_s_codes_are_on_the_page(written: dict[str, str]) -> None:
    for language in ("en", "zh"):
        page = written[f"docs/{language}/reference/errors.md"]
        assert all(f"\n| `{code.value}` | " in page for code in [*Code, *Detail])
        assert all(f"\n| {number} | `" in page for table in TABLES.values() for number in table)


def test_every_operation_of_the_description_is_on_the_page(written: dict[str, str]) -> None:
    described = [f"{method.upper()} {path}" for path, item in describe()["paths"].items() for method in item]
    for language in ("en", "zh"):
        page = written[f"docs/{language}/reference/api.md"]
        assert all(f"\n### `{operation}`\n" in page for operation in described)
        assert page.count("\n### ") == len(described)


def test_the_page_of_the_http_api_is_in_its_language(written: dict[str, str]) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", written["docs/en/reference/api.md"], flags=re.DOTALL)
    assert not re.search("[\u4e00-\u9fff]", prose)


def test_every_setting_and_command_is_described() -> None:
    assert all(setting.field.description for setting in setting_fields(Settings))
    for words, command in all_commands():
        assert command.help, words
        assert all(param.help for param in command.params), words


class _Inner(SettingGroup):
    variable_prefix = "inner_"

    pace: Annotated[float, Field(gt=0, le=5), Unit("seconds")] = 1.5
    secret: SecretStr | None = None


def _none(value: object) -> object:
    return None if value == "endless" else value


class _Outer(BaseModel):
    mode: Literal["on", "off"] = "on"
    inner: _Inner = _Inner.model_validate({})
    span: Annotated[int | None, BeforeValidator(_none)] = Field(None, ge=3, description="A number, or `endless`.")


class TestSettings:
    FIELDS: ClassVar = {setting.name: setting for setting in setting_fields(_Outer)}

    def test_a_nested_setting_is_named_by_its_path(self) -> None:
        assert {name: setting.key for name, setting in self.FIELDS.items()} == {
            "mode": "mode",
            "inner_pace": "inner.pace",
            "inner_secret": "inner.secret",
            "span": "span",
        }

    def test_type_unit_and_bounds_are_shown(self) -> None:
        assert settings._type(self.FIELDS["mode"].field, english) == "one of `on`, `off`"
        assert settings._type(self.FIELDS["inner_pace"].field, english) == "number (seconds), more than 0, at most 5"
        assert settings._type(self.FIELDS["span"].field, english) == "integer, at least 3"

    def test_a_default_is_shown_as_it_would_be_set(self) -> None:
        assert settings._default(self.FIELDS["inner_pace"].field, english) == "`1.5`"
        assert settings._default(self.FIELDS["inner_secret"].field, english) == "not set"
        assert settings._default(self.FIELDS["span"].field, english) == "`endless`"

    def test_secrets_are_marked_and_no_default_of_one_is_shown(self, written: dict[str, str]) -> None:
        page = written["docs/en/reference/settings.md"]
        secrets = [setting for setting in setting_fields(Settings) if settings._is_secret(setting.field)]
        assert len(secrets) >= 5
        for setting in secrets:
            entry = page.split(f"### `AIPROJECT_{setting.name.upper()}`\n")[1].split("\n#")[0]
            assert "- Secret: " in entry
            assert "- Default: not set" in entry


class TestCatalogue:
    def catalogue(self, tmp_path: Path, text: str) -> Catalogue:
        path = tmp_path / "zh.toml"
        path.write_text(text, encoding="utf-8")
        return Catalogue(path)

    def test_it_translates_and_fills_parameters_in(self, tmp_path: Path) -> None:
        catalogue = self.catalogue(tmp_path, '[words]\n"at most {bound}" = "至多 {bound}"\n')
        assert catalogue("at most {bound}", bound=3) == "至多 3"
        catalogue.check()

    def test_it_names_what_is_missing_and_what_nothing_uses(self, tmp_path: Path) -> None:
        catalogue = self.catalogue(tmp_path, '[words]\n"Old." = "旧。"\n')
        catalogue("New.")
        with pytest.raises(Untranslated) as caught:
            catalogue.check()
        assert "no translation of: 'New.'" in str(caught.value)
        assert "no page uses: 'Old.'" in str(caught.value)

    def test_a_text_stands_in_it_once(self, tmp_path: Path) -> None:
        with pytest.raises(Untranslated, match="twice"):
            self.catalogue(tmp_path, '[a]\n"Text." = "一"\n[b]\n"Text." = "二"\n')
