"""Functions that the commands share: settings, an open database, and the mapping from errors to exit statuses."""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from aiproject.adapters import log as logging_setup
from aiproject.adapters.db.engine import Connection, Database
from aiproject.administration.model import AdministratorUnknown
from aiproject.assembly import open_database, prepare_schema
from aiproject.audit.model import Actor, ActorKind, AuditContext, Fact
from aiproject.audit.store import record
from aiproject.codes import Detail, Param
from aiproject.config.loading import load_settings
from aiproject.config.settings import Settings
from aiproject.errors import (
    AccountUnknown,
    AiProjectError,
    Misconfigured,
    NameTaken,
    NotFound,
    Refused,
    Unavailable,
    UpstreamFailed,
)
from aiproject.messages.commands import Line
from aiproject.messages.formatting import Language, format_error, format_message
from aiproject.protocols.languages import locale_language

__all__ = [
    "complain",
    "error_text",
    "errors",
    "language",
    "noting",
    "origin",
    "out",
    "print_table",
    "read_password",
    "read_settings",
    "run",
    "say",
    "tables",
]

TABLE_WIDTH = 240
"""Width of a table in characters if there is no terminal: enough for the longest values, since programs read it."""

out = Console()
complain = Console(stderr=True)

EXIT_STATUSES: tuple[tuple[type[AiProjectError], int], ...] = (
    (Misconfigured, 78),  # sysexits' EX_CONFIG
    (Unavailable, 75),  # EX_TEMPFAIL
    (AccountUnknown, 67),  # EX_NOUSER
    (AdministratorUnknown, 67),
    (Refused, 65),  # EX_DATAERR
)


ABSENCES: tuple[tuple[type[AiProjectError], Detail], ...] = (
    (AccountUnknown, Detail.NO_SUCH_ACCOUNT),
    (AdministratorUnknown, Detail.NO_SUCH_ADMINISTRATOR),
    (NotFound, Detail.NO_SUCH_THING),
    (NameTaken, Detail.NAME_IS_TAKEN),
)
"""The messages of errors without details; the name in question is on the command line."""


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal, or uncut if there is none."""
    if out.is_terminal:
        out.print(table)
    else:
        Console(width=TABLE_WIDTH).print(table)


@contextmanager
def errors() -> Iterator[None]:
    """Report an `AiProjectError` as one red line and an exit status, without a traceback."""
    try:
        yield
    except AiProjectError as error:
        text = error_text(error)
        complain.print(f"aiproject: {text}", style="red", markup=False, highlight=False, soft_wrap=True)
        status = next((status for kind, status in EXIT_STATUSES if isinstance(error, kind)), 70)
        raise typer.Exit(status) from None


def language() -> Language:
    """Return the language of the locale, in which this command writes."""
    return locale_language(os.environ)


def error_text(error: AiProjectError) -> str:
    """Return the text that a command prints for an error, including diagnostics that HTTP callers never see."""
    if isinstance(error, Unavailable | UpstreamFailed):
        if language() is Language.EN:
            return error.detail
        return f"{format_error(error, Language.ZH)}（{error.detail}）"
    if isinstance(error, Refused) and error.detail is None:
        for kind, detail in ABSENCES:
            if isinstance(error, kind):
                return format_message(detail, language())
    return format_error(error, language())


def say(line: Line, /, *, console: Console | None = None, style: str | None = None, **params: Param) -> None:
    """Print a line in the language of the locale; names in it are not interpreted as markup."""
    text = format_message(line, language(), **params)
    (console or out).print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def read_settings(*, is_server: bool = False, **overrides: Any) -> Settings:
    """Read the settings and configure logging.

    Args:
        is_server: whether to log as the settings say. Otherwise, unless the level is set, only warnings and errors are
            logged, since a command prints what it did.
        overrides: options of the command line, which take precedence; ``None``: not given.
    """
    settings = load_settings(**{name: value for name, value in overrides.items() if value is not None})
    level = settings.log_level if is_server or "log_level" in settings.model_fields_set else "warning"
    logging_setup.configure(level, settings.log_format, is_lazy=not is_server)
    return settings


@asynccontextmanager
async def tables(settings: Settings) -> AsyncIterator[Database]:
    """Open the database for a command that reads or writes accounts; its schema must be current."""
    async with open_database(settings) as database:
        await prepare_schema(database)
        yield database


def run(command: Callable[[], Awaitable[None]]) -> None:
    """Run a command's coroutine with errors printed as `errors` does."""
    with errors():
        asyncio.run(_awaited(command))


async def _awaited(command: Callable[[], Awaitable[None]]) -> None:
    await command()


def origin() -> AuditContext:
    """Return who runs this command, for the audit log.

    This is the operating system's user of the process, since an environment variable could be set to any name.
    """
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run with a user id that has no name
        name = f"uid {uid}"
    return AuditContext(Actor(ActorKind.COMMAND_LINE, name), "", secrets.token_hex(12))


def noting(action: str, target: str, after: Mapping[str, Fact]) -> Callable[[Connection], Awaitable[None]]:
    """Return a function that writes an entry of the audit log within the action's transaction."""
    by = origin()

    async def note(connection: Connection) -> None:
        await record(connection, by, action, target, after=after)

    return note


def read_password() -> str:
    """Prompt for a password twice without echo, or read one line if there is no terminal."""
    if sys.stdin.isatty():
        return str(
            typer.prompt(format_message(Line.PASSWORD_PROMPT, language()), hide_input=True, confirmation_prompt=True)
        )
    return sys.stdin.readline().rstrip("\r\n")
