"""``aiproject audit``: who did what."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from aiproject.audit.model import AuditFilter
from aiproject.audit.service import AuditLog
from aiproject.cli.common import out, print_table, read_settings, run, tables

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


class Format(StrEnum):
    """The output format of entries."""

    CSV = "csv"
    JSONL = "jsonl"


Actor = Annotated[str | None, typer.Option(help="Only acts of this administrator or operating system user.")]
Action = Annotated[
    str | None, typer.Option(help="Only this action; with a dot at the end, all that begin with it: user.")
]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of entries.")] = 50,
    actor: Actor = None,
    action: Action = None,
) -> None:
    """List entries, newest first."""

    async def command() -> None:
        table = Table(
            Column("seq", justify="right"), "time (UTC)", "who", "action", "target", "before", "after", "from",
            box=None,
        )  # fmt: skip
        async with tables(read_settings()) as database:
            for entry in await AuditLog(database).newest(AuditFilter(actor=actor, action=action), limit=limit):
                moment = datetime.fromtimestamp(entry.at / 1000, UTC)
                table.add_row(
                    str(entry.seq),
                    f"{moment:%Y-%m-%d %H:%M:%S}",
                    Text(f"{entry.actor} ({entry.actor_kind})"),
                    entry.action,
                    Text(entry.target),
                    Text(entry.before),
                    Text(entry.after),
                    Text(entry.address),
                )
        print_table(table)

    run(command)


@app.command()
def export(
    format_: Annotated[Format, typer.Option("--format", help="csv or jsonl.")] = Format.CSV,
    actor: Actor = None,
    action: Action = None,
) -> None:
    """Write entries to standard output, oldest first; the page about administration explains the columns."""

    async def command() -> None:
        async with tables(read_settings()) as database:
            wanted = AuditFilter(actor=actor, action=action)
            async for line in AuditLog(database).export("csv" if format_ is Format.CSV else "jsonl", wanted):
                sys.stdout.write(line)

    run(command)


@app.command()
def verify() -> None:
    """Recompute the chain of hashes; exit status 0 only if every entry is as it was written."""
    count = 0

    async def command() -> None:
        nonlocal count
        async with tables(read_settings()) as database:
            log = AuditLog(database)
            async for difference in log.verify():
                count += 1
                out.print(difference, style="red", markup=False, highlight=False, soft_wrap=True)
            newest = await log.newest(limit=1)
        out.print(f"entries    {newest[0].seq if newest else 0}", highlight=False)
        out.print(f"newest     {newest[0].hash if newest else 'none'}", highlight=False, soft_wrap=True)
        out.print(f"difference {count}", style="red" if count else "green", highlight=False)

    run(command)
    if count:
        raise typer.Exit(1)
