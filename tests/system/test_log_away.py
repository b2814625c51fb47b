"""The log of a real server cannot be written: calls are answered and charged as ever, and `/ready` says why."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import program
from services import free_port
from system import wire
from system.harness import open_account

pytestmark = pytest.mark.timeout(180)


@contextlib.contextmanager
def served(directory: Path, output: int) -> Iterator[int]:
    """Run ``aiproject serve`` with a descriptor as its standard output and error; yield its port."""
    port = free_port()
    process = subprocess.Popen(
        [*program.COMMAND, "serve", "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=directory,
        env=program.environment(AIPROJECT_DATA_DIR=str(directory / "data")),
    )
    try:
        yield port
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


async def until_it_answers(port: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(OSError):
            if (await wire.request(port, "GET", "/health")).status == 200:
                return
        assert time.monotonic() < deadline, "the server does not start"
        await asyncio.sleep(0.1)


async def assert_calls_are_answered_and_charged(port: int) -> None:
    person = await open_account(port, "somebody")
    before = await person.tokens()
    answer = await person.chat("hi")
    assert answer.status == 200
    told = answer.json()
    assert told["code"] == 0
    stream = await person.stream("hi")
    assert stream.is_complete
    last = stream.frames()[-1]
    assert last["header"]["status"] == 2
    cost = int(told["consume_token"]) + int(last["payload"]["usage"]["text"]["total_tokens"])
    assert await person.tokens() == before - cost


async def readiness(port: int) -> dict[str, Any]:
    answer = await wire.request(port, "GET", "/ready")
    assert answer.status == 200
    told = answer.json()
    assert isinstance(told, dict)
    return told


async def test_a_full_disk(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with served(tmp_path, full) as port:
            await until_it_answers(port)
            await assert_calls_are_answered_and_charged(port)
            assert (await readiness(port))["log"].startswith("No space left on device: ")
    finally:
        os.close(full)


async def test_a_pipe_whose_reader_is_gone(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with served(tmp_path, writer) as port:
            await until_it_answers(port)
            await assert_calls_are_answered_and_charged(port)
            assert (await readiness(port))["log"].startswith("Broken pipe: ")
    finally:
        os.close(writer)


async def test_a_pipe_whose_reader_stalls(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    told = b""
    try:
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"\n" * 4096)
        os.set_blocking(writer, True)
        with served(tmp_path, writer) as port:
            await until_it_answers(port)
            await assert_calls_are_answered_and_charged(port)
            assert (await readiness(port))["log"].startswith("the reader of the log is too slow: ")
            os.set_blocking(reader, False)
            deadline = time.monotonic() + 30
            while (await readiness(port))["log"] != "ok":
                assert time.monotonic() < deadline, "what waited is written once the pipe is read again"
                with contextlib.suppress(BlockingIOError):
                    told += os.read(reader, 1 << 20)
    finally:
        os.close(writer)
        os.set_blocking(reader, True)
        while piece := os.read(reader, 1 << 20):
            told += piece
        os.close(reader)
    paths = [
        json.loads(line)["path"] for line in told.decode().splitlines() if line.startswith("{") and '"path"' in line
    ]
    assert paths == [
        "/auth/register",
        "/auth/login",
        "/auth/login",
        "/textModel/chat",
        "/textModel/stream",
        "/auth/login",
    ]
