"""``aiproject admin`` and ``aiproject audit``, and that every command that changes something is in the audit log."""

from __future__ import annotations

import csv
import io
import json
import os
import pwd
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from aiproject.adapters import log
from aiproject.cli.main import app

PASSWORD = "four different horses"
Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in this process, on a data directory of the test's own."""
    monkeypatch.setenv("AIPROJECT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("AIPROJECT_ARGON2_MEMORY", "19456")
    monkeypatch.setenv("AIPROJECT_ARGON2_PASSES", "1")
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.setattr(log, "configure", lambda *_, **__: None)

    def run(*words: str, stdin: str = f"{PASSWORD}\n", status: int = 0) -> Result:
        result = CliRunner().invoke(app, list(words), input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert result.exit_code == status, result.output
        return result

    run("db", "upgrade")
    return run


def entries(run: Run) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(run("audit", "export").stdout)))


class TestAdmin:
    def test_life(self, run: Run) -> None:
        assert run("admin", "add", "Ann").stdout == "added Ann, owner\n"
        assert run("admin", "add", "bob").stdout == "added bob, admin\n"
        assert run("admin", "add", "eve", "--role", "auditor").stdout == "added eve, auditor\n"
        listed = run("admin", "list").stdout
        assert [line.split()[1:3] for line in listed.splitlines()[1:]] == [
            ["Ann", "owner"],
            ["bob", "admin"],
            ["eve", "auditor"],
        ]
        assert run("admin", "role", "bob", "owner").stdout == "bob is owner\n"
        assert run("admin", "remove", "ann").stdout == "removed Ann\n"
        assert run("admin", "password", "bob", stdin="five different horses\n").exit_code == 0

    def test_refusals(self, run: Run) -> None:
        run("admin", "add", "ann")
        assert "name is taken" in run("admin", "add", "ANN", status=65).output
        assert "no administrator" in run("admin", "remove", "nobody", status=67).output
        assert "no administrator" in run("admin", "password", "nobody", status=67).output
        assert "last owner" in run("admin", "remove", "ann", status=65).output
        assert "last owner" in run("admin", "role", "ann", "auditor", status=65).output
        run("admin", "add", "weak", stdin="12345678\n", status=65)
        run("admin", "add", "king", "--role", "king", status=2)
        run("admin", "add", "x", "--password", PASSWORD, status=2)

    def test_nothing_shows_a_password(self, run: Run, tmp_path: Path) -> None:
        told = run("admin", "add", "ann").output + run("admin", "list").output + run("audit", "list").output
        assert PASSWORD not in told
        with sqlite3.connect(tmp_path / "data" / "aiproject.db") as connection:
            (stored,) = connection.execute("SELECT password FROM administrator").fetchone()
        assert stored.startswith("$argon2id$")
        assert stored not in told


class TestAudit:
    def test_every_command_that_changes_something_is_there(self, run: Run) -> None:
        run("user", "add", "alice", "--email", "a@example.org")
        run("user", "grant", "alice", "--tokens", "5", "--voice-seconds", "2")
        run("user", "disable", "alice")
        run("user", "disable", "alice", "--undo")
        run("user", "password", "alice", stdin="five different horses\n")
        run("user", "rotate", "alice")
        run("user", "unlock", "alice")
        key = run("key", "add", "alice", "--name", "laptop").stdout.split()[-1]
        run(
            "key", "revoke", next(word for word in run("key", "list", "alice").stdout.split() if word.startswith("sk-"))
        )
        run("voucher", "add", "--code", "SPRING-TERM", "--tokens", "5")
        run("voucher", "add", "--count", "3", "--tokens", "5")
        run("voucher", "disable", "SPRING-TERM")
        run("voucher", "enable", "SPRING-TERM")
        run("admin", "add", "ann")
        run("admin", "password", "ann", stdin="five different horses\n")
        told = entries(run)
        assert [each["action"] for each in told] == [
            "user.add", "user.grant", "user.disable", "user.enable", "user.password", "user.rotate", "user.unlock",
            "key.add", "key.revoke", "voucher.add", "voucher.add", "voucher.disable", "voucher.enable", "admin.add",
            "admin.modify",
        ]  # fmt: skip
        whoami = pwd.getpwuid(os.getuid()).pw_name
        assert {(each["actor_kind"], each["actor"]) for each in told} == {("command line", whoami)}
        assert json.loads(told[1]["before"]) == {"tokens": 10_000, "voice_seconds": 0}
        grant = json.loads(told[1]["after"])
        assert grant == {"tokens": 10_005, "voice_seconds": 2, "account": json.loads(told[0]["after"])["account"]}
        assert json.loads(told[4]["after"]) == {"password": "changed"}
        everything = str(told)
        for secret in (key, "SPRING-TERM", PASSWORD, "five different horses"):
            assert secret not in everything

    def test_a_command_that_failed_is_not(self, run: Run) -> None:
        run("user", "grant", "nobody", "--tokens", "5", status=67)
        run("voucher", "disable", "NOTHING", status=65)
        assert entries(run) == []

    def test_list_and_filters(self, run: Run) -> None:
        run("user", "add", "alice", "--email", "a@example.org")
        run("admin", "add", "ann")
        assert "user.add" in run("audit", "list").stdout
        assert "user.add" not in run("audit", "list", "--action", "admin.").stdout
        assert "user.add" not in run("audit", "list", "--limit", "1").stdout
        lines = run("audit", "export", "--format", "jsonl", "--action", "user.").stdout.splitlines()
        assert [json.loads(line)["target"] for line in lines] == ["alice"]

    def test_verify(self, run: Run, tmp_path: Path) -> None:
        run("user", "add", "alice", "--email", "a@example.org")
        run("user", "disable", "alice")
        fine = run("audit", "verify").stdout
        assert "entries    2" in fine
        assert "difference 0" in fine
        with sqlite3.connect(tmp_path / "data" / "aiproject.db") as connection:
            connection.execute("UPDATE audit_entry SET target = 'bob' WHERE seq = 1")
        broken = run("audit", "verify", status=1).stdout
        assert "entry 1 does not fit its hash" in broken
        assert "difference 1" in broken
