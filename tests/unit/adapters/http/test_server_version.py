"""The range of uvicorn's versions: it is what is locked, and another one does not start."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from aiproject.adapters.http.server_version import check_server_version
from aiproject.errors import Misconfigured
from aiproject.messages.formatting import Language, format_error

ROOT = Path(__file__).parents[4]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]


def test_the_installed_version_is_in_the_declared_range() -> None:
    check_server_version(DECLARED)


def test_so_is_the_locked_one_which_is_what_the_tests_run_with() -> None:
    requirements = (ROOT / "requirements" / "run.txt").read_text(encoding="utf-8")
    locked = re.search(r"^uvicorn==(\S+)", requirements, re.MULTILINE)
    assert locked is not None
    check_server_version(DECLARED, locked[1])
    assert locked[1] == metadata.version("uvicorn")


def test_the_range_has_an_end() -> None:
    with pytest.raises(Misconfigured):
        check_server_version(DECLARED, "999.0")


@pytest.mark.parametrize(
    ("requirement", "installed", "fits"),
    [
        ("uvicorn>=0.54,<0.55", "0.54.0", True),
        ("uvicorn<0.55,>=0.54", "0.54.7", True),
        ("uvicorn>=0.54,<0.55", "0.55.0", False),
        ("uvicorn>=0.54,<0.55", "0.55", False),
        ("uvicorn>=0.54,<0.55", "0.53.9", False),
        ("uvicorn>=0.9,<0.55", "0.54", True),
        ("uvicorn[standard] >=0.54 , <0.55 ; python_version > '3'", "0.60", False),
        ("uvicorn>=0.54.0", "0.54", True),
        ("uvicorn", "0.1", True),
        ("uvicorn-worker<0.1", "0.54", True),
    ],
)
def test_ranges(requirement: str, installed: str, fits: bool) -> None:
    if fits:
        check_server_version([requirement], installed)
        return
    with pytest.raises(Misconfigured) as caught:
        check_server_version([requirement], installed)
    for language in Language:
        assert installed in format_error(caught.value, language)
