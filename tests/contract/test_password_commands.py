"""``aiproject user password``, ``rotate`` and ``unlock``: what they do, and that no secret is shown."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from argon2.profiles import CHEAPEST
from typer.testing import CliRunner, Result

from aiproject.accounts.core.model import Account
from aiproject.adapters import log
from aiproject.adapters.db.engine import Database
from aiproject.adapters.passwords import PasswordHasher
from aiproject.cli import services
from aiproject.cli.main import app
from aiproject.config.loading import load_settings
from aiproject.errors import LoginFailed, TooManyRequests

PASSWORD = "correct horse battery"
Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in this process, with one account, alice."""
    monkeypatch.setenv("AIPROJECT_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(log, "configure", lambda *_, **__: None)
    monkeypatch.setattr(services, "PasswordHasher", lambda profile: PasswordHasher(CHEAPEST))

    def run(*words: str, stdin: str = "") -> Result:
        result = CliRunner().invoke(app, ["user", *words], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    assert run("add", "alice", "--email", "", stdin=f"{PASSWORD}\n").exit_code == 0
    return run


def log_in(password: str, name: str = "alice") -> Account:
    async def login() -> Account:
        settings = load_settings()
        database = await Database.open(settings.effective_database_url)
        try:
            async with services.open_services(settings, database) as (accounts, _):
                return await accounts.login(name, password)
        finally:
            await database.close()

    return asyncio.run(login())


def test_another_password_ends_a_lock(run: Run) -> None:
    before = log_in(PASSWORD)
    for _ in range(6):
        with pytest.raises(LoginFailed):
            log_in("a wrong guess")
    with pytest.raises(TooManyRequests):
        log_in(PASSWORD)
    done = run("password", "ALICE", stdin="another good one\n")
    assert done.exit_code == 0
    assert done.stdout.endswith("changed the password of alice\n")
    assert "another good one" not in done.output
    assert log_in("another good one") == before, "the uuid is the same"


def test_a_bad_password_or_name_changes_nothing(run: Run) -> None:
    for bad, told in (("short", "8 characters"), ("PASSWORD", "too common"), ("", "must not be empty")):
        done = run("password", "alice", stdin=f"{bad}\n")
        assert done.exit_code == 65
        assert told in done.stderr
    for command in ("password", "rotate"):
        done = run(command, "nobody", stdin="another good one\n")
        assert done.exit_code == 67
        assert "there is no account of this name" in done.stderr
    assert log_in(PASSWORD)


def test_the_shortest_length_is_a_setting(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIPROJECT_PASSWORD_MIN_LENGTH", "6")
    assert run("password", "alice", stdin="k7#q-\n").exit_code == 65
    assert run("password", "alice", stdin="k7#q-2\n").exit_code == 0
    assert log_in("k7#q-2")


def test_another_uuid_is_never_shown(run: Run, tmp_path: Path) -> None:
    before = log_in(PASSWORD)
    done = run("rotate", "alice")
    assert done.exit_code == 0
    assert done.stdout.endswith("changed the uuid of alice\n")
    after = log_in(PASSWORD)
    assert before.uuid != after.uuid
    assert after.uuid not in done.output
    with sqlite3.connect(tmp_path / "aiproject.db") as connection:
        assert connection.execute('SELECT "Id" FROM "user"').fetchall() == [(after.uuid,)]


def test_unlocking(run: Run) -> None:
    for name in ("alice", "nobody"):
        for _ in range(6):
            with pytest.raises(LoginFailed):
                log_in("a wrong guess", name)
        done = run("unlock", f" {name.upper()} ")
        assert done.exit_code == 0
        assert done.stdout.startswith("unlocked")
        assert run("unlock", name).stdout == f"there are no failed logins of {name}\n"
    assert log_in(PASSWORD)
