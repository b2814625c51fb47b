"""Fixtures for every room of tests.

``database_url`` and ``database`` run a test once on each database: SQLite, MariaDB, MySQL, PostgreSQL. The servers are
the tests' own (see `services`), started when the first test wants them. Where a server cannot be had its tests are
skipped, and the end of the run says so; with ``AIPROJECT_REQUIRE_SERVICES=1`` they fail instead.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from aiproject.adapters.db.engine import Database
from migrated import Migrated
from services import (
    MariaDB,
    MySQL,
    PostgreSQL,
    Redis,
    Server,
    ServerMissing,
    find_service_program,
    remove_fresh_data,
)

REQUIRE_SERVICES = os.environ.get("AIPROJECT_REQUIRE_SERVICES", "") not in ("", "0")
UNIT_TESTS = Path(__file__).parent / "unit"

_missing_services: dict[str, str] = {}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person at the keyboard reaches a test."""
    for name in [name for name in os.environ if name.startswith("AIPROJECT_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_sockets_in_unit_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests under ``tests/unit`` reach nobody. (Socket pairs stay: an event loop needs one to wake itself.)"""
    if not request.path.is_relative_to(UNIT_TESTS):
        return

    def refuse(*_arguments: Any, **_options: Any) -> NoReturn:
        pytest.fail("a unit test uses the network; it belongs under tests/contract or tests/system")

    for name in ("connect", "connect_ex", "bind", "listen", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "create_server", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def _do_without(name: str, reason: ServerMissing) -> NoReturn:
    """Skip the test, or fail it where every service is demanded; the end of the run says so."""
    _missing_services[name] = str(reason)
    if REQUIRE_SERVICES:
        pytest.fail(f"AIPROJECT_REQUIRE_SERVICES: {reason}")
    pytest.skip(f"MISSING SERVER: {reason}")


def _serve(kind: type[Server]) -> Iterator[Server]:
    try:
        server = kind()
    except ServerMissing as reason:
        _do_without(kind.name, reason)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Server]:
    """A running MariaDB, for the whole session."""
    yield from _serve(MariaDB)


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[Server]:
    """A running MySQL, for the whole session."""
    yield from _serve(MySQL)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Server]:
    """A running PostgreSQL, for the whole session."""
    yield from _serve(PostgreSQL)


@pytest.fixture(scope="session")
def _redis_server() -> Iterator[Server]:
    yield from _serve(Redis)


@pytest.fixture(scope="session")
def typescript_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``node_modules`` with what ``tests/typescript/package-lock.json`` names."""
    folder = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(Path(__file__).parent / "typescript" / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=True)
    except FileNotFoundError:
        _do_without("npm", ServerMissing("npm and Node.js are not on this machine"))
    except subprocess.TimeoutExpired:
        _do_without("npm", ServerMissing("the packages of tests/typescript cannot be had: npm took too long"))
    except subprocess.CalledProcessError as failure:
        last = (failure.stderr or "npm failed").strip().splitlines()[-1]
        _do_without("npm", ServerMissing(f"the packages of tests/typescript cannot be had: {last}"))
    return folder / "node_modules"


@pytest.fixture
def redis_server(_redis_server: Server) -> Redis:
    """A running and empty Redis or Valkey, the same for the whole session."""
    assert isinstance(_redis_server, Redis)
    _redis_server.clear()
    return _redis_server


@pytest.fixture
def service_program() -> Callable[[str], str]:
    """Find a program that is neither a database nor a cache: ``nginx``, ``haproxy`` or ``curl``."""

    def find(name: str) -> str:
        try:
            return find_service_program(name, name)
        except ServerMissing as reason:
            _do_without(name, reason)

    return find


@pytest.fixture
def machine_program() -> Callable[[str], str]:
    """Find a program that the machine brings itself, as ``node``."""

    def find(name: str) -> str:
        found = shutil.which(name)
        if found is None:
            _do_without(name, ServerMissing(f"{name} is not on this machine"))
        return found

    return find


@pytest.fixture(params=["sqlite", "mariadb", "mysql", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which of the four databases the test runs on."""
    kind = request.param
    assert isinstance(kind, str)
    return kind


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Migrated:
    """Databases with the current schema and no rows, to be copied: migrations take several times as long."""
    return Migrated(tmp_path_factory.mktemp("migrated") / "data" / "migrated.db")


@pytest.fixture
def database_url(
    database_kind: str, request: pytest.FixtureRequest, migrated: Migrated, tmp_path: Path
) -> Iterator[str]:
    """The URL of an empty database, once for each kind. Where the test also wants `database`, the URL of that."""
    is_migrated = "database" in request.fixturenames
    if database_kind == "sqlite":
        path = tmp_path / "data" / "test.db"
        yield migrated.file(path) if is_migrated else f"sqlite:///{path}"
        return
    server: Server = request.getfixturevalue(f"{database_kind}_server")
    name = server.copy_database(migrated.on(server)) if is_migrated else server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database with the current schema and no rows, once for each kind."""
    opened = await Database.open(database_url)
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
async def small_database(migrated: Migrated, tmp_path: Path) -> AsyncIterator[Database]:
    """The same on SQLite only, for what does not depend on the database."""
    opened = await Database.open(migrated.file(tmp_path / "data" / "test.db"))
    try:
        yield opened
    finally:
        await opened.close()


def pytest_sessionfinish() -> None:
    remove_fresh_data()  # not left to the end of the process: pytest-xdist does not wait long for that


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for name, reason in sorted(_missing_services.items()):
        terminalreporter.write_line(f"MISSING SERVER {name}: its tests did not run ({reason})", red=True, bold=True)
