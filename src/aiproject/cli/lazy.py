"""Commands whose modules are imported when they are run, so that ``aiproject --help`` answers at once."""

from __future__ import annotations

import gc
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_group

__all__ = ["LazyCommand"]


class LazyCommand(TyperCommand):
    """A placeholder for a command, or a group of commands, until it is run.

    Args:
        name: the name on the command line.
        target: ``module:attribute`` below `aiproject.cli`: a `typer.Typer`, or the function of a single command.
        help: the text of the command, in the list of its group and on its own page.
    """

    def __init__(self, name: str, target: str, help: str) -> None:  # noqa: A002 - typer's own word
        super().__init__(name, help=help)
        self.target = target

    def load(self) -> Any:
        """Import and return the command, a click command made by typer."""
        module, _, attribute = self.target.partition(":")
        # Imports create many objects but no garbage; garbage collections during them take a tenth of a command's time.
        gc.disable()
        try:
            found = getattr(import_module(f"aiproject.cli.{module}"), attribute)
        finally:
            gc.enable()
        parent = typer.Typer(add_completion=False)
        if isinstance(found, typer.Typer):
            parent.add_typer(found, name=self.name, help=self.help)
        else:
            parent.command(self.name, help=self.help)(found)
        return get_group(parent).commands[str(self.name)]

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Return the context of the loaded command, which is the command that click then runs."""
        return self.load().make_context(info_name, args, parent, **extra)
