"""How log lines are made of events: structlog's configuration, and the one of the standard library's loggers.

Apart from `aiproject.adapters.log`, since structlog takes longer to import than most commands run: a command that logs
nothing does without it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, MutableMapping
from functools import partial
from io import StringIO
from typing import Any, Literal, TextIO

import msgspec
import structlog

from aiproject.adapters.log_stream import LogStream

__all__ = ["configure_rendering", "structlog_logger"]

_INVISIBLE = re.compile(
    "[\x7f-\x9f"  # DEL and the C1 controls: some terminals take U+009B for the start of an escape sequence
    "\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"  # without width, or turning the text's direction
    "\u2028\u2029"  # separators of lines and paragraphs: a line break to many readers
    "\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_CONTROLS = re.compile(f"[\x00-\x1f]|{_INVISIBLE.pattern}")
_CONTROLS_OF_A_TRACE = re.compile(f"[\x00-\x08\x0b-\x1f]|{_INVISIBLE.pattern}")

# Both styles of structlog would print the local variables of every frame otherwise: passwords, uuids, signed addresses.
WITHOUT_LOCALS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def configure_rendering(stream: LogStream, level: str, style: Literal["json", "console"] | None) -> None:
    """Configure structlog and the standard library's root logger. Arguments are those of `aiproject.adapters.log`."""
    as_console = style == "console" or (style is None and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[structlog.typing.Processor] = (
        [_visible, structlog.dev.ConsoleRenderer(exception_formatter=_visible_trace)]
        if as_console
        else [WITHOUT_LOCALS, structlog.processors.JSONRenderer(_json)]
    )
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=partial(_LineLogger, stream),
        cache_logger_on_first_use=True,
    )
    # What libraries say goes the same way, from WARNING on; uvicorn's access lines are replaced by our own.
    handler = logging.StreamHandler(stream)
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


class _LineLogger:
    """Writes rendered lines. structlog's own would hold a lock meanwhile, and a stream may report a loss as a line."""

    def __init__(self, stream: LogStream, *_: object) -> None:
        self._write = stream.write

    def msg(self, line: str) -> None:
        self._write(line + "\n")

    debug = info = warning = error = critical = exception = msg


def _json(event: Any, *, default: Callable[[Any], Any]) -> str:
    """Return an event as JSON; msgspec takes a tenth of the time of Python's own encoder.

    Args:
        default: makes something of what JSON has no word for.
    """
    try:
        text = msgspec.json.encode(event, enc_hook=default).decode()
    except (UnicodeEncodeError, TypeError, OverflowError):  # half a character, an odd key, a number without end
        return json.dumps(event, default=default)
    # Such characters stand within strings only, where JSON takes an escape for each.
    return text if text.isascii() and "\x7f" not in text else _INVISIBLE.sub(_json_escape, text)


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def _visible(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape the control characters of the texts of an event. The renderer shows other values by their `repr`."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = _CONTROLS.sub(_python_escape, value)
    return event


def _visible_trace(out: TextIO, error: structlog.typing.ExcInfo) -> None:
    text = StringIO()
    structlog.dev.plain_traceback(text, error)
    out.write(_CONTROLS_OF_A_TRACE.sub(_python_escape, text.getvalue()))


def _python_escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


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


def structlog_logger(package: str) -> Any:
    """Return structlog's own logger."""
    return structlog.get_logger(room=package)
