"""``aiproject ledger``: verify and export the ledger, sum up losses, refund calls."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from aiproject.assembly import open_database
from aiproject.cli.common import origin, out, print_table, read_settings, run, say
from aiproject.cli.services import open_services
from aiproject.codes import Detail
from aiproject.config.settings import Settings
from aiproject.errors import InvalidInput, Misconfigured
from aiproject.ledger.checkpoint import CheckpointReader
from aiproject.ledger.checkpoint_keys import PUBLIC_FILE, private_key, public_key, public_text
from aiproject.ledger.checkpoints import Checkpoints, anchor_differences
from aiproject.ledger.loss_store import LossFilter, LossSum, sums_of_losses
from aiproject.ledger.model import Entry, LossReason, Outcome
from aiproject.ledger.receipts import Receipts
from aiproject.ledger.verify import Checked, Difference, verify
from aiproject.messages.commands import Line

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


class Format(StrEnum):
    """The output format of entries."""

    CSV = "csv"
    JSONL = "jsonl"


@app.command("verify")
def verify_command(
    overdue: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds since an open hold's lease expired, up to which it is no difference; if not given, a minute "
            "or twice AIPROJECT_HOLD_LEASE, by when the sweeper of a running server has settled it.",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A checkpoint file: each chain must still contain the head that it had then.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help=f"The public key of the checkpoint's signature; by default {PUBLIC_FILE} of the data directory."
        ),
    ] = None,
) -> None:
    """Recompute the whole ledger; exit status 0 only if nothing differs. Read-only; servers may run meanwhile."""
    count = 0

    async def command() -> None:
        nonlocal count
        settings = read_settings()
        checked = Checked()
        async with _books(settings) as database:
            with _opened(checkpoint, key or settings.data_dir / PUBLIC_FILE) as anchors:
                seconds = max(60.0, 2 * settings.hold_lease) if overdue is None else overdue
                differences = verify(database, overdue_seconds=seconds, checked=checked)
                missing = None if anchors is None else anchor_differences(database, anchors)
                async for difference in _all(differences, missing):
                    count += 1
                    out.print(str(difference), style="red", markup=False, highlight=False, soft_wrap=True)
                if anchors is not None:
                    written = datetime.fromtimestamp(anchors.written_at / 1000, UTC)
                    moment = f"{written:%Y-%m-%d %H:%M:%S}"
                    say(Line.CHECKPOINT_OF, moment=moment, accounts=anchors.accounts)
        for field in fields(checked):
            out.print(f"{field.name:<10} {getattr(checked, field.name)}", highlight=False)
        out.print(f"difference {count}", style="red" if count else "green", highlight=False)

    run(command)
    if count:
        raise typer.Exit(1)


@contextmanager
def _opened(path: Path | None, key: Path) -> Iterator[CheckpointReader | None]:
    """Open a checkpoint and check its signature with the key; yields ``None`` if no path is given."""
    if path is None:
        yield None
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInput(Detail.FILE_UNREADABLE, path=str(path), reason=error.strerror or "") from None
    with file:
        yield CheckpointReader(file, public_key(key))


async def _all(*sources: AsyncIterator[Difference] | None) -> AsyncIterator[Difference]:
    for source in sources:
        if source is not None:
            async for difference in source:
                yield difference


@app.command("checkpoint")
def checkpoint_command(
    to: Annotated[
        Path | None, typer.Option("--out", help="File to write; a new one in the data directory if not given.")
    ] = None,
) -> None:
    """Write the signed heads of all chains, to be kept out of reach of whoever can write the database."""

    async def command() -> None:
        settings = read_settings()
        async with _books(settings) as database:
            try:
                signed = await Checkpoints(database, settings.data_dir).write(to)
            except OSError as error:
                raise Misconfigured(Detail.CHECKPOINT_NOT_WRITTEN, reason=error.strerror or "") from None
        for name, value in (
            ("file", signed.path),
            ("accounts", signed.accounts),
            ("audit log", f"{signed.audit.seq} {signed.audit.hash}"),
            ("sha256", signed.digest),
            ("signature", signed.signature),
        ):
            out.print(f"{name:<10} {value}", markup=False, highlight=False, soft_wrap=True)
        out.print(public_text(private_key(settings.data_dir).public_key()), end="", markup=False, highlight=False)

    run(command)


COLUMNS = (*(field.name for field in fields(Entry)), "time")


@app.command()
def export(
    account: Annotated[str, typer.Option(help="The account's user name.")],
    format_: Annotated[Format, typer.Option("--format", help="csv or jsonl.")] = Format.CSV,
) -> None:
    """Write an account's entries to standard output, oldest first; the page about the ledger explains the columns."""

    async def command() -> None:
        settings = read_settings()
        async with _books(settings) as database:
            async with open_services(settings, database) as (accounts, _):
                found = await accounts.named(account)
            write = _csv_writer() if format_ is Format.CSV else _write_json
            async for entry in Receipts(database).all(found.account_id):
                moment = datetime.fromtimestamp(entry.created_at / 1000, UTC)
                write(asdict(entry) | {"time": moment.isoformat(timespec="milliseconds")})

    run(command)


