"""Structured logging: one line an event, JSON on a pipe, coloured on a terminal.

House rules: no secret (uuid, password, key, signed address), no prompt and no answer ever goes into an event; accounts
are named by their number, calls by their request id, the vendor's part by its ``sid``.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import structlog

__all__ = ["configure", "get_logger"]


# Both styles of structlog would print the local variables of every frame otherwise: passwords, uuids, signed addresses.
WITHOUT_LOCALS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def configure(level: str = "info", style: Literal["json", "console"] | None = None) -> None:
    """Set up logging of the process, once at its start.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        style: ``None`` chooses by whether standard error is a terminal.
    """
    as_console = style == "console" or (style is None and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if as_console
        else [WITHOUT_LOCALS, structlog.processors.JSONRenderer(_json)]
    )
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # What libraries say goes the same way, from WARNING on; uvicorn's access lines are replaced by our own.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    handler.addFilter(_in_one_line)
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    logging.getLogger("uvicorn.access").disabled = True
    # A malformed form is its sender's matter and answered as such.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


def _json(event: Any, *, default: Callable[[Any], Any]) -> str:
    """Return an event as JSON; msgspec takes a tenth of the time of Python's own encoder.

    Args:
        default: makes something of what JSON has no word for.
    """
    try:
        return msgspec.json.encode(event, enc_hook=default).decode()
    except (UnicodeEncodeError, TypeError, OverflowError):  # half a character, an odd key, a number without end
        return json.dumps(event, default=default)


def _in_one_line(record: logging.LogRecord) -> bool:
    """Tell a lost database connection, which SQLAlchemy's pool logs as an error with its trace, in one line.

    The pool throws such a connection away and opens another, and whoever had it is told by an error of the house. A
    node that falls takes all of its connections with it, so there is a line for each.

    Source: SQLAlchemy 2, ``pool/base.py``: "Exception during reset or similar", "Exception terminating connection" …
    """
    if record.name.startswith("sqlalchemy.pool") and record.exc_info and record.exc_info[0] is not None:
        record.msg = f"a database connection is thrown away: {record.exc_info[0].__name__}"
        record.args = ()
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def get_logger(room: str) -> Any:
    """Return the logger of a room of the house, for example ``relay``."""
    return structlog.get_logger(room=room)
