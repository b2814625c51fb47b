"""The page of all commands, from the command line itself."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, Final, Union, get_args, get_origin

from aiproject.cli.main import COMMANDS, EXIT_OUTPUT_FAILED
from tools.reference.catalogue import Translate, paragraphs

__all__ = ["EXIT_MEANINGS", "all_commands", "commands_page"]

INTRODUCTION: Final = """\
In a clone the commands are `.venv/bin/aiproject …`. Each explains itself with `--help`; `aiproject --version` prints
the version. Commands and server share the [settings](settings.md), so give them the same environment.

Errors, confirmations and the findings of `doctor` are in Chinese where the locale is (`LC_ALL`, `LC_MESSAGES` or
`LANG`, the first that is not empty, begins with `zh`), else in English. Tables, labels, and the level and subject of a
finding are the same in every language, for scripts.

Passwords are never arguments: a command that needs one asks for it without showing it, or reads one line from
standard input where there is no terminal.
"""

EXIT_MEANINGS: Final[Mapping[int, str]] = types.MappingProxyType(
    {
        0: "The command did what it says.",
        1: "A check found a difference or something to fix, or the reader of the output closed it.",
        2: "The command line is wrong: an unknown command or option, or a value of the wrong type.",
        65: "The input was refused; the message says why.",
        67: "There is no such account or administrator.",
        70: "An error inside the program.",
        EXIT_OUTPUT_FAILED: "Standard output or standard error cannot be written.",
        75: "Something that the command needs is unavailable, such as the database; trying again later may help.",
        78: "The settings are wrong; every error is listed.",
    }
)
"""What each exit status means; a test compares it with the table from which the command line takes them."""


def all_commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each command and each group of commands with its words, groups before what is in them."""
    for entry in COMMANDS:
        yield from _below(entry.load(), (str(entry.name),))


def _below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _below(child, (*words, name))


def commands_page(t: Translate) -> str:
    """Return the page, with a heading for each command so that it can be linked to."""
    parts = [f"# {t('Commands')}", *(t(paragraph) for paragraph in paragraphs(INTRODUCTION))]
    for words, command in all_commands():
        parts.append(f"{'#' * (len(words) + 1)} `aiproject {' '.join(words)}`")
        parts.append(t(_one_line(command.help)))
        if not hasattr(command, "commands"):
            parts += _usage(words, command.params, t)
    parts += [f"## {t('Exit statuses')}", _exit_statuses(t)]
    return "\n\n".join(parts) + "\n"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _usage(words: tuple[str, ...], params: list[Any], t: Translate) -> Iterator[str]:
    shown = " ".join(["aiproject", *words, *(_usage_of(param) for param in params)])
    yield f"```text\n{shown}\n```"
    if params:
        head = f"| {t('Argument or option')} | {t('Type')} | {t('Default')} | {t('Meaning')} |\n|---|---|---|---|"
        rows = [
            f"| `{_name(param)}` | {_type(param, t)} | {_default(param, t)} | {t(_one_line(param.help))} |"
            for param in params
        ]
        yield "\n".join([head, *rows])


def _is_argument(param: Any) -> bool:
    return not str(param.opts[0]).startswith("-")


def _name(param: Any) -> str:
    if _is_argument(param):
        return str(param.name).upper()
    return " / ".join([*param.opts, *param.secondary_opts])


def _usage_of(param: Any) -> str:
    if _is_argument(param):
        return _name(param) if param.required else f"[{_name(param)}]"
    shown = "|".join([*param.opts, *param.secondary_opts])
    if not param.is_flag:
        shown += f" {_placeholder(_kind(param))}"
    repeated = "…" if param.multiple else ""
    return f"{shown}{repeated}" if param.required else f"[{shown}]{repeated}"


def _kind(param: Any) -> Any:
    """The type of one value of a parameter."""
    annotation = param.type_descriptor.annotation
    while get_origin(annotation) in (Union, types.UnionType, list):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def _placeholder(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(member.value) for member in kind)
    return {int: "N", float: "NUMBER", Path: "PATH", datetime: "TIME"}.get(kind, "TEXT")


def _type(param: Any, t: Translate) -> str:
    if not _is_argument(param) and param.is_flag:
        return t("switch")
    kind = _kind(param)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return t("one of {choices}", choices=t(", ").join(f"`{member.value}`" for member in kind))
    bounds = [t("at least {bound}", bound=f"{param.min:,}")] if param.min is not None else []
    bounds += [t("at most {bound}", bound=f"{param.max:,}")] if param.max is not None else []
    word = {int: "integer", float: "number", Path: "path", datetime: "date and time"}.get(kind, "text")
    return t(", ").join([t(word), *bounds])


def _default(param: Any, t: Translate) -> str:
    if param.required:
        return t("required")
    match param.default:
        case None:
            text = t("not set")
        case bool():
            text = t("on") if param.default else t("off")
        case Enum():
            text = f"`{param.default.value}`"
        case _:
            text = f"`{param.default}`"
    return text + (t(", or `{variable}`", variable=param.envvar) if param.envvar else "")


def _exit_statuses(t: Translate) -> str:
    rows = [f"| {status} | {t(meaning)} |" for status, meaning in EXIT_MEANINGS.items()]
    return "\n".join([f"| {t('Status')} | {t('Meaning')} |\n|---|---|", *rows])
