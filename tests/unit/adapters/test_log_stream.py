"""A log stream never raises and never blocks; it keeps lines, and counts those it must drop."""

from __future__ import annotations

import errno
import io
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from aiproject.adapters.log_stream import LogStream, LogTrouble


class Disk(io.StringIO):
    """A stream that fails as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: Exception | None = None

    def write(self, text: str) -> int:
        if self.failure is not None:
            raise self.failure
        return super().write(text)


class Losses(list[LogTrouble]):
    """What a stream reported."""


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def losses() -> Losses:
    return Losses()


@pytest.fixture
def stream(disk: Disk, losses: Losses) -> Iterator[LogStream]:
    """Writes to ``disk``; room for two lines of 8 characters."""
    stream = LogStream(disk, on_loss=losses.append, max_waiting=16)
    yield stream
    stream.close()


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "Broken pipe"),
        (ValueError("I/O operation on closed file"), "ValueError"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "the reader of the log is too slow"),
    ],
)
def test_a_failure_is_kept_from_the_caller(disk: Disk, stream: LogStream, failure: Exception, reason: str) -> None:
    disk.failure = failure
    stream.write("line 01\n")
    trouble = stream.trouble
    assert trouble is not None
    assert (trouble.reason, trouble.waiting, trouble.lost) == (reason, 1, 0)
    assert str(trouble).startswith(f"{reason}: 1 lines waiting, 0 lost since 20")


def test_kept_lines_are_written_in_order_and_no_loss_is_reported(disk: Disk, stream: LogStream, losses: Losses) -> None:
    disk.failure = OSError(errno.ENOSPC, "full")
    stream.write("line 01\n")
    stream.write("line 02\n")
    disk.failure = None
    stream.write("line 03\n")
    assert disk.getvalue() == "line 01\nline 02\nline 03\n"
    assert stream.trouble is None
    assert losses == []


def test_lost_lines_are_counted_and_reported_once(disk: Disk, stream: LogStream, losses: Losses) -> None:
    disk.failure = OSError(errno.ENOSPC, "full")
    for number in range(5):
        stream.write(f"line {number:02}\n")
    assert stream.trouble is not None
    assert stream.trouble.lost == 3
    disk.failure = None
    stream.retry()
    stream.write("after\n")
    assert disk.getvalue() == "line 00\nline 01\nafter\n"
    assert [(loss.lost, loss.waiting) for loss in losses] == [(3, 0)]


def test_it_recovers_without_another_line(disk: Disk, stream: LogStream) -> None:
    disk.failure = OSError(errno.ENOSPC, "full")
    stream.write("line 01\n")
    disk.failure = None
    deadline = time.monotonic() + 10
    while stream.trouble is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert disk.getvalue() == "line 01\n"


def test_no_stream_at_all() -> None:
    stream = LogStream(None)
    stream.write("x\n")
    assert not stream.isatty()
    assert stream.trouble is not None
    stream.close()


class TestPipes:
    """Through descriptors, as a process has them."""

    @pytest.fixture(params=["pipe", "pipe of another user", "socket"])
    def ends(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[tuple[int, io.TextIOBase]]:
        """The reading descriptor, and the stream that writes."""
        if request.param == "socket":
            left, right = socket.socketpair()
            reader, writer = left.detach(), right.detach()
        else:
            reader, writer = os.pipe()
        if request.param == "pipe of another user":

            def refuse(*_: object) -> int:
                raise PermissionError(errno.EACCES, "Permission denied")

            monkeypatch.setattr("aiproject.adapters.log_stream.os.open", refuse)
        with os.fdopen(writer, "w") as stream:
            yield reader, stream
        os.close(reader)

    def test_a_reader_that_stalls_delays_nobody(self, ends: tuple[int, io.TextIOWrapper]) -> None:
        reader, raw = ends
        losses = Losses()
        stream = LogStream(raw, on_loss=losses.append, max_waiting=100_000)
        line = "x" * 999 + "\n"
        writer = threading.Thread(target=lambda: [stream.write(line) for _ in range(1000)], daemon=True)
        writer.start()
        writer.join(30)
        assert not writer.is_alive(), "writing blocks"
        trouble = stream.trouble
        assert trouble is not None
        assert trouble.reason == "the reader of the log is too slow"
        assert 50 < trouble.waiting <= 101
        assert trouble.lost > 0
        assert os.get_blocking(raw.fileno()), "others write by this descriptor as well"
        told = b""
        while len(told) < (1000 - trouble.lost) * len(line):
            told += os.read(reader, 65536)
        assert told.decode() == line * (1000 - trouble.lost)
        deadline = time.monotonic() + 10
        while not losses:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert [loss.lost for loss in losses] == [trouble.lost]
        stream.close()


def test_a_pipe_without_a_reader() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as raw:
        stream = LogStream(raw)
        stream.write("x\n")
        assert stream.trouble is not None
        assert stream.trouble.reason == "Broken pipe"
        stream.close()


def test_a_full_device() -> None:
    with open("/dev/full", "w") as raw:
        stream = LogStream(raw)
        stream.write("x\n")
        assert stream.trouble is not None
        assert stream.trouble.reason == "No space left on device"
        stream.close()
