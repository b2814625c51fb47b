"""What the doctor says of a set-up's exposure, and that the manual lists each finding."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from aiproject.cli.findings import examine_exposure, examine_files, examine_password_length, is_loopback
from aiproject.config.settings import Settings
from aiproject.messages.formatting import Language

PUBLIC: dict[str, Any] = {"host": "192.0.2.7", "trusted_proxies": ("10.0.0.2",), "voice_anonymous": False}
KEYS: dict[str, Any] = {"iflytek_app_id": "a", "iflytek_api_key": "b", "iflytek_api_secret": "c"}


def levels(**settings: Any) -> dict[str, str]:
    return {finding.subject: finding.level for finding in examine_exposure(Settings(**settings))}


def test_on_loopback_nothing_is_to_be_mended() -> None:
    assert levels() == {"address": "ok"}
    assert levels(limits="off") == {"limits": "note"}


def test_a_set_up_as_the_manual_wants_it() -> None:
    assert levels(**PUBLIC, **KEYS, registration="closed", cors_origins=("https://a.example",)) == {"address": "ok"}


@pytest.mark.parametrize(
    ("settings", "subject"),
    [
        ({"trusted_proxies": ()}, "address"),
        ({"trusted_proxies": ("0.0.0.0/0",)}, "address"),
        ({"trusted_proxies": ("10.0.0.2", "::/0")}, "address"),
        ({"public_url": "http://ai.example"}, "address"),
        ({"limits": "off"}, "limits"),
        ({"voice_anonymous": True}, "voice"),
    ],
)
def test_each_weak_spot_is_to_be_mended(settings: dict[str, Any], subject: str) -> None:
    found = levels(**{**PUBLIC, **settings})
    assert found[subject] == "fix"
    assert [name for name, level in found.items() if level == "fix"] == [subject]


@pytest.mark.parametrize(("length", "level"), [(6, "note"), (7, "note"), (8, "ok"), (12, "ok")])
def test_a_short_password_is_noted(length: int, level: str) -> None:
    settings: dict[str, Any] = {"password_min_length": length}
    finding = examine_password_length(Settings(**settings))
    assert finding.level == level
    assert f" {length} characters" in finding.text(Language.EN)


def test_several_nodes_want_one_key(tmp_path: Path) -> None:
    def level(**settings: Any) -> list[str]:
        found = examine_files(Settings(data_dir=tmp_path / "none", **settings))
        return [finding.level for finding in found if finding.subject == "admin key"]

    redis = SecretStr("redis://127.0.0.1:1")
    assert level() == []
    assert level(redis_url=redis) == ["note"]
    assert level(redis_url=redis, admin_key_file=tmp_path / "shared.key") == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.3.4.5", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("10.0.0.1", False),
        ("ai.example", False),
        ("", False),
    ],
)
def test_who_is_reached_by_this_machine_only(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_the_manual_lists_every_subject() -> None:
    clone = Path(__file__).resolve().parents[3]
    code = "".join(
        (clone / "src/aiproject/cli" / name).read_text("utf-8")
        for name in ("doctor.py", "findings.py", "name_findings.py")
    )
    subjects = set(re.findall(r'Finding\(\s*"(?:ok|note|mend)",\s*"([a-z ]+)"', code))
    assert len(subjects) > 10
    manual = (clone / "docs" / "en" / "reference" / "doctor.md").read_text("utf-8")
    listed = set(re.findall(r"^\| `([a-z ]+)` \|", manual, re.MULTILINE))
    assert subjects <= listed
