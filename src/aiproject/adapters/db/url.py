"""The database's URL: as operators write it, and as the drivers take it."""

from __future__ import annotations

import sqlite3
from typing import Any, cast

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from aiproject.codes import Detail
from aiproject.errors import Misconfigured

__all__ = ["CONNECT_SECONDS", "connect_arguments", "parse_database_url"]

CONNECT_SECONDS = 5


_DRIVERS: dict[str, str] = {
    "sqlite": "sqlite+aiosqlite",
    # MariaDB goes by MySQL's dialect, which finds out what it talks to; SQLAlchemy's own "mariadb" refuses MySQL, and
    # people write either.
    "mysql": "mysql+asyncmy",
    "mariadb": "mysql+asyncmy",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}

_OPTIONS: dict[str, frozenset[str]] = {
    "sqlite": frozenset(),
    "mysql": frozenset({"charset", "unix_socket", "ssl", "ssl_ca", "ssl_cert", "ssl_key", "ssl_check_hostname"}),
    "postgresql": frozenset({"host", "port", "sslmode"}),
}

_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})


def parse_database_url(text: str) -> URL:
    """Read a database URL as operators write it, and choose the driver.

    ``sqlite:///data/a.db`` (relative), ``sqlite:////var/a.db``, ``mysql://``, ``mariadb://``, ``postgresql://``,
    ``postgres://``; a driver in the scheme (``mysql+pymysql://``) is dropped for ours. Name and password may be
    percent-encoded. By Unix socket: ``mysql://name:password@/db?unix_socket=/run/mysqld/mysqld.sock``,
    ``postgresql://name:password@/db?host=/run/postgresql``. TLS: ``?ssl=true`` or ``?ssl_ca=/path`` on MySQL,
    ``?sslmode=verify-full`` on PostgreSQL.

    Raises:
        Misconfigured: it is none of these; the message never quotes the password.
    """
    scheme, separator, _ = text.strip().partition("://")
    kind = scheme.lower().partition("+")[0]
    if not separator:
        raise Misconfigured(Detail.DATABASE_URL_NOT_URL)
    if kind not in _DRIVERS:
        raise Misconfigured(Detail.DATABASE_KIND_UNKNOWN, scheme=repr(scheme[:30]))
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        # Not chained: the parser's message quotes the text that it could not read, and with it the password.
        raise Misconfigured(Detail.DATABASE_URL_MALFORMED) from None
    url = url.set(drivername=_DRIVERS[kind])
    dialect = url.get_backend_name()
    if unknown := sorted(set(url.query) - _OPTIONS[dialect]):
        raise Misconfigured(Detail.DATABASE_OPTION_UNKNOWN, options=", ".join(unknown)[:100])
    if any(not isinstance(value, str) for value in url.query.values()):
        raise Misconfigured(Detail.DATABASE_OPTION_REPEATED)
    if dialect == "sqlite":
        if url.host or url.username:
            raise Misconfigured(Detail.SQLITE_URL_MALFORMED)
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise Misconfigured(Detail.SQLITE_NEEDS_FILE)
    elif not url.database:
        raise Misconfigured(Detail.DATABASE_NAME_MISSING)
    mode = url.query.get("sslmode")
    if mode is not None and mode not in _SSL_MODES:
        raise Misconfigured(Detail.SSLMODE_UNKNOWN, modes=sorted(_SSL_MODES))
    return url


def connect_arguments(url: URL) -> tuple[URL, dict[str, Any]]:
    """What the driver is given beside the URL; and the URL without what is given so."""
    query = cast("dict[str, str]", dict(url.query))
    arguments: dict[str, Any] = {}
    match url.get_backend_name():
        case "sqlite":
            # The hooks below begin transactions; sqlite3 itself must not. From Python 3.12 on that needs a word,
            # since a later release turns the default round.
            arguments = {"isolation_level": None, "timeout": 0}
            if hasattr(sqlite3, "LEGACY_TRANSACTION_CONTROL"):
                arguments["autocommit"] = sqlite3.LEGACY_TRANSACTION_CONTROL
        case "mysql":
            query.pop("charset", None)
            arguments = {
                "charset": "utf8mb4",
                "connect_timeout": CONNECT_SECONDS,
                "init_command": "SET SESSION time_zone = '+00:00', SESSION sql_mode = 'STRICT_ALL_TABLES,"
                "NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
            }
            if url.password is not None:
                # The driver takes a text for Latin-1; the servers take passwords as they are typed, in UTF-8.
                arguments["password"] = str(url.password).encode()
                url = url.set(password="")
            if query.pop("ssl", "false").lower() in ("1", "true", "yes", "on", "required"):
                arguments["ssl"] = True
        case "postgresql":
            arguments = {"timeout": CONNECT_SECONDS, "server_settings": {"timezone": "UTC"}}
            if mode := query.pop("sslmode", None):
                arguments["ssl"] = mode
            if host := query.pop("host", None):
                arguments["host"] = host
            if port := query.pop("port", None):
                arguments["port"] = int(port)
    return url.set(query=query), arguments
