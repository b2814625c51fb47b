"""The command line: exit statuses, what is shown and what never is. In process, but for what needs a process."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import program
from aiproject import __version__
from aiproject.accounts.api_keys.model import prefix_of
from aiproject.adapters import log
from aiproject.cli.main import app
from aiproject.sandbox.faults import parse_fault_requests
from aiproject.sandbox.running import SandboxAddress, SandboxThread
from sandbox_client import FAST
from services import Redis

PASSWORD = "correct horse battery"
Run = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, data: Path) -> Run:
    """Run a command in this process, on a data directory of the test's own."""
    monkeypatch.setenv("AIPROJECT_DATA_DIR", str(data))
    monkeypatch.setenv("COLUMNS", "200")
    # Logging is the process's own; here that is pytest's.
    monkeypatch.setattr(log, "configure", lambda *_, **__: None)

    def run(*words: str, stdin: str = "", **variables: str) -> Result:
        for name, value in variables.items():
            monkeypatch.setenv(f"AIPROJECT_{name}", value)
        result = CliRunner().invoke(app, list(words), input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert "Traceback" not in result.output
        return result

    return run


def uuid_of(data: Path, name: str) -> str:
    with sqlite3.connect(data / "aiproject.db") as connection:
        return str(connection.execute('SELECT "Id" FROM "user" WHERE "UserName" = ?', (name,)).fetchone()[0])


def add(run: Run, name: str = "小明", *, stdin: str = f"{PASSWORD}\n") -> Result:
    return run("user", "add", name, "--email", "a@b.cn", stdin=stdin)


def shown(result: Result) -> dict[str, str]:
    """What ``user show`` and its kin print, by label."""
    lines = [line for line in result.stdout.splitlines() if line[:1].isalpha()]
    return {line[:17].strip(): line[18:] for line in lines}


class TestProcess:
    """Through the installed entry point's module."""

    @staticmethod
    def spawn(*words: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program.COMMAND, *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=program.environment(**{f"AIPROJECT_{name}": value for name, value in variables.items()}),
        )

    def test_version(self) -> None:
        done = self.spawn("--version")
        assert (done.returncode, done.stdout) == (0, f"aiproject {__version__}\n")

    def test_a_full_disk_is_one_line_and_74(self) -> None:
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*program.COMMAND, "--version"],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
                check=False,
                env=program.environment(),
            )
        assert (done.returncode, done.stderr) == (74, "aiproject: No space left on device\n")

    def test_a_reader_that_wants_no_more_is_no_fault(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as pipe:
            done = subprocess.run(
                [*program.COMMAND, "--version"],
                stdout=pipe,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
                check=False,
                env=program.environment(),
            )
        assert (done.returncode, done.stderr) == (1, "")

    def test_a_misconfiguration_is_78_and_all_of_it_is_said(self, tmp_path: Path) -> None:
        done = self.spawn("serve", PORT="70000", LIMITS="perhaps", IFLYTEK_API_SECRET="hunter2", DATA_DIR=str(tmp_path))
        assert done.returncode == 78
        assert done.stdout == ""
        for name in ("PORT", "LIMITS", "IFLYTEK_API_SECRET"):
            assert f"AIPROJECT_{name}" in done.stderr
        assert "hunter2" not in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        "words", ["serve", "sandbox --port 0", "doctor", "db status", "user list", "ledger verify", "audit verify"]
    )
    def test_no_command_starts_with_a_misspelt_setting(self, words: str, tmp_path: Path) -> None:
        """The default would be in force: here, open registration."""
        done = self.spawn(*words.split(), REGISTRATON="closed", DATA_DIR=str(tmp_path))
        assert (done.returncode, done.stdout) == (78, "")
        assert done.stderr == "aiproject: AIPROJECT_REGISTRATON: is no setting; did you mean AIPROJECT_REGISTRATION?\n"
        assert not list(tmp_path.iterdir())

    def test_a_password_is_read_and_never_shown(self, tmp_path: Path) -> None:
        data = tmp_path / "data"
        done = self.spawn(
            *("user", "add", "alice", "--email", "a@b.cn"),
            stdin=f"{PASSWORD}\n",
            DATA_DIR=str(data),
            LOG_LEVEL="debug",
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "added alice\n"
        told = done.stdout + done.stderr
        assert PASSWORD not in told
        assert uuid_of(data, "alice") not in told


class TestWords:
    def test_no_words_are_a_help(self, run: Run) -> None:
        for words in ((), ("user",), ("db",)):
            assert "Usage" in run(*words).output

    @pytest.mark.parametrize("words", [("nonsense",), ("user", "add"), ("user", "grant", "x", "--tokens", "many")])
    def test_wrong_words_are_2(self, run: Run, words: tuple[str, ...]) -> None:
        assert run(*words).exit_code == 2

    def test_no_option_takes_a_password(self, run: Run) -> None:
        assert "--password" not in run("user", "add", "--help").output
        assert run("user", "add", "x", "--email", "e", "--password", PASSWORD).exit_code == 2


class TestDatabase:
    def test_status_and_upgrade(self, run: Run) -> None:
        before = run("db", "status")
        assert before.exit_code == 1
        assert "empty" in before.stdout
        upgraded = run("db", "upgrade")
        assert upgraded.exit_code == 0
        assert " -> " in upgraded.stdout
        after = run("db", "status")
        assert after.exit_code == 0
        assert "up to date" in after.stdout
        assert "already at" in run("db", "upgrade").stdout

    def test_an_original_database_is_adopted_when_asked_to(self, run: Run, data: Path) -> None:
        data.mkdir(mode=0o700)
        with sqlite3.connect(data / "aiproject.db") as connection:
            connection.execute(
                'CREATE TABLE "user" (Id VARCHAR(50) PRIMARY KEY NOT NULL, UserName VARCHAR(50) NOT NULL, PassWord '
                "VARCHAR(50) NOT NULL, Tokens INTEGER, Email VARCHAR(50) NOT NULL, PicTimes INTEGER DEFAULT 0)"
            )
            connection.execute("""INSERT INTO "user" VALUES ('id', 'alice', 'plain', 500, 'a@b.cn', 7)""")
        status = run("db", "status")
        assert status.exit_code == 1
        assert "adopts them" in status.stdout
        refused = run("user", "list")
        assert refused.exit_code == 78
        assert "aiproject db upgrade" in refused.stderr
        assert run("db", "upgrade").exit_code == 0
        assert shown(run("user", "show", "alice"))["tokens"] == "500"

    def test_a_schema_of_a_later_release(self, run: Run, data: Path) -> None:
        run("db", "upgrade")
        with sqlite3.connect(data / "aiproject.db") as connection:
            connection.execute("UPDATE alembic_version SET version_num = 'v9999'")
        status = run("db", "status")
        assert status.exit_code == 1
        assert "later release" in status.stdout
        assert "run aiproject db upgrade" not in status.stdout
        for words in (("db", "upgrade"), ("user", "list")):
            refused = run(*words)
            assert refused.exit_code == 78
            assert "later release" in refused.stderr
        assert "later release" in finding(run("doctor"), "database")

    @pytest.mark.parametrize(
        ("url", "status"),
        [
            ("postgresql://nobody:hunter2@127.0.0.1:1/x", 75),
            ("mysql://nobody:hunter2@127.0.0.1:1/x", 75),
            ("oracle://nobody:hunter2@127.0.0.1/x", 78),
            ("hunter2", 78),
            ("sqlite://", 78),
        ],
    )
    @pytest.mark.parametrize("words", [("db", "status"), ("db", "upgrade"), ("user", "list")])
    def test_no_database(self, run: Run, url: str, status: int, words: tuple[str, ...]) -> None:
        result = run(*words, DATABASE_URL=url)
        assert result.exit_code == status
        assert result.stderr.startswith("aiproject: ")
        assert "hunter2" not in result.output


class TestUsers:
    def test_a_life(self, run: Run, data: Path) -> None:
        assert add(run).exit_code == 0
        listed = run("user", "list")
        assert listed.exit_code == 0
        for word in ("小明", "a@b.cn", "10000", "unmetered", "active"):
            assert word in listed.stdout
        account = shown(run("user", "show", " 小明 "))
        assert (account["name"], account["tokens"], account["picTimes"]) == ("小明", "10000", "10")
        assert (account["voice seconds"], account["dictated seconds"], account["state"]) == ("unmetered", "0", "active")

        granted = run(
            *("user", "grant", "小明", "--tokens", "-99999", "--pic-times", "5", "--voice-seconds", "90"),
        )
        assert granted.exit_code == 0
        account = shown(granted)
        assert (account["tokens"], account["picTimes"], account["voice seconds"]) == ("0", "15", "90")

        disabled = run("user", "disable", "小明")
        assert disabled.exit_code == 0
        assert shown(disabled)["state"].startswith("disabled since ")
        assert "disabled" in run("user", "list").stdout
        assert shown(run("user", "disable", "小明", "--undo"))["state"] == "active"

    def test_no_command_shows_uuid_or_password(self, run: Run, data: Path) -> None:
        told = add(run, "alice").output
        for words in (("list",), ("show", "alice"), ("grant", "alice", "--tokens", "1"), ("disable", "alice")):
            told += run("user", *words).output
        assert uuid_of(data, "alice") not in told
        assert PASSWORD not in told
        assert "argon2" not in told

    def test_the_sign_up_quota_is_the_settings(self, run: Run) -> None:
        variables = {"SIGNUP_TOKENS": "7", "SIGNUP_PIC_TIMES": "0", "SIGNUP_VOICE_SECONDS": "60"}
        run("user", "add", "alice", "--email", "", stdin=f"{PASSWORD}\n", **variables)
        account = shown(run("user", "show", "alice"))
        assert (account["tokens"], account["picTimes"], account["voice seconds"]) == ("7", "0", "60")

    def test_markup_in_a_name_is_no_markup(self, run: Run) -> None:
        assert add(run, "[red]x[/red]").exit_code == 0
        assert shown(run("user", "show", "[red]x[/red]"))["name"] == "[red]x[/red]"
        assert "[red]x[/red]" in run("user", "list").stdout
        assert add(run, "[/]").exit_code == 0
        assert "[/]" in run("user", "list").stdout

    @pytest.mark.parametrize("words", [("show",), ("disable",), ("disable", "--undo"), ("grant", "--tokens", "1")])
    def test_an_unknown_name_is_67(self, run: Run, words: tuple[str, ...]) -> None:
        result = run("user", words[0], "nobody", *words[1:])
        assert result.exit_code == 67
        assert result.stderr == "aiproject: there is no account of this name\n"
        assert run("user", words[0], "\udcff", *words[1:]).exit_code == 67

    def test_a_grant_of_nothing(self, run: Run) -> None:
        add(run, "alice")
        result = run("user", "grant", "alice")
        assert result.exit_code == 65
        assert "--tokens" in result.stderr
        assert run("user", "grant", "alice", "--tokens", str(10**16)).exit_code == 2

    def test_a_name_that_is_taken(self, run: Run) -> None:
        add(run, "alice")
        result = add(run, "ALICE")
        assert result.exit_code == 65
        assert "taken" in result.stderr

    @pytest.mark.parametrize("stdin", ["", "\n", "x" * 200 + "\n"])
    def test_a_password_that_cannot_be(self, run: Run, stdin: str) -> None:
        result = add(run, "alice", stdin=stdin)
        assert result.exit_code == 65
        assert run("user", "show", "alice").exit_code == 67


class TestKeys:
    def test_a_life(self, run: Run) -> None:
        add(run, "alice")
        words = ("--expires", "2100-01-01", "--tokens", "12345678", "--voice-seconds-per-day", "90")
        made = run("key", "add", "alice", "--name", "[red]ci", *words)
        assert made.exit_code == 0
        text = made.stdout.splitlines()[-1]  # behind the log, which in these tests is not on its way to standard error
        assert prefix_of(text) == text[:13]
        assert text not in made.stderr
        listed = run("key", "list", "alice").stdout
        assert text not in listed
        for word in (text[:13], "[red]ci", "until 2100-01-01 00:00", "0 of 12345678", "0, today 0 of 90", "never"):
            assert word in listed
        assert run("key", "revoke", text[:13]).stdout.endswith(f"revoked {text[:13]}\n")
        assert "revoked" in run("key", "list", "alice").stdout

    def test_what_cannot_be(self, run: Run) -> None:
        add(run, "alice")
        assert run("key", "add", "nobody", "--name", "a").exit_code == 67
        assert run("key", "list", "nobody").exit_code == 67
        revoked = run("key", "revoke", "sk-0000000000")
        assert (revoked.exit_code, revoked.stderr) == (65, "aiproject: there is no such thing\n")
        for wrong in (("--address", "somewhere"), ("--expires", "2020-01-01"), ("--model", "a b")):
            result = run("key", "add", "alice", "--name", "a", *wrong)
            assert (result.exit_code, result.stdout) == (65, "")
        for wrong in (("--tokens", "-1"), ("--capability", "gold"), ("--expires", "soon")):
            assert run("key", "add", "alice", "--name", "a", *wrong).exit_code == 2


def finding(result: Result, subject: str) -> str:
    """The one line of the doctor's report on a subject."""
    (line,) = [line for line in result.stdout.splitlines() if line[6:].startswith(f"{subject} ")]
    return line


@pytest.fixture(scope="module")
def sandbox() -> Iterator[tuple[SandboxThread, SandboxAddress]]:
    thread = SandboxThread(FAST)
    with thread as address:
        yield thread, address


class TestDoctor:
    def test_a_fresh_clone_is_fine(self, run: Run) -> None:
        result = run("doctor")
        assert result.exit_code == 0
        assert finding(result, "credentials").startswith("note")
        assert finding(result, "text model").startswith("ok")
        assert finding(result, "dictation").startswith("ok")
        assert finding(result, "picture text").startswith("ok")
        assert "will be made" in finding(result, "data")
        assert finding(result, "database").startswith("note")

    def test_a_set_up_that_serves(self, run: Run) -> None:
        run("db", "upgrade")
        result = run("doctor")
        assert result.exit_code == 0
        assert finding(result, "data").startswith("ok")
        assert finding(result, "database").startswith("ok")

    @pytest.mark.parametrize(
        ("variables", "subject", "words"),
        [
            ({"SPARK_DOMAIN": "4.0Ultra"}, "text model", "it takes generalv3.5"),
            ({"SPARK_URL": "wss://spark-api.xf-yun.com/v4.0/chat"}, "text model", "it takes 4.0Ultra"),
            ({"OCR_URL": "https://api.xf-yun.com/v1/private/unheard_of"}, "picture text", "sf8e6aca1"),
            ({"OCR_URL": "http://api.example/v1/private/sf8e6aca1"}, "ocr address", "not encrypted"),
            ({"DATABASE_URL": "mysql://root:hunter2@127.0.0.1:1/x"}, "database", "database"),
            ({"DATABASE_URL": "nonsense-hunter2"}, "database", "not a URL"),
            ({"REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}, "limits", "does not answer"),
            ({"TRUSTED_PROXIES": "10.0.0.1,0.0.0.0/0"}, "proxies", "the whole internet (0.0.0.0/0)"),
        ],
    )
    def test_what_to_mend_is_1(self, run: Run, variables: dict[str, str], subject: str, words: str) -> None:
        result = run("doctor", **variables)
        assert result.exit_code == 1
        line = finding(result, subject)
        assert line.startswith("fix")
        assert words in line
        assert "hunter2" not in result.output

    @pytest.mark.parametrize(
        ("variables", "subject"),
        [
            ({"LIMITS": "off"}, "limits"),
            ({"LIMITS": "off", "REDIS_URL": "redis://127.0.0.1:1"}, "limits"),
            ({"WORKERS": "2"}, "limits"),
            ({"SPARK_URL": "wss://spark.example/of/our/own"}, "text model"),
        ],
    )
    def test_a_note_is_0(self, run: Run, variables: dict[str, str], subject: str) -> None:
        result = run("doctor", **variables)
        assert result.exit_code == 0
        assert finding(result, subject).startswith("note")

    def test_redis_that_answers(self, run: Run, redis_server: Redis) -> None:
        result = run("doctor", REDIS_URL=redis_server.url(), WORKERS="2", TRUSTED_PROXIES="127.0.0.1")
        assert result.exit_code == 0
        assert "counted in Redis" in finding(result, "limits")
        assert finding(result, "proxies").startswith("ok")
        assert "p@ss" not in result.output

    def test_a_public_address_with_nothing_in_front_is_1(self, run: Run) -> None:
        result = run("doctor", HOST="0.0.0.0", LIMITS="off")  # noqa: S104
        assert result.exit_code == 1
        for subject in ("address", "voice", "limits"):
            assert finding(result, subject).startswith("fix")
        for subject in ("sandbox", "registration", "origins"):
            assert finding(result, subject).startswith("note")

    def test_a_public_address_behind_a_proxy_is_0(self, run: Run) -> None:
        result = run("doctor", HOST="0.0.0.0", TRUSTED_PROXIES="10.0.0.2", VOICE_ANONYMOUS="false")  # noqa: S104
        assert result.exit_code == 0
        assert finding(result, "address").startswith("ok")

    def test_a_configuration_file_that_others_may_read(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "aiproject.toml"
        path.write_text('port = 9000\nhost = "127.0.0.1"\n')
        path.chmod(0o644)
        assert finding(run("doctor", CONFIG=str(path)), "configuration").startswith("ok")
        path.write_text('smtp_url = "smtps://me:hunter2@mail.example"\n')
        result = run("doctor", CONFIG=str(path))
        assert result.exit_code == 1
        line = finding(result, "configuration")
        assert line.startswith("fix")
        assert "smtp_url" in line
        assert "hunter2" not in result.output
        path.chmod(0o600)
        assert finding(run("doctor", CONFIG=str(path)), "configuration").startswith("ok")

    def test_a_key_that_others_may_read(self, run: Run, tmp_path: Path) -> None:
        key = tmp_path / "admin.key"
        key.write_bytes(b"k" * 64)
        key.chmod(0o640)
        result = run("doctor", ADMIN_KEY_FILE=str(key))
        assert result.exit_code == 1
        assert finding(result, "admin key").startswith("fix")

    def test_data_that_others_may_read(self, run: Run, data: Path) -> None:
        run("db", "upgrade")
        (data / "aiproject.db").chmod(0o644)
        result = run("doctor")
        assert result.exit_code == 1
        line = finding(result, "data")
        assert line.startswith("fix")
        assert "aiproject.db" in line

    def test_an_old_schema(self, run: Run, data: Path) -> None:
        data.mkdir(mode=0o700)
        with sqlite3.connect(data / "aiproject.db") as connection:
            connection.execute('CREATE TABLE "user" (Id VARCHAR(50) PRIMARY KEY NOT NULL)')
        (data / "aiproject.db").chmod(0o600)
        result = run("doctor")
        assert result.exit_code == 1
        assert "aiproject db upgrade" in finding(result, "database")

    def test_wrong_settings_are_78(self, run: Run) -> None:
        assert run("doctor", PORT="x").exit_code == 78

    def test_the_platform_answers(self, run: Run, sandbox: tuple[SandboxThread, SandboxAddress]) -> None:
        result = run("doctor", **settings(sandbox))
        assert result.exit_code == 0
        assert finding(result, "upstream").startswith("ok")
        assert finding(result, "clock").startswith("ok")
        assert finding(result, "credentials").startswith("ok")

    def test_the_platform_is_left_in_peace(self, run: Run, sandbox: tuple[SandboxThread, SandboxAddress]) -> None:
        before = sandbox[0].calls()
        result = run("doctor", "--no-upstream", **settings(sandbox))
        assert result.exit_code == 0
        assert "upstream" not in result.stdout
        assert sandbox[0].calls() == before

    @pytest.mark.parametrize(
        ("order", "words"),
        [
            ({"fault": "refuse", "reason": "unverified"}, "cannot be verified"),
            ({"fault": "error", "code": 10013, "at": "first"}, "10013"),
            ({"fault": "stall", "at": "first"}, "first frame"),
        ],
    )
    def test_the_platform_does_not(
        self, run: Run, sandbox: tuple[SandboxThread, SandboxAddress], order: dict[str, object], words: str
    ) -> None:
        sandbox[0].faults.clear()
        sandbox[0].faults.add(parse_fault_requests({"service": "chat", **order}))
        result = run("doctor", **settings(sandbox), UPSTREAM_FIRST_FRAME_TIMEOUT="0.5")
        assert result.exit_code == 1
        line = finding(result, "upstream")
        assert line.startswith("fix")
        assert words in line
        for secret in (sandbox[1].api_key, sandbox[1].api_secret, "authorization"):
            assert secret not in result.output

    def test_a_clock_that_is_off(self, run: Run, sandbox: tuple[SandboxThread, SandboxAddress]) -> None:
        sandbox[0].faults.clear()
        sandbox[0].faults.add(parse_fault_requests({"service": "chat", "fault": "clock", "seconds": 600.0, "times": 0}))
        try:
            result = run("doctor", **settings(sandbox))
        finally:
            sandbox[0].faults.clear()
        assert result.exit_code == 1
        assert "NTP" in finding(result, "clock")
        assert finding(result, "upstream").startswith("ok")


def settings(sandbox: tuple[SandboxThread, SandboxAddress]) -> dict[str, str]:
    return {name.removeprefix("AIPROJECT_"): value for name, value in sandbox[1].environment().items()}
