"""Puts the commands together."""

from __future__ import annotations

from typing import Annotated

import typer

from aiproject import __version__
from aiproject.cli import admins, audits, database, doctor, keys, ledger, serve, users, vouchers

__all__ = ["main"]

app = typer.Typer(
    name="aiproject",
    help="AiProject: accounts, exact quotas and a fast relay in front of iFlytek's AI services.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("serve")(serve.serve_command)
app.command("sandbox")(serve.sandbox_command)
app.command("doctor")(doctor.doctor_command)
app.add_typer(database.app, name="db")
app.add_typer(users.app, name="user")
app.add_typer(keys.app, name="key")
app.add_typer(vouchers.app, name="voucher")
app.add_typer(ledger.app, name="ledger")
app.add_typer(admins.app, name="admin")
app.add_typer(audits.app, name="audit")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aiproject {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """AiProject."""


def main() -> None:
    """Entry point of the ``aiproject`` command."""
    app()
