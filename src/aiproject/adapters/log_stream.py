"""A stream for log lines that neither fails nor blocks its caller.

A log goes to a file on a disk that may be full, to a pipe whose reader may be gone, or to one whose reader has stopped
reading. None of these may fail or delay a request. A line that cannot be written is kept in memory up to a bound; lines
beyond it are dropped and counted, and the count is reported once the stream can be written again.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

__all__ = ["LogStream", "LogTrouble"]

MAX_WAITING_BYTES = 1 << 20
"""Bytes of lines kept while the stream cannot be written: about 4,000 lines, or a few seconds of a busy server."""

SHORTEST_PAUSE = 0.02
MAX_PAUSE = 1.0
"""Seconds between two attempts to write waiting lines; the pause doubles each time that nothing could be written."""

GUARANTEED_BYTES = select.PIPE_BUF
"""Bytes that a descriptor reported as writable takes without blocking (POSIX, PIPE_BUF)."""

Write = Callable[[bytes], int]
"""Writes as many bytes as fit and returns their number; raises `BlockingIOError` if none fit."""


@dataclass(frozen=True, slots=True)
class LogTrouble:
    """The reason why lines cannot be written at present.

    Attributes:
        reason: the operating system's message, for example ``No space left on device``.
        since: aware, UTC.
        waiting: lines in memory, which are written as soon as that is possible again.
        lost: lines dropped since then.
    """

    reason: str
    since: datetime
    waiting: int
    lost: int

    def __str__(self) -> str:
        since = self.since.isoformat(timespec="seconds")
        return f"{self.reason}: {self.waiting} lines waiting, {self.lost} lost since {since}"


class LogStream:
    """A writable text stream on top of another stream; safe to use from any thread.

    Args:
        stream: ``None`` if the process has no such stream.
        on_loss: called after a disturbance in which lines were dropped, without any lock held.
        max_waiting: maximum bytes of lines that are kept.
    """

    def __init__(
        self,
        stream: TextIO | None,
        *,
        on_loss: Callable[[LogTrouble], None] = lambda trouble: None,
        max_waiting: int = MAX_WAITING_BYTES,
    ) -> None:
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self.stream = stream
        self._on_loss = on_loss
        self._max_waiting = max_waiting
        self._resources = contextlib.ExitStack()
        self._write_some = _writer(stream, self._resources)
        self._lock = threading.RLock()  # re-entrant: a signal handler may log while its thread is writing
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._reason = ""  # of the trouble; empty: none
        self._since = datetime.min.replace(tzinfo=UTC)
        self._lost = 0
        self._retrier: threading.Thread | None = None

    @property
    def trouble(self) -> LogTrouble | None:
        """The reason why lines cannot be written; ``None``: they can."""
        with self._lock:
            if not self._reason:
                return None
            return LogTrouble(self._reason, self._since, len(self._waiting), self._lost)

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        try:
            return self.stream is not None and self.stream.isatty()
        except ValueError:  # closed
            return False

    def write(self, text: str) -> int:
        """Write a line, keep it for later, or count it as lost."""
        line = text.encode(self.encoding, "backslashreplace")
        if self._reason:
            self.retry()
        with self._lock:
            if self._reason:
                self._keep(line)
            else:
                self._write(line)
        return len(text)

    def flush(self) -> None:
        """Do nothing: a line that can be written never stays in a buffer."""

    def retry(self) -> None:
        """Write the waiting lines if that is possible now."""
        with self._lock:
            if not self._reason or not self._write_waiting():
                return
            trouble = LogTrouble(self._reason, self._since, 0, self._lost)
            self._reason, self._lost = "", 0
        if trouble.lost:
            self._on_loss(trouble)

    def close(self) -> None:
        """Write the waiting lines if possible, and release what this object opened. The stream stays open."""
        self.retry()
        with self._lock:
            self._write_some = _refuse
            self._waiting.clear()
            self._reason = ""  # ends the retrier
            self._resources.close()

    # -- with the lock held ---------------------------------------------------------------------------------------

    def _write(self, line: bytes) -> None:
        try:
            written = self._write_some(line)
        except (OSError, ValueError) as error:
            self._begin_trouble(error)
            self._keep(line)
            return
        if written < len(line):
            self._begin_trouble(BlockingIOError())
            self._keep(line[written:])

    def _write_waiting(self) -> bool:
        """Write the waiting lines; return whether all of them were written."""
        while self._waiting:
            line = self._waiting[0]
            try:
                written = self._write_some(line)
            except (OSError, ValueError) as error:
                self._reason = _reason(error)
                return False
            self._waiting_bytes -= written
            if written < len(line):
                self._waiting[0] = line[written:]
            else:
                self._waiting.popleft()
        return True

    def _begin_trouble(self, error: Exception) -> None:
        self._reason, self._since = _reason(error), datetime.now(UTC)
        if self._retrier is None:
            self._retrier = threading.Thread(target=self._retry_until_written, name="log", daemon=True)
            self._retrier.start()

    def _keep(self, line: bytes) -> None:
        """Keep a line if it fits. After one line was dropped, drop all later ones, so that the log has a single gap."""
        if self._lost or self._waiting_bytes + len(line) > self._max_waiting:
            self._lost += 1
        else:
            self._waiting.append(line)
            self._waiting_bytes += len(line)

    # -- the retrier's thread -------------------------------------------------------------------------------------

    def _retry_until_written(self) -> None:
        """Retry until no line waits. This runs in a thread that exists only while lines cannot be written."""
        pause = SHORTEST_PAUSE
        while True:
            time.sleep(pause)
            before = self._waiting_bytes
            self.retry()
            with self._lock:
                if not self._reason:
                    self._retrier = None
                    return
                pause = SHORTEST_PAUSE if self._waiting_bytes < before else min(2 * pause, MAX_PAUSE)


def _reason(error: Exception) -> str:
    if isinstance(error, BlockingIOError):
        return "the reader of the log is too slow"
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


# -- ways to write without blocking ------------------------------------------------------------------------------------


def _writer(stream: TextIO | None, resources: contextlib.ExitStack) -> Write:
    """Return a function that writes to a stream; the resources that it opens are added to ``resources``.

    The descriptor itself is not switched to non-blocking mode, which would affect every process that shares it, for
    example the shell on the same terminal.
    """
    if stream is None:
        return _refuse
    try:
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError):  # an in-memory or a closed stream
        return _text_writer(stream)
    if stat.S_ISSOCK(mode):
        return _socket_writer(resources.enter_context(socket.socket(fileno=os.dup(descriptor))))
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return _file_writer(descriptor)
    try:
        # Reopening the pipe or terminal gives a descriptor whose flags are not shared with other processes.
        reopened = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # it belongs to another user, the pipe has no reader, or there is no /proc
        return _polling_writer(descriptor)
    resources.callback(os.close, reopened)
    return _file_writer(reopened)


def _refuse(data: bytes) -> int:
    raise ValueError("there is no stream")


def _file_writer(descriptor: int) -> Write:
    def write(data: bytes) -> int:
        return os.write(descriptor, data)

    return write


def _socket_writer(connection: socket.socket) -> Write:
    def write(data: bytes) -> int:
        return connection.send(data, socket.MSG_DONTWAIT)

    return write


def _polling_writer(descriptor: int) -> Write:
    """Return a function that writes only what cannot block.

    It can still block if another process fills the pipe between the poll and the write.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)

    def write(data: bytes) -> int:
        written = 0
        while written < len(data) and poll.poll(0):
            written += os.write(descriptor, data[written : written + GUARANTEED_BYTES])
        if data and not written:
            raise BlockingIOError
        return written

    return write


def _text_writer(stream: TextIO) -> Write:
    encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(data: bytes) -> int:
        stream.write(data.decode(encoding, "replace"))
        stream.flush()
        return len(data)

    return write
