"""What a command imports before it answers: no more than it needs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import program
from aiproject.cli.lazy import LazyCommand
from aiproject.cli.main import COMMANDS

SERVER_ONLY = {
    "PIL",
    "aiohttp",
    "aiosmtplib",
    "fastapi",
    "limits",
    "numpy",
    "redis",
    "soundfile",
    "starlette",
    "uvicorn",
    "uvloop",
    "zxcvbn",
}
"""Packages of which a command about accounts needs none."""

HELP_ONLY = {"aiproject", "aiproject.cli", "aiproject.cli.lazy", "aiproject.cli.main"}


def imported_by(folder: Path, *words: str) -> set[str]:
    """Run a command in a process of its own and return the names of the modules that it imports."""
    command = [program.COMMAND[0], "-X", "importtime", *program.COMMAND[1:], *words]
    done = subprocess.run(
        command,
        env=program.environment(AIPROJECT_DATA_DIR=str(folder)),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", done.stderr, re.MULTILINE))


def test_the_help_imports_no_command(tmp_path: Path) -> None:
    modules = imported_by(tmp_path, "--help")
    assert {name for name in modules if name.split(".")[0] == "aiproject"} <= HELP_ONLY
    assert not {name.split(".")[0] for name in modules} & {*SERVER_ONLY, "sqlalchemy", "pydantic", "structlog"}


def test_a_list_of_accounts_imports_nothing_of_the_server(tmp_path: Path) -> None:
    modules = imported_by(tmp_path, "user", "list")
    assert "sqlalchemy" in modules
    assert not {name.split(".")[0] for name in modules} & SERVER_ONLY
    assert "aiproject.wiring" not in modules


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command.name))
def test_what_stands_for_a_command_loads_it(command: LazyCommand) -> None:
    loaded = command.load()
    assert (loaded.name, loaded.help) == (command.name, command.help)
