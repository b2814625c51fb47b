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

WRITERS_ONLY = {"alembic", "argon2", "cryptography", "jwt", "structlog"}
"""Packages that upgrade a schema, hash a password, sign, or write a log line."""

OTHER_DATABASES = {"asyncmy", "asyncpg", "sqlalchemy.dialects.postgresql"}
"""Modules of databases that are not the one in use: SQLite."""

READERS = {
    "accounts",
    "accounts.core",
    "accounts.core.directory",
    "accounts.core.model",
    "accounts.core.store",
    "accounts.login",
    "accounts.login.password_policy",
    "administration",
    "administration.model",
    "assembly",
    "audit",
    "audit.model",
    "audit.store",
    "cli.common",
    "cli.users",
    "codes",
    "errors",
    "meters",
    "setting_names",
}
"""Modules of ours that a command which lists accounts may import, beside those of `READERS_PACKAGES`."""

READERS_PACKAGES = ("adapters.db", "adapters.log", "config", "messages", "protocols")

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
    imported_by(tmp_path, "db", "upgrade")  # else the command itself makes the schema, by Alembic
    modules = imported_by(tmp_path, "user", "list")
    assert "sqlalchemy" in modules
    assert not {name.split(".")[0] for name in modules} & (SERVER_ONLY | WRITERS_ONLY)
    assert not modules & OTHER_DATABASES
    ours = {name.removeprefix("aiproject.") for name in modules if name.startswith("aiproject.")} - {"adapters", "cli"}
    helps = {name.removeprefix("aiproject.") for name in HELP_ONLY}
    assert {name for name in ours if not name.startswith(READERS_PACKAGES)} <= READERS | helps


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command.name))
def test_what_stands_for_a_command_loads_it(command: LazyCommand) -> None:
    loaded = command.load()
    assert (loaded.name, loaded.help) == (command.name, command.help)
