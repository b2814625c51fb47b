"""Structured logging: one line for each event, as JSON on a pipe and coloured on a terminal.

An event never contains a secret (uuid, password, key, signed address), a prompt or an answer. Accounts are identified
by their number, calls by their request id, and the vendor's session by its ``sid``.

Logging neither fails nor blocks (see `aiproject.adapters.log_stream`). No value can control the terminal that shows the
log or imitate another line.
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
    """Configure logging for the process; call it once at the start.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        style: ``None``: ``console`` if standard error is a terminal, otherwise ``json``.
        is_lazy: import the rendering code only with the first line. For commands, most of which log nothing.
    """
    global _pending
    _pending = (level, style)
    if is_lazy:
        logging.root.handlers[:] = [_FirstRecord()]
        logging.root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    else:
        _configure_rendering()


_pending: tuple[str, Style | None] | None = None
"""The arguments of `configure`, until they have taken effect."""


def _configure_rendering() -> None:
    global _pending
    if _pending is not None:
        from aiproject.adapters.log_rendering import configure_rendering

        (level, style), _pending = _pending, None
        configure_rendering(standard_error(), level, style)


class _FirstRecord(logging.Handler):
    """Complete the configuration with the first record of a library, and pass the record on."""

    def emit(self, record: logging.LogRecord) -> None:
        _configure_rendering()
        for handler in logging.root.handlers:
            handler.handle(record)


class _Logger:
    """A proxy for structlog's logger, which is imported with the first line."""

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
    """Return the process's standard error as a stream that neither fails nor blocks; all lines share one instance."""
    global _standard_error
    if _standard_error is None or _standard_error.stream is not sys.stderr:
        if _standard_error is not None:
            _standard_error.close()
        else:
            atexit.register(_write_at_exit)
        _standard_error = LogStream(sys.stderr, on_loss=_report_loss)
    return _standard_error


def log_trouble() -> LogTrouble | None:
    """Return why log lines of this process cannot be written at present; ``None``: they can."""
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
