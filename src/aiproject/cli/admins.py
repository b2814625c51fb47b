"""``aiproject admin``: administrators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from aiproject.adapters.db.engine import Database
from aiproject.adapters.passwords import PasswordHasher, PasswordService
from aiproject.administration.legacy_import import import_legacy
from aiproject.administration.model import Role
from aiproject.administration.service import Administrators, Change
from aiproject.assembly import password_profile
from aiproject.cli.common import language, origin, out, print_table, read_password, read_settings, run, say, tables
from aiproject.config.settings import Settings
from aiproject.messages.commands import Line

__all__ = ["administrators", "app"]

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The administrator's name.")]


@asynccontextmanager
async def administrators(settings: Settings, database: Database) -> AsyncIterator[Administrators]:
    """Open what commands about administrators need."""
    passwords = PasswordService(PasswordHasher(password_profile(settings)))
    try:
        yield Administrators(database, passwords, password_min_length=settings.password_min_length)
    finally:
        await passwords.close()


@asynccontextmanager
async def _administrators() -> AsyncIterator[Administrators]:
    settings = read_settings()
    async with tables(settings) as database, administrators(settings, database) as opened:
        yield opened


@app.command()
def add(
    name: Name,
    role: Annotated[
        Role | None,
        typer.Option(help="owner, admin or auditor; if not given, owner for the first one and admin for others."),
    ] = None,
) -> None:
    """Create an administrator; prompts for the password, or reads it from standard input."""
    password = read_password()

    async def command() -> None:
        async with _administrators() as found:
            new = await found.add(name, password, role, origin())
            say(Line.ADDED_AS, name=new.name, role=str(new.role))

    run(command)


@app.command("list")
def list_() -> None:
    """List all administrators with their roles."""

    async def command() -> None:
        async with _administrators() as found:
            table = Table("number", "name", "role", "since", "password of", box=None)
            for each in await found.all():
                changed = each.password_changed_at or each.created_at
                table.add_row(
                    str(each.admin_id),
                    Text(each.name),  # a plain string would be read as markup
                    str(each.role),
                    f"{each.created_at:%Y-%m-%d}",
                    f"{changed:%Y-%m-%d}",
                )
            print_table(table)

    run(command)


@app.command()
def remove(name: Name) -> None:
    """Remove an administrator, but never the last owner; all their tokens are invalid at once."""

    async def command() -> None:
        async with _administrators() as found:
            gone = await found.remove(name, origin(), owners_too=True)
            say(Line.REMOVED, name=gone.name)

    run(command)


@app.command()
def password(name: Name) -> None:
    """Set another password of an administrator, prompted for or read from standard input; ends all sessions."""
    new = read_password()

    async def command() -> None:
        async with _administrators() as found:
            changed = await found.modify(name, Change(password=new), None, origin())
            say(Line.PASSWORD_CHANGED_OF, name=changed.name)

    run(command)


@app.command("adopt")
def adopt_() -> None:
    """Import administrators, vouchers and redemptions from the original project's tables in this database.

    May be repeated.
    """

    async def command() -> None:
        async with tables(read_settings()) as database:
            done = await import_legacy(database, origin())
        for message in done.left:
            say(Line.LEFT, line=message.text(language()))
        out.print(f"administrators {done.administrators}", highlight=False)
        out.print(f"vouchers       {done.vouchers}", highlight=False)
        out.print(f"redemptions    {done.redemptions}", highlight=False)

    run(command)


@app.command()
def role(name: Name, role: Annotated[Role, typer.Argument(help="owner, admin or auditor.")]) -> None:
    """Change an administrator's role; ends all their sessions."""

    async def command() -> None:
        async with _administrators() as found:
            changed = await found.modify(name, Change(role=role), None, origin())
            say(Line.ROLE_OF, name=changed.name, role=str(changed.role))

    run(command)
