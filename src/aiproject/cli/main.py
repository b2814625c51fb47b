"""The command line application with all commands."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from aiproject import __version__
from aiproject.cli.lazy import LazyCommand

__all__ = ["app", "main"]

EXIT_OUTPUT_FAILED = 74
"""Exit status if standard output or standard error cannot be written (EX_IOERR of sysexits)."""

COMMANDS = (
    LazyCommand(
        "serve", "serve:serve_command", "Run the server; without iFlytek credentials, with the sandbox inside."
    ),
    LazyCommand(
        "sandbox", "serve:sandbox_command", "Run only the sandbox, the local stand-in of the iFlytek platform."
    ),
    LazyCommand("doctor", "doctor:doctor_command", "Check configuration, database, clock and upstream credentials."),
    LazyCommand("db", "database:app", "Upgrade the database's schema, or show its state."),
    LazyCommand("user", "users:app", "Accounts."),
    LazyCommand("key", "keys:app", "API keys."),
    LazyCommand("voucher", "vouchers:app", "Vouchers (令牌): codes that add quota, once for each account."),
    LazyCommand(
        "ledger",
        "ledger:app",
        "Verify the ledger, export entries, write checkpoints, list losses, refund calls.",
    ),
    LazyCommand("admin", "admins:app", "Administrators of the HTTP interface and its console."),
    LazyCommand("audit", "audits:app", "The append-only log of administrative acts."),
)
"""All commands, in the order of the help."""


class _Commands(TyperGroup):
    """The top of the command line."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [str(command.name) for command in COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return next((command for command in COMMANDS if command.name == cmd_name), None)


app = typer.Typer(
    name="aiproject",
    cls=_Commands,
    help="AiProject: accounts, exact quotas and a fast relay in front of iFlytek's AI services.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


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
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a failure can still be reported
    except OSError as error:
        sys.exit(_output_failed(error))


def _output_failed(error: OSError) -> int:
    """Report in one line that the output cannot be written, and return the exit status.

    Other errors of the operating system are translated where they occur. A reader that wants no more, as ``head``, is
    no reason for a message.
    """
    # Data left in the buffer would cause another error when the interpreter ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if error.errno == errno.EPIPE:
        return 1  # as click ends in this case
    with contextlib.suppress(OSError):
        sys.stderr.write(f"aiproject: {error.strerror or type(error).__name__}\n")
    return EXIT_OUTPUT_FAILED
