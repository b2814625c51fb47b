"""``aiproject ledger`` and ``aiproject voucher``, in process, on SQLite."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from aiproject.adapters import log
from aiproject.adapters.db.engine import Database
from aiproject.cli.main import app
from aiproject.ledger.chain import seal
from aiproject.ledger.model import Meter, Outcome, Stage
from aiproject.ledger.service import LeaseTimes, Quotas
from bookkeeping import reread

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in this process, on a data directory of the test's own."""
    monkeypatch.setenv("AIPROJECT_DATA_DIR", str(tmp_path / "data"))
    # Logging is the process's own; here that is pytest's.
    monkeypatch.setattr(log, "configure", lambda *_, **__: None)

    def run(*words: str, stdin: str = "") -> Result:
        with capture_logs():
            result = CliRunner().invoke(app, list(words), input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    return run


@pytest.fixture
def books(run: Run, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The database of somebody with an account, some quota and books."""
    assert run("user", "add", "小明", "--email", "a@b.cn", stdin="correct horse\n").exit_code == 0
    assert run("user", "grant", "小明", "--tokens", "5", "--voice-seconds", "60").exit_code == 0
    connection = _open(tmp_path)
    yield connection
    connection.close()


def _open(tmp_path: Path) -> sqlite3.Connection:
    return sqlite3.connect(tmp_path / "data" / "aiproject.db", isolation_level=None)


class TestVerify:
    def test_books_that_add_up(self, run: Run, books: sqlite3.Connection) -> None:
        result = run("ledger", "verify")
        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            "accounts   1",
            "entries    4",
            "holds      0",
            "losses     0",
            "difference 0",
        ]

    def test_each_difference_is_told(self, run: Run, books: sqlite3.Connection) -> None:
        books.execute("UPDATE user SET Tokens = 3, PicTimes = 3")
        result = run("ledger", "verify")
        assert result.exit_code == 1
        assert "Tokens: expected 10005, found 3\n" in result.stdout
        assert "PicTimes: expected 10, found 3\n" in result.stdout
        assert result.stdout.endswith("difference 2\n")

    def test_other_tables_are_left_alone(self, run: Run, books: sqlite3.Connection) -> None:
        books.execute("UPDATE alembic_version SET version_num = '0001'")
        before = "\n".join(books.iterdump())
        for words in (("verify",), ("export", "--account", "小明")):
            result = run("ledger", *words)
            assert result.exit_code == 78
            assert "aiproject db upgrade" in result.stderr
        assert "\n".join(books.iterdump()) == before


class TestCheckpoint:
    def test_one_proves_what_was_there(self, run: Run, books: sqlite3.Connection, tmp_path: Path) -> None:
        file, key = tmp_path / "kept" / "anchor.jsonl", tmp_path / "kept" / "key.pub"
        written = run("ledger", "checkpoint", "--out", str(file))
        assert written.exit_code == 0
        assert "accounts   1\n" in written.stdout
        key.write_text(written.stdout[written.stdout.index("-----BEGIN PUBLIC KEY") :])
        sound = run("ledger", "verify", "--checkpoint", str(file))
        assert sound.exit_code == 0
        assert re.search(rf"checkpoint {datetime.now(UTC):%Y-%m-}\d\d [\d:]{{8}} UTC, \d+ accounts\n", sound.stdout)
        books.execute("DELETE FROM audit_entry WHERE seq = (SELECT MAX(seq) FROM audit_entry)")
        books.execute("DELETE FROM ledger_entry")
        books.execute("UPDATE user SET Tokens = 0, PicTimes = 0, VoiceMs = NULL, LedgerSeq = 0, LedgerHash = ''")
        for words in ((), ("--key", str(key))):
            result = run("ledger", "verify", "--checkpoint", str(file), *words)
            assert result.exit_code == 1
            assert "hash of entry 2 of the audit log, by the checkpoint" in result.stdout
            assert "hash of entry 4, by the checkpoint" in result.stdout
            assert result.stdout.endswith("difference 2\n")

    def test_files_of_others_are_refused(self, run: Run, books: sqlite3.Connection, tmp_path: Path) -> None:
        file = tmp_path / "anchor.jsonl"
        assert run("ledger", "checkpoint", "--out", str(file)).exit_code == 0
        (tmp_path / "data" / "ledger-checkpoint.pub").unlink()
        (tmp_path / "data" / "ledger-checkpoint.key").unlink()
        assert run("ledger", "checkpoint").exit_code == 0  # makes another key
        refused = run("ledger", "verify", "--checkpoint", str(file))
        assert (refused.exit_code, refused.stdout) == (65, "")
        assert "not signed with this key" in refused.stderr
        assert run("ledger", "verify", "--checkpoint", str(tmp_path / "none")).exit_code == 65
        assert run("ledger", "verify", "--checkpoint", str(file), "--key", str(tmp_path / "none")).exit_code == 78


class TestExport:
    def test_csv_holds_every_field(self, run: Run, books: sqlite3.Connection) -> None:
        result = run("ledger", "export", "--account", "小明")
        rows = list(csv.DictReader(io.StringIO(result.stdout)))
        assert [(row["seq"], row["capability"], row["amount"], row["kind"]) for row in rows] == [
            ("1", "tokens", "10000", "signup"),
            ("2", "pic_times", "10", "signup"),
            ("3", "tokens", "5", "grant"),
            ("4", "voice_seconds", "60000", "grant"),
        ]

    def test_the_chain_can_be_computed_from_it(self, run: Run, books: sqlite3.Connection) -> None:
        result = run("ledger", "export", "--account", "小明", "--format", "jsonl")
        previous = ""
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        assert len(lines) == 4
        for line in lines:
            written: dict[str, Any] = {name: value for name, value in line.items() if name not in ("hash", "time")}
            assert seal(previous, **written) == line["hash"]
            assert datetime.fromisoformat(line["time"]).timestamp() * 1000 == pytest.approx(line["created_at"])
            previous = line["hash"]

    def test_of_nobody(self, run: Run, books: sqlite3.Connection) -> None:
        result = run("ledger", "export", "--account", "nobody")
        assert (result.exit_code, result.stdout) == (67, "")


class TestLosses:
    @pytest.fixture
    def failed(self, books: sqlite3.Connection, tmp_path: Path) -> None:
        """Two answers to 小明 that moderation stopped, and a clip that timed out."""

        async def fail() -> None:
            database = await Database.open(f"sqlite:///{tmp_path / 'data' / 'aiproject.db'}")
            try:
                account = await reread(database, "小明")
                async with Quotas.running(database, LeaseTimes(30), unpaid_per_day=100) as quotas:
                    for number, seen in enumerate((70, 50)):
                        hold = await quotas.hold(account, Meter.TOKENS, 500, request_id=f"chat {number}")
                        await quotas.settle(hold, Outcome.MODERATED, Stage.FIRST_FRAME, estimated=seen, seen=seen)
                    hold = await quotas.hold(account, Meter.VOICE_SECONDS, 1500, request_id="clip")
                    await quotas.settle(hold, Outcome.TIMED_OUT, Stage.SENT, estimated=1500)
            finally:
                await database.close()

        asyncio.run(fail())

    @pytest.mark.usefixtures("failed")
    def test_are_shown_by_account_and_reason(self, run: Run) -> None:
        lines = run("ledger", "losses").stdout.splitlines()
        assert lines[0].split() == ["account", "reason", "capability", "calls", "amount", "unpaid", "newest", "(UTC)"]
        assert [line.split()[:-2] for line in lines[1:]] == [
            ["小明", "timed", "out", "voice_seconds", "1", "1500", "0"],
            ["小明", "moderated", "tokens", "2", "100", "100"],
        ]

    @pytest.mark.usefixtures("failed")
    def test_as_json_and_only_some(self, run: Run) -> None:
        result = run("ledger", "losses", "--json", "--account", "小明", "--reason", "moderated", "--days", "1")
        (line,) = map(json.loads, result.stdout.splitlines())
        assert (line["account"], line["reason"], line["calls"], line["amount"]) == ("小明", "moderated", 2, 100)
        assert run("ledger", "losses", "--json", "--reason", "truncated").stdout == ""

    def test_of_nobody_or_for_no_reason(self, run: Run, books: sqlite3.Connection) -> None:
        assert run("ledger", "losses", "--account", "nobody").exit_code == 67
        result = run("ledger", "losses", "--reason", "bad weather")
        assert result.exit_code == 65
        assert "over the hold" in result.stderr


class TestRefund:
    @pytest.fixture
    def call(self, books: sqlite3.Connection, tmp_path: Path) -> str:
        """A call of 小明's that was charged 30 tokens in its second try."""

        async def charge() -> None:
            database = await Database.open(f"sqlite:///{tmp_path / 'data' / 'aiproject.db'}")
            async with Quotas.running(database, LeaseTimes(30)) as quotas:
                ming = await reread(database, "小明")
                for attempt, outcome in [(1, Outcome.UPSTREAM_FAILED), (2, Outcome.FINISHED)]:
                    hold = await quotas.hold(ming, Meter.TOKENS, 50, request_id="call", attempt=attempt)
                    await quotas.settle(hold, outcome, Stage.LAST_FRAME, reported=30)
            await database.close()

        asyncio.run(charge())
        return "call"

    def test_gives_back_what_was_charged_once(self, run: Run, books: sqlite3.Connection, call: str) -> None:
        result = run("ledger", "refund", "小明", call)
        assert (result.exit_code, result.stdout) == (0, "refunded 30 of tokens for request call, attempt 2\n")
        again = run("ledger", "refund", "小明", call, "--attempt", "2")
        assert (again.exit_code, again.stdout) == (65, "")
        assert "has been given back already" in again.stderr
        assert books.execute("SELECT Tokens FROM user").fetchall() == [(10_005,)]
        assert run("ledger", "verify").exit_code == 0

    @pytest.mark.parametrize("words", [["nothing"], ["call", "--attempt", "1"], ["call", "--attempt", "3"]])
    def test_but_nothing_that_was_not(self, run: Run, books: sqlite3.Connection, call: str, words: list[str]) -> None:
        result = run("ledger", "refund", "小明", *words)
        assert result.exit_code == 65
        assert "was charged nothing" in result.stderr
        assert books.execute("SELECT Tokens FROM user").fetchall() == [(9975,)]

    def test_of_nobody(self, run: Run, call: str) -> None:
        assert run("ledger", "refund", "nobody", call).exit_code == 67

    def test_is_an_act_of_the_audit_log(self, run: Run, books: sqlite3.Connection, call: str) -> None:
        run("ledger", "refund", "小明", call)
        run("ledger", "refund", "小明", call)  # refused, so that it leaves no entry
        acts = "SELECT actor_kind, target, before, after FROM audit_entry WHERE action = 'ledger.refund'"
        ((actor_kind, target, before, after),) = books.execute(acts).fetchall()
        ((account_id,),) = books.execute("SELECT AccountId FROM user").fetchall()
        assert (actor_kind, target, json.loads(before)) == ("command line", "小明", {"tokens": 9975})
        assert json.loads(after) == {"tokens": 10_005, "account": account_id, "call": "call", "attempt": 2}
        assert run("audit", "verify").exit_code == 0


class TestLogging:
    """What a command did, it prints; its log is for what goes wrong, unless somebody wants it."""

    @pytest.mark.parametrize(("level", "expected"), [(None, "warning"), ("info", "info"), ("debug", "debug")])
    def test_of_commands_begins_at_warning(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, level: str | None, expected: str
    ) -> None:
        configured: list[str] = []
        monkeypatch.setattr(log, "configure", lambda level, *_, **__: configured.append(level))
        if level is not None:
            monkeypatch.setenv("AIPROJECT_LOG_LEVEL", level)
        assert run("voucher", "add", "--tokens", "5").exit_code == 0
        assert configured == [expected]


class TestVoucher:
    def test_codes_are_printed_one_a_line(self, run: Run) -> None:
        result = run("voucher", "add", "--tokens", "5", "--count", "3", "--max-uses", "1")
        codes = result.stdout.splitlines()
        assert len(set(codes)) == 3
        listed = run("voucher", "list").stdout
        assert all(code in listed for code in codes)
        assert listed.count("0 of 1") == 3

    def test_switching(self, run: Run) -> None:
        code = "a-code-that-is-as-long-as-can-be-and-is-never-cut-in-two"
        assert run("voucher", "add", "--code", code, "--pic-times", "2").stdout == f"{code.upper()}\n"
        assert run("voucher", "disable", code).stdout.endswith(" is off\n")
        assert code.upper() in run("voucher", "list").stdout
        assert run("voucher", "enable", code).stdout.endswith(" is available\n")

    def test_a_name_for_each(self, run: Run) -> None:
        (code,) = run("voucher", "add", "--name", "Spring term", "--tokens", "5").stdout.splitlines()
        run("voucher", "add", "--name", "Freshers", "--tokens", "5", "--count", "2")
        assert run("voucher", "disable", "spring TERM").stdout == "Spring term is off\n"
        assert run("voucher", "enable", code).stdout == "Spring term is available\n"
        listed = run("voucher", "list").stdout
        assert all(text in listed for text in ("Spring term", code, "Freshers 1", "Freshers 2"))
        assert run("voucher", "add", "--name", "freshers 2", "--tokens", "5").exit_code == 65

    @pytest.mark.parametrize(
        ("words", "status"),
        [
            (("add",), 65),
            (("add", "--tokens", "-1"), 2),
            (("add", "--tokens", "1", "--expires", "2020-01-01"), 65),
            (("add", "--tokens", "1", "--expires", "tomorrow"), 65),
            (("add", "--tokens", "1", "--expires", "9999-12-31"), 65),
            (("add", "--tokens", "1", "--code", "x", "--count", "2"), 65),
            (("add", "--tokens", "1", "--code", "two words"), 65),
            (("enable", "none"), 65),
        ],
    )
    def test_what_is_refused(self, run: Run, words: tuple[str, ...], status: int) -> None:
        result = run("voucher", *words)
        assert (result.exit_code, result.stdout) == (status, "")

    @pytest.mark.parametrize(
        ("text", "end"),
        [
            ("2099-12-31", "2100-01-01 00:00:00"),
            ("2099-12-31T18:30", "2099-12-31 18:30:00"),
            ("2099-12-31T18:30+08:00", "2099-12-31 10:30:00"),
        ],
    )
    def test_the_end_of_a_day_and_of_a_moment(self, run: Run, tmp_path: Path, text: str, end: str) -> None:
        local = datetime.fromisoformat(end) if "+" in text else datetime.fromisoformat(end).astimezone(UTC)
        run("voucher", "add", "--tokens", "1", "--expires", text)
        connection = _open(tmp_path)
        (stored,) = connection.execute("SELECT expires_at FROM voucher").fetchone()
        connection.close()
        assert stored == f"{local:%Y-%m-%d %H:%M:%S}.000000"
