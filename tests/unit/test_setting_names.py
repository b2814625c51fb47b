"""Names that are no setting: which are errors, what is suggested, and that every name in this repository is known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiproject.config.settings import Settings
from aiproject.config.sources import setting_fields
from aiproject.setting_names import NOT_SETTINGS, is_service_address, unknown_keys, unknown_variables

CLONE = Path(__file__).resolve().parents[2]
NAMES = [setting.name for setting in setting_fields(Settings)]
KEYS = [*NAMES, *(setting.key for setting in setting_fields(Settings))]
SECRET = "hunter2-hunter2-hunter2"

WITH_SERVICE_LINKS = {
    "AIPROJECT_DB_SERVICE_HOST": "10.96.3.7",
    "AIPROJECT_DB_SERVICE_PORT": "3306",
    "AIPROJECT_DB_SERVICE_PORT_MYSQL": "3306",
    "AIPROJECT_DB_PORT": "tcp://10.96.3.7:3306",
    "AIPROJECT_DB_PORT_3306_TCP": "tcp://10.96.3.7:3306",
    "AIPROJECT_DB_PORT_3306_TCP_PROTO": "tcp",
    "AIPROJECT_DB_PORT_3306_TCP_PORT": "3306",
    "AIPROJECT_DB_PORT_3306_TCP_ADDR": "10.96.3.7",
    # A Service named `aiproject` itself. Its AIPROJECT_PORT is a setting's name, and that setting's complaint.
    "AIPROJECT_SERVICE_HOST": "fd00::7",
    "AIPROJECT_SERVICE_PORT_HTTP": "8080",
    "AIPROJECT_PORT_8080_TCP": "tcp://[fd00::7]:8080",
}


def complaints(**variables: str) -> list[str]:
    return list(unknown_variables({f"AIPROJECT_{name}": value for name, value in variables.items()}, NAMES))


class TestVariables:
    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("REGISTRATON", "AIPROJECT_REGISTRATION"),
            ("TRUSTED_PROXY", "AIPROJECT_TRUSTED_PROXIES"),
            ("LIMIT", "AIPROJECT_LIMITS"),
            ("VOICE_ANONYMOS", "AIPROJECT_VOICE_ANONYMOUS"),
            ("_PORT", "AIPROJECT_PORT"),
            ("CONFIGS", "AIPROJECT_CONFIG"),
            ("REQUIRE_SERVICE", "AIPROJECT_REQUIRE_SERVICES"),
        ],
    )
    def test_a_misspelt_one_is_an_error_with_the_nearest_name(self, name: str, meant: str) -> None:
        assert complaints(**{name: "closed"}) == [f"AIPROJECT_{name}: is no setting; did you mean {meant}?"]

    def test_one_that_is_like_none_is_pointed_to_the_readme(self) -> None:
        assert complaints(QQQQQQ="1") == ["AIPROJECT_QQQQQQ: is no setting; the documentation lists all settings"]

    def test_all_are_told_and_no_value_is(self) -> None:
        lines = complaints(DATABASE_URI=SECRET, REGISTRATON=SECRET)
        assert len(lines) == 2
        assert SECRET not in "".join(lines)

    def test_what_follows_a_name_is_not_shown(self) -> None:
        """`docker run -e "AIPROJECT_DATABASE_URL mysql://…"` makes the secret a part of the name."""
        (line,) = complaints(**{f"DATABASE_URL mysql://{SECRET}": "x"})
        assert line.startswith("AIPROJECT_DATABASE_URL…: is no setting; ")
        assert SECRET not in line

    def test_an_endless_name_is_cut(self) -> None:
        (line,) = complaints(**{"X" * 10_000: "1"})
        assert len(line) < 200

    def test_the_case_does_not_matter(self) -> None:
        assert list(unknown_variables({"aiproject_registration": "closed", "AiProject_Config": "x"}, NAMES)) == []
        (line,) = unknown_variables({"aiproject_registraton": "closed"}, NAMES)
        assert line == "aiproject_registraton: is no setting; did you mean AIPROJECT_REGISTRATION?"

    def test_two_spellings_of_one_name_are_an_error(self) -> None:
        (line,) = unknown_variables({"AIPROJECT_PORT": "1", "aiproject_port": "2"}, NAMES)
        assert line == "aiproject_port: is set as AIPROJECT_PORT, too; unset one of the two"

    def test_an_empty_one_is_not_set(self) -> None:
        assert complaints(REGISTRATON="") == []

    def test_other_prefixes_are_none_of_our_business(self) -> None:
        assert list(unknown_variables({"AIPROJECTS_X": "1", "PORT": "x", "AIPROJECT": "1"}, NAMES)) == []

    def test_what_is_declared_to_be_no_setting_is_none(self) -> None:
        assert list(unknown_variables(dict.fromkeys(NOT_SETTINGS, "1"), NAMES)) == []
        assert all(NOT_SETTINGS.values())
        assert not {name.removeprefix("AIPROJECT_").lower() for name in NOT_SETTINGS} & {*NAMES}


class TestServiceLinks:
    """Kubernetes puts variables of its own making into every pod, some with our prefix."""

    def test_they_are_no_errors(self) -> None:
        assert list(unknown_variables(WITH_SERVICE_LINKS, NAMES)) == []

    @pytest.mark.parametrize("name", sorted(WITH_SERVICE_LINKS))
    def test_with_another_value_they_are(self, name: str) -> None:
        assert list(unknown_variables(WITH_SERVICE_LINKS | {name: "no-address-or-number"}, NAMES))

    def test_without_their_service_they_are(self) -> None:
        (line,) = complaints(SERVICE_PORT="8080")
        assert line.startswith("AIPROJECT_SERVICE_PORT: is no setting; ")

    @pytest.mark.parametrize("value", ["8080", "", "http://10.0.0.1:8080", "tcp://user:word@host:1", "tcp://host"])
    def test_what_is_no_address_of_a_service(self, value: str) -> None:
        assert not is_service_address(value)


class TestKeys:
    def test_a_misspelt_one(self) -> None:
        assert list(unknown_keys("registraton", "closed", NAMES)) == [
            "registraton is no setting; did you mean registration?"
        ]

    @pytest.mark.parametrize("key", ["AIPROJECT_PORT", "Port", "aiproject_port"])
    def test_a_variables_name_is_none(self, key: str) -> None:
        assert list(unknown_keys(key, 1, NAMES)) == [f"{key} is no setting; did you mean port?"]

    def test_a_key_of_a_group_is_suggested_with_its_table(self) -> None:
        assert list(unknown_keys("iflytek.spark.domian", SECRET, KEYS)) == [
            "iflytek.spark.domian is no setting; did you mean iflytek.spark.domain?"
        ]

    def test_each_key_of_a_table_is_told(self) -> None:
        table = {"registraton": SECRET, "deep": {"port": SECRET}, "empty": {}}
        lines = list(unknown_keys("aiproject", table, NAMES))
        assert [line.partition(" ")[0] for line in lines] == [
            "aiproject.registraton",
            "aiproject.deep.port",
            "aiproject.empty",
        ]
        assert lines[0].endswith("is no setting; settings stand in no table of that name; did you mean registration?")
        assert SECRET not in "".join(lines)


# Variables that are misspelt on purpose, and beginnings of names.
NO_NAMES = {
    "AIPROJECT_REGISTRATON",
    "AIPROJECT_DB_SERVICE_HOST",
    "AIPROJECT_DB_PORT_3306_TCP_ADDR",
}
OWN = {"tests/unit/test_setting_names.py", "tests/unit/test_config.py"}


def texts() -> Iterator[tuple[str, str]]:
    """Everything in the repository that may name a variable."""
    for folder in ("src", "tests", "tools", "bench", "docs", "examples", ".ci"):
        for path in sorted((CLONE / folder).rglob("*")):
            if path.is_file() and path.suffix in ("", ".py", ".md", ".sh", ".toml", ".yaml", ".yml", ".service"):
                yield path.relative_to(CLONE).as_posix(), path.read_text(encoding="utf-8")
    for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "Dockerfile", "compose.yaml", "Makefile"):
        yield name, (CLONE / name).read_text(encoding="utf-8")


def test_every_name_in_this_repository_is_a_setting_or_declared_not_to_be() -> None:
    known = {f"AIPROJECT_{name.upper()}" for name in NAMES} | NOT_SETTINGS.keys() | NO_NAMES
    found = {
        (place, name)
        for place, text in texts()
        if place not in OWN
        for name in re.findall(r"AIPROJECT_[A-Z0-9_]*[A-Z0-9]", text)
        if name not in known
    }
    assert not found