REASONS = tuple(map(str, (*LossReason, *Outcome)))


@app.command()
def losses(
    account: Annotated[str | None, typer.Option(help="Only of the account with this user name.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only for this reason, for example moderated.")] = None,
    days: Annotated[float | None, typer.Option(min=0, help="Only of the last days, of 24 hours each.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, one line per sum.")] = False,
) -> None:
    """List what the platform may bill and nobody paid, by account and reason, largest first.

    The quotas page of the documentation says when that is.
    """

    async def command() -> None:
        if reason is not None and reason not in REASONS:
            raise InvalidInput(Detail.LOSS_REASON_UNKNOWN, names=REASONS)
        settings = read_settings()
        async with _books(settings) as database:
            account_id = None
            if account is not None:
                async with open_services(settings, database) as (accounts, _):
                    account_id = (await accounts.named(account)).account_id
            sums = [each async for each in sums_of_losses(database, LossFilter(account_id, reason, days))]
        if as_json:
            for each in sums:
                _write_json(asdict(each))
        else:
            print_table(_table_of(sums))

    run(command)


def _table_of(sums: list[LossSum]) -> Table:
    numbers = [Column(name, justify="right") for name in ("calls", "amount", "unpaid")]
    table = Table("account", "reason", "capability", *numbers, "newest (UTC)", box=None)
    for each in sums:
        table.add_row(
            Text(each.account or f"account {each.account_id}"),
            each.reason,
            each.capability,
            str(each.calls),
            str(each.amount),
            str(each.unpaid),
            f"{datetime.fromtimestamp(each.newest_at / 1000, UTC):%Y-%m-%d %H:%M:%S}",
        )
    return table


@app.command()
def refund(
    account: Annotated[str, typer.Argument(help="The account's user name.")],
    request_id: Annotated[str, typer.Argument(help="The call's X-Request-Id.")],
    attempt: Annotated[
        int | None, typer.Option(min=1, help="The attempt of the call; the one that was charged if not given.")
    ] = None,
) -> None:
    """Refund what one call was charged, once; the audit log records who did it."""

    async def command() -> None:
        settings = read_settings()
        async with _books(settings) as database, open_services(settings, database) as (accounts, quotas):
            found = await accounts.named(account)
            refunded = await quotas.refund(found, request_id, attempt=attempt, origin=origin())
            say(
                Line.REFUNDED,
                amount=refunded.amount,
                meter=str(refunded.capability),
                request_id=request_id,
                attempt=refunded.attempt,
            )

    run(command)


@asynccontextmanager
async def _books(settings: Settings) -> AsyncIterator[Database]:
    """Open the database without upgrading it: a check must not change the tables that it checks."""
    async with open_database(settings) as database:
        if not (await migrations.status(database)).is_current:
            raise Misconfigured(Detail.SCHEMA_OTHER)
        yield database


def _csv_writer() -> Callable[[dict[str, Any]], None]:
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    return writer.writerow


def _write_json(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row, separators=(",", ":")) + "\n")
