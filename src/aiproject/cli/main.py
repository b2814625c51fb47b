"""Puts the commands together."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Annotated

import typer

from aiproject import __version__
from aiproject.cli import admins, audits, database, doctor, keys, ledger, serve, users, vouchers

__all__ = ["main"]

EXIT_OUTPUT_FAILED = 74
"""Exit status where standard output or error cannot be written (sysexits' EX_IOERR)."""

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
    # What is left in the buffer would fail again when the interpreter ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if error.errno == errno.EPIPE:
        return 1  # as click ends in this case
    with contextlib.suppress(OSError):
        sys.stderr.write(f"aiproject: {error.strerror or type(error).__name__}\n")
    return EXIT_OUTPUT_FAILED
