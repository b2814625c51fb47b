"""``aiproject user``: accounts.

What changes accounts is imported by the commands that do, so that listing them takes half as long.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from aiproject.accounts.core.directory import AccountDirectory
from aiproject.accounts.core.model import Account
from aiproject.audit.model import CHANGED
from aiproject.cli.common import noting, origin, out, print_table, read_password, read_settings, run, say, tables
from aiproject.codes import Detail
from aiproject.errors import InvalidInput
from aiproject.messages.commands import Line

if TYPE_CHECKING:
    from aiproject.accounts.core.service import Accounts
    from aiproject.ledger.service import Quotas

__all__ = ["MOST", "Name", "app"]

app = typer.Typer(no_args_is_help=True)

MOST = 10**15
"""Upper bound of a grant: far above realistic amounts, far below a 64-bit balance's maximum."""

Name = Annotated[str, typer.Argument(help="The account's user name.")]


@asynccontextmanager
async def _services() -> AsyncIterator[tuple[Accounts, Quotas]]:
    from aiproject.cli.services import open_services

    settings = read_settings()
    async with tables(settings) as database, open_services(settings, database) as opened:
        yield opened


@asynccontextmanager
async def _directory() -> AsyncIterator[AccountDirectory]:
    async with tables(read_settings()) as database:
        yield AccountDirectory(database)


@app.command()
def add(
    name: Name,
    email: Annotated[str, typer.Option(help="The owner's e-mail address.")],
    academy: Annotated[str | None, typer.Option(help="The owner's academy.")] = None,
) -> None:
    """Open an account; prompts for the password, or reads it from standard input."""
    password = read_password()

    async def command() -> None:
        async with _services() as (accounts, _):
            account = await accounts.register(name, password, email, academy, origin=origin())
            say(Line.ADDED, name=account.username)

    run(command)


@app.command("list")
def list_() -> None:
    """List all accounts with their balances."""

    async def command() -> None:
        async with _directory() as accounts:
            table = Table("number", "name", "e-mail", "tokens", "picTimes", "voice s", "state", box=None)
            async for account in accounts.all():
                table.add_row(
                    str(account.account_id),
                    Text(account.username),  # a plain string would be read as markup
                    Text(account.email),
                    str(account.tokens),
                    str(account.pic_times),
                    _voice(account),
                    "disabled" if account.is_disabled else "active",
                )
            print_table(table)

    run(command)


@app.command()
def show(name: Name) -> None:
    """Show one account; never its uuid, which is a credential."""

    async def command() -> None:
        async with _directory() as accounts:
            _print(await accounts.named(name))

    run(command)


@app.command()
def disable(
    name: Name,
    undo: Annotated[bool, typer.Option("--undo", help="Enable the account again.")] = False,
) -> None:
    """Disable an account: its login and its calls are refused from now on."""

    async def command() -> None:
        async with _services() as (accounts, _):
            _print(await accounts.set_disabled(name, not undo, origin=origin()))

    run(command)


@app.command()
def password(name: Name) -> None:
    """Set another password of an account, prompted for or read from standard input; unlocks the account."""
    new = read_password()

    async def command() -> None:
        async with _services() as (accounts, _):
            account = await accounts.named(name)
            await accounts.set_password(
                account, new, within=noting("user.password", account.username, {"password": CHANGED})
            )
            say(Line.PASSWORD_CHANGED_OF, name=account.username)

    run(command)


@app.command()
def rotate(name: Name) -> None:
    """Replace an account's uuid: every app that stores the old one has to log in again."""

    async def command() -> None:
        async with _services() as (accounts, _):
            account = await accounts.named(name)
            # The new uuid is not printed: its owner receives it at the next login.
            await accounts.rotate_uuid(account, origin=origin())
            say(Line.UUID_CHANGED_OF, name=account.username)

    run(command)


@app.command()
def unlock(name: Name) -> None:
    """Reset the failed logins of a name, whether it is delayed or locked."""

    async def command() -> None:
        from aiproject.audit.service import AuditLog
        from aiproject.cli.services import open_services

        settings = read_settings()
        async with tables(settings) as database, open_services(settings, database) as (accounts, _):
            was_counted = await accounts.unlock(name)
            await AuditLog(database).record(origin(), "user.unlock", name)
            say(Line.UNLOCKED if was_counted else Line.NOT_LOCKED, name=name)

    run(command)


@app.command(context_settings={"ignore_unknown_options": False})
def grant(
    name: Name,
    tokens: Annotated[int, typer.Option(min=-MOST, max=MOST, help="Tokens to add; negative subtracts.")] = 0,
    pic_times: Annotated[int, typer.Option(min=-MOST, max=MOST, help="Picture recognitions to add.")] = 0,
    voice_seconds: Annotated[
        int, typer.Option(min=-MOST // 1000, max=MOST // 1000, help="Seconds to add; makes dictation metered.")
    ] = 0,
) -> None:
    """Add quota; negative numbers subtract, never below zero."""

    async def command() -> None:
        if not (tokens or pic_times or voice_seconds):
            raise InvalidInput(Detail.NOTHING_TO_GRANT)
        async with _services() as (accounts, quotas):
            account = await accounts.named(name)
            await quotas.grant(
                account, tokens=tokens, pic_times=pic_times, voice_seconds=voice_seconds, origin=origin()
            )
            _print(await accounts.named(name))

    run(command)


def _voice(account: Account) -> str:
    return "unmetered" if account.voice_ms is None else f"{account.voice_ms / 1000:g}"


def _print(account: Account) -> None:
    rows = {
        "number": str(account.account_id),
        "name": account.username,
        "e-mail": account.email,
        "academy": account.academy or "",
        "tokens": str(account.tokens),
        "picTimes": str(account.pic_times),
        "voice seconds": _voice(account),
        "dictated seconds": f"{account.voice_used_ms / 1000:g}",
        "opened": account.created_at.isoformat(sep=" ", timespec="seconds") if account.created_at else "unknown",
        "state": f"disabled since {account.disabled_at:%Y-%m-%d %H:%M} UTC" if account.disabled_at else "active",
    }
    for label, value in rows.items():
        out.print(f"{label:<17} {value}", markup=False, highlight=False, soft_wrap=True)
