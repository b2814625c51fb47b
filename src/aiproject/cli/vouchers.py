"""``aiproject voucher``: codes that add tokens and picture times."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

import typer
from rich.table import Column, Table

from aiproject.cli.common import origin, print_table, read_settings, run, say, tables
from aiproject.codes import Detail
from aiproject.errors import InvalidInput, VoucherUnusable
from aiproject.messages.commands import Line
from aiproject.vouchers.model import MAX_UNITS, Voucher
from aiproject.vouchers.service import Vouchers

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The voucher's name, or its code.")]


@asynccontextmanager
async def _vouchers() -> AsyncIterator[Vouchers]:
    async with tables(read_settings()) as database:
        yield Vouchers(database)


@app.command()
def add(
    tokens: Annotated[int, typer.Option(min=0, max=MAX_UNITS, help="Tokens that it adds.")] = 0,
    pic_times: Annotated[int, typer.Option(min=0, max=MAX_UNITS, help="Picture recognitions that it adds.")] = 0,
    name: Annotated[
        str | None,
        typer.Option(help="Its name in lists; its number if not given. With several, each name gets a number."),
    ] = None,
    code: Annotated[str | None, typer.Option(help="A code of your choice; generated at random if not given.")] = None,
    audience: Annotated[str | None, typer.Option(help="The academy whose accounts may redeem it.")] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            help="When it expires: 2026-12-31 (the end of that day) or 2026-12-31T18:00, local time or +08:00."
        ),
    ] = None,
    max_uses: Annotated[int | None, typer.Option(min=1, help="Number of accounts that may redeem it.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of vouchers, each with its own code.")] = 1,
) -> None:
    """Create vouchers and print their codes, one per line."""

    async def command() -> None:
        expires_at = None if expires is None else _end(expires)
        async with _vouchers() as vouchers:
            made = await vouchers.add(
                name=name,
                code=code,
                count=count,
                tokens=tokens,
                pic_times=pic_times,
                audience=audience,
                expires_at=expires_at,
                max_uses=max_uses,
                origin=origin(),
            )
        sys.stdout.writelines(f"{voucher.code}\n" for voucher in made)

    run(command)


@app.command("list")
def list_() -> None:
    """List all vouchers with their uses."""

    async def command() -> None:
        now = datetime.now(UTC)
        table = Table(
            # Names and codes are copied from this table, so they are never truncated.
            Column("name", no_wrap=True), Column("code", no_wrap=True),
            "tokens", "picTimes", "audience", "uses", "expires", "state",
            box=None,
        )  # fmt: skip
        async with _vouchers() as vouchers:
            async for voucher in vouchers.all():
                table.add_row(*_cells(voucher, now))
        print_table(table)

    run(command)


@app.command()
def enable(name: Name) -> None:
    """Allow a voucher to be redeemed again."""
    _switch(name, True)


@app.command()
def disable(name: Name) -> None:
    """Stop a voucher from being redeemed; what was redeemed remains."""
    _switch(name, False)


def _switch(name: str, is_available: bool) -> None:
    async def command() -> None:
        async with _vouchers() as vouchers:
            try:
                voucher = await vouchers.set_available(name, is_available, origin=origin())
            except VoucherUnusable:
                raise InvalidInput(Detail.NO_SUCH_VOUCHER) from None
        say(Line.VOUCHER_STATE, name=voucher.title, state=str(voucher.state(datetime.now(UTC))))

    run(command)


def _end(text: str) -> datetime:
    """Parse a timestamp; a date without a time means the end of that day."""
    try:
        try:
            moment = datetime.combine(date.fromisoformat(text) + timedelta(days=1), time())
        except ValueError:
            moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(Detail.EXPIRES_MALFORMED) from None


def _cells(voucher: Voucher, now: datetime) -> list[str]:
    limit = "" if voucher.max_uses is None else f" of {voucher.max_uses}"
    return [
        voucher.name or "",
        voucher.code,
        str(voucher.tokens),
        str(voucher.pic_times),
        voucher.audience or "",
        f"{voucher.uses}{limit}",
        f"{voucher.expires_at.astimezone():%Y-%m-%d %H:%M}" if voucher.expires_at else "",
        voucher.state(now),
    ]
