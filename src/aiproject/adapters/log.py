"""Structured logging: one line an event, JSON on a pipe, coloured on a terminal.

No secret (uuid, password, key, signed address), no prompt and no answer ever goes into an event; accounts are named by
their number, calls by their request id, the vendor's part by its ``sid``.

Logging neither fails nor blocks: see `aiproject.adapters.log_stream`. Whatever a value holds, it cannot control the
terminal that shows the log, nor look like another line.
"""

from __future__ import annotations

import atexit
import logging
import sys
from typing import Any, Literal

from aiproject.adapters.log_stream import LogStream, LogTrouble

__all__ = ["configure", "get_logger", "log_trouble", "standard_error"]

Style = Literal["json", "console"]


def configure(level: str = "info", style: Style | None = None, *, is_lazy: bool = False) -> None:
    """Set up logging of the process, once at its start.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        style: ``None`` chooses by whether standard error is a terminal.
        is_lazy: import what makes lines with the first of them. For commands, most of which log nothing.
    """
    global _pending
    _pending = (level, style)
    if is_lazy:
        logging.root.handlers[:] = [_FirstRecord()]
        logging.root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    else:
        _configure_rendering()


_pending: tuple[str, Style | None] | None = None
"""What `configure` was called with and has not taken effect yet."""


def _configure_rendering() -> None:
    global _pending
    if _pending is not None:
        from aiproject.adapters.log_rendering import configure_rendering

        (level, style), _pending = _pending, None
        configure_rendering(standard_error(), level, style)


class _FirstRecord(logging.Handler):
    """Sets logging up with the first record of a library, and passes it on."""

    def emit(self, record: logging.LogRecord) -> None:
        _configure_rendering()
        for handler in logging.root.handlers:
            handler.handle(record)


class _Logger:
    """Stands for structlog's logger, which is imported with the first line."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._real: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._real is None:
            from aiproject.adapters.log_rendering import structlog_logger

            _configure_rendering()
            self._real = structlog_logger(self._package)
        return getattr(self._real, name)


_standard_error: LogStream | None = None


def standard_error() -> LogStream:
    """Return the process's standard error as a stream that neither fails nor blocks; one for all of its lines."""
    global _standard_error
    if _standard_error is None or _standard_error.stream is not sys.stderr:
        if _standard_error is not None:
            _standard_error.close()
        else:
            atexit.register(_write_at_exit)
        _standard_error = LogStream(sys.stderr, on_loss=_report_loss)
    return _standard_error


def log_trouble() -> LogTrouble | None:
    """Return why the lines of this process's log are not written now; ``None``: they are."""
    return None if _standard_error is None else _standard_error.trouble


def _report_loss(trouble: LogTrouble) -> None:
    get_logger("log").error(
        "log lines were lost",
        count=trouble.lost,
        since=trouble.since.isoformat(timespec="seconds"),
        error=trouble.reason,
    )


def _write_at_exit() -> None:
    if _standard_error is not None:
        _standard_error.close()


def get_logger(room: str) -> Any:
    """Return the logger of a package, for example ``relay``, with the methods of structlog's loggers."""
    return _Logger(room)
