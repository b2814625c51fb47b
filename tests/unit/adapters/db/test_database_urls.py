"""What operators write for a database, and what they are told when it cannot be read."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.adapters.db.errors import TransientConflict
from aiproject.adapters.db.retry import retry_transient
from aiproject.adapters.db.url import connect_arguments, parse_database_url
from aiproject.errors import Misconfigured
from aiproject.messages.formatting import Language, format_error


class TestForms:
    @pytest.mark.parametrize(
        ("text", "driver", "database"),
        [
            ("sqlite:///data/a.db", "sqlite+aiosqlite", "data/a.db"),
            ("sqlite:////var/lib/a b.db", "sqlite+aiosqlite", "/var/lib/a b.db"),
            ("SQLite+pysqlite:///a.db", "sqlite+aiosqlite", "a.db"),
            ("mysql://u:p@h:3307/db", "mysql+asyncmy", "db"),
            ("mysql+pymysql://u:p@h/db", "mysql+asyncmy", "db"),
            ("mariadb+mysqlconnector://u:p@h/db", "mysql+asyncmy", "db"),
            ("postgres://u:p@h/db", "postgresql+asyncpg", "db"),
            ("postgresql+psycopg2://u:p@h/db", "postgresql+asyncpg", "db"),
            (" mysql://u@h/db?charset=utf8 \n", "mysql+asyncmy", "db"),
        ],
    )
    def test_the_driver_is_ours(self, text: str, driver: str, database: str) -> None:
        url = parse_database_url(text)
        assert (url.drivername, url.database) == (driver, database)

    @given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1))
    def test_any_password_survives_percent_encoding(self, password: str) -> None:
        from urllib.parse import quote

        for scheme in ("mysql", "postgresql"):
            url = parse_database_url(f"{scheme}://user:{quote(password, safe='')}@host/db")
            assert (url.username, url.password, url.host) == ("user", password, "host")

    def test_mysql_s_password_goes_to_the_driver_in_utf_8(self) -> None:
        url, arguments = connect_arguments(parse_database_url("mysql://u:%E5%AF%86@h/db"))
        assert arguments["password"] == "密".encode()
        assert url.password == ""

    def test_sockets_and_tls(self) -> None:
        url, arguments = connect_arguments(parse_database_url("postgresql://u@/db?host=/run/pg&sslmode=verify-full"))
        assert (arguments["host"], arguments["ssl"], dict(url.query)) == ("/run/pg", "verify-full", {})
        url, arguments = connect_arguments(parse_database_url("mysql://u@/db?unix_socket=/run/m.sock&ssl=true"))
        assert (dict(url.query), arguments["ssl"]) == ({"unix_socket": "/run/m.sock"}, True)


class TestComplaints:
    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("", "not a URL"),
            ("s3cret", "not a URL"),
            ("oracle://u:s3cret@h/db", "'oracle' is no database"),
            ("mysql://u:s3cret@h", "name of the database is missing"),
            ("postgresql://u:s3cret@h/", "name of the database is missing"),
            ("mysql://u:s3cret@h:port/db", "cannot be read"),
            ("mysql://u:s3cret@h/db?password=s3cret", "unknown option password"),
            ("postgresql://u:s3cret@h/db?sslmode=s3cret", "sslmode is one of"),
            ("postgresql://u:s3cret@h/db?sslmode=require&sslmode=disable", "twice"),
            ("sqlite://", "needs a file"),
            ("sqlite:///:memory:", "needs a file"),
            ("sqlite://data/a.db", "sqlite:///relative"),
        ],
    )
    def test_say_what_is_wrong_and_never_the_password(self, text: str, complaint: str) -> None:
        with pytest.raises(Misconfigured) as caught:
            parse_database_url(text)
        assert complaint in format_error(caught.value, Language.EN)
        assert "s3cret" not in str(caught.value)
        assert caught.value.__cause__ is None

    @given(st.text())
    def test_nothing_crashes_the_parser(self, text: str) -> None:
        for scheme in ("", "mysql://", "postgresql://", "sqlite:///"):
            try:
                parse_database_url(scheme + text)
            except Misconfigured:
                continue


class TestRetry:
    async def test_goes_on_until_the_others_are_gone(self) -> None:
        pauses: list[float] = []
        failures = iter(range(3))

        async def attempt() -> str:
            if next(failures, None) is not None:
                raise TransientConflict("busy")
            return "done"

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)

        assert await retry_transient(attempt, sleep=sleep) == "done"
        assert len(pauses) == 3
        assert all(0 <= pause <= 0.01 * 2**number for number, pause in enumerate(pauses))

    async def test_is_bounded(self) -> None:
        tries = 0

        async def attempt() -> None:
            nonlocal tries
            tries += 1
            raise TransientConflict("busy")

        with pytest.raises(TransientConflict):
            await retry_transient(attempt, attempts=4, sleep=lambda _seconds: asyncio.sleep(0))
        assert tries == 4

    async def test_does_not_repeat_what_is_no_conflict(self) -> None:
        tries = 0

        async def attempt() -> None:
            nonlocal tries
            tries += 1
            raise KeyError

        with pytest.raises(KeyError):
            await retry_transient(attempt)
        assert tries == 1
