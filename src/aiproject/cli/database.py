"""``aiproject db``: the schema."""

from __future__ import annotations

import typer

from aiproject.adapters.db import migrations
from aiproject.assembly import open_database
from aiproject.cli.common import language, out, read_settings, run, say
from aiproject.messages.commands import Line

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


@app.command()
def upgrade() -> None:
    """Upgrade the database to the current schema; imports the accounts of an original AiProject database."""

    async def command() -> None:
        async with open_database(read_settings()) as database:
            report = await migrations.upgrade(database)
            if report.from_revision == report.to_revision:
                say(Line.SCHEMA_ALREADY_AT, revision=str(report.to_revision))
            elif report.from_revision is None:
                say(Line.SCHEMA_MOVED_FROM_NOTHING, after=str(report.to_revision))
            else:
                say(Line.SCHEMA_MOVED, before=report.from_revision, after=str(report.to_revision))
            for note in report.notes:
                out.print(f"  {note.text(language())}", markup=False, highlight=False, soft_wrap=True)

    run(command)


@app.command()
def status() -> None:
    """Show the state of the database; exit status 0 only if its schema is current."""
    is_current = False

    async def command() -> None:
        nonlocal is_current
        async with open_database(read_settings()) as database:
            state = await migrations.status(database)
        is_current = state.is_current
        out.print(f"database  {database.dialect}", highlight=False)
        out.print(f"current   {state.current or 'none'}", highlight=False)
        out.print(f"newest    {state.head}", highlight=False)
        if state.is_current:
            say(Line.SCHEMA_UP_TO_DATE, style="green")
        elif state.is_empty:
            say(Line.SCHEMA_IS_EMPTY, style="yellow")
        elif state.is_foreign:
            say(Line.SCHEMA_IS_FOREIGN, style="yellow")
        elif state.is_newer:
            say(Line.SCHEMA_IS_NEWER, style="red")
        else:
            say(Line.SCHEMA_IS_BEHIND, style="yellow")

    run(command)
    if not is_current:
        raise typer.Exit(1)
