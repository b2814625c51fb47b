"""``aiproject key``: API keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import typer
from rich.table import Column, Table
from rich.text import Text

from aiproject.accounts.api_keys.model import PREFIX_LENGTH, KeyTerms, SpendCap, SpendLimit, StoredKey, networks_of
from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.model import Account
from aiproject.accounts.core.service import Accounts
from aiproject.cli.common import complain, origin, print_table, read_settings, run, say, tables
from aiproject.cli.services import open_services
from aiproject.cli.users import MOST, Name
from aiproject.config.settings import Settings
from aiproject.ledger.key_limits import day_of
from aiproject.messages.commands import Line
from aiproject.meters import Meter

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

LARGEST = MOST // 1000
"""Upper bound of any amount: far above realistic amounts, and within the ledger's bounds in milliseconds as well."""


@asynccontextmanager
async def _services() -> AsyncIterator[tuple[Settings, Accounts, ApiKeys]]:
    settings = read_settings()
    async with tables(settings) as database, open_services(settings, database) as (accounts, _):
        yield settings, accounts, ApiKeys(database)


@app.command()
def add(
    account: Name,
    name: Annotated[str, typer.Option(help="A name for the key, chosen by its owner.")],
    expires: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="When it expires, in the server's time zone."),
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=0, max=LARGEST, help="Tokens that it may spend in total.")] = None,
    tokens_per_day: Annotated[
        int | None, typer.Option(min=0, max=LARGEST, help="Tokens that it may spend per day.")
    ] = None,
    pic_times: Annotated[int | None, typer.Option(min=0, max=LARGEST, help="Picture recognitions in total.")] = None,
    pic_times_per_day: Annotated[
        int | None, typer.Option(min=0, max=LARGEST, help="Picture recognitions per day.")
    ] = None,
    voice_seconds: Annotated[
        int | None, typer.Option(min=0, max=LARGEST, help="Seconds of dictation in total.")
    ] = None,
    voice_seconds_per_day: Annotated[
        int | None, typer.Option(min=0, max=LARGEST, help="Seconds of dictation per day.")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Calls per minute.")] = None,
    concurrent_calls: Annotated[int | None, typer.Option(min=1, help="Concurrent calls.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Tokens per minute.")] = None,
    capability: Annotated[list[Meter] | None, typer.Option(help="Balance that it may use; may be repeated.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Text model that it may use; may be repeated.")] = None,
    address: Annotated[
        list[str] | None, typer.Option(help="Address or network from which it may be used; may be repeated.")
    ] = None,
) -> None:
    """Create a key; without a limit it may use everything that its account has. The key is printed only once."""
    caps = {
        Meter.TOKENS: SpendCap(tokens, tokens_per_day),
        Meter.PIC_TIMES: SpendCap(pic_times, pic_times_per_day),
        Meter.VOICE_SECONDS: SpendCap(_milliseconds(voice_seconds), _milliseconds(voice_seconds_per_day)),
    }

    async def command() -> None:
        async with _services() as (settings, accounts, keys):
            terms = KeyTerms(
                name,
                None if expires is None else expires.replace(tzinfo=ZoneInfo(settings.time_zone)).astimezone(UTC),
                requests_per_minute,
                concurrent_calls,
                tokens_per_minute,
                frozenset(capability) if capability else None,
                frozenset(model) if model else None,
                networks_of(address) if address else None,
            )
            owner = await accounts.named(account)
            new = await keys.create(owner.account_id, terms, caps, origin=origin())
        say(Line.KEY_SHOWN_ONCE, console=complain, prefix=new.key.prefix, name=owner.username)
        typer.echo(new.text)

    run(command)


@app.command("list")
def list_(account: Name) -> None:
    """List an account's keys by their public prefixes, with what they have spent."""

    async def command() -> None:
        async with _services() as (settings, accounts, keys):
            owner: Account = await accounts.named(account)
            zone = ZoneInfo(settings.time_zone)
            now = datetime.now(UTC)
            today = day_of(int(now.timestamp() * 1000), zone)
            whole = Column("prefix", no_wrap=True, min_width=PREFIX_LENGTH)  # to be copied, also from a narrow terminal
            spent = (meter.spec.heading for meter in Meter)
            table = Table(whole, "name", "state", *spent, "last use", "from", box=None)
            for stored in await keys.list(owner.account_id):
                key = stored.key
                table.add_row(
                    key.prefix,
                    Text(key.name),  # a plain string would be read as markup
                    _state(stored, now, zone),
                    *(_spent(stored.limits.get(capability), today, capability.spec.scale) for capability in Meter),
                    f"{key.last_used_at.astimezone(zone):%Y-%m-%d %H:%M}" if key.last_used_at else "never",
                    key.last_used_address or "",
                )
            print_table(table)

    run(command)


@app.command()
def revoke(prefix: Annotated[str, typer.Argument(help="The key's public prefix, as listed: sk-…")]) -> None:
    """Revoke a key permanently, by its prefix."""

    async def command() -> None:
        async with _services() as (_, _, keys):
            key = await keys.with_prefix(prefix)
            await keys.revoke(key.account_id, key.prefix, origin=origin())
            say(Line.REVOKED, name=key.prefix)

    run(command)


def _milliseconds(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * 1000


def _state(stored: StoredKey, now: datetime, zone: ZoneInfo) -> str:
    expires_at = stored.key.terms.expires_at
    if stored.key.revoked_at is not None:
        return "revoked"
    if expires_at is None:
        return "active"
    return f"{'until' if now < expires_at else 'expired'} {expires_at.astimezone(zone):%Y-%m-%d %H:%M}"


def _spent(limit: SpendLimit | None, today: int, unit: int) -> str:
    """Return ``spent of total, today's of the daily cap``, with caps only if there are any."""
    if limit is None:
        return ""
    words = _amount(limit.spent, unit)
    if limit.total is not None:
        words += f" of {_amount(limit.total, unit)}"
    if limit.daily is None:
        return words
    day_spent = limit.day_spent if limit.day >= today else 0
    return f"{words}, today {_amount(day_spent, unit)} of {_amount(limit.daily, unit)}"


def _amount(number: int, unit: int) -> str:
    return str(number) if unit == 1 else f"{number / unit:.15g}"
