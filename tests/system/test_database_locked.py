"""SQLite's file is locked by another program, replaced, or cannot grow: whoever asks is refused in time, readiness says
why, and what was charged meanwhile is kept."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import program
from system import wire
from system.harness import LocalServer, ServerProcess, open_account, post_json

pytestmark = pytest.mark.timeout(240)

REFUSED_SECONDS = 20.0
"""What the tests grant on a busy machine; by itself a call is refused within 10 s. Before, it took minutes."""

LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep a database file locked by a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            process.communicate()


async def timed(answer: asyncio.Future[wire.Answer] | asyncio.Task[wire.Answer]) -> tuple[wire.Answer, float]:
    began = time.monotonic()
    return await answer, time.monotonic() - began


async def test_every_call_is_refused_in_time_and_charges_are_kept(start_server: Callable[..., LocalServer]) -> None:
    server = await asyncio.to_thread(start_server)
    person = await server.person()
    before = await person.tokens()
    path = server.settings.data_dir / "aiproject.db"
    registration = {"username": "late", "password": person.password, "email": "l@example.com"}

    async with wire.Connection(person.port) as connection:
        connection.ask_json("/textModel/stream", person.call("[[fault:slow seconds=0.1]] [[fault:frames n=15]]"))
        running = await connection.head()
        await connection.chunk(running)
        with locked(path):
            calls = [
                person.chat("hi"),
                person.stream("hi"),
                post_json(person.port, "/auth/register", registration),
                post_json(person.port, "/auth/login", {"username": person.username, "password": "wrong, and counted"}),
            ]
            waiting = [asyncio.ensure_future(timed(asyncio.ensure_future(call))) for call in calls]
            command = await asyncio.create_subprocess_exec(
                *program.COMMAND,
                *("user", "grant", person.username, "--tokens", "5"),
                env=program.environment(AIPROJECT_DATA_DIR=str(server.settings.data_dir)),
                stderr=asyncio.subprocess.PIPE,
            )
            for _ in range(10):  # nothing of this holds up the event loop
                began = time.monotonic()
                assert (await wire.request(person.port, "GET", "/health")).status == 200
                assert time.monotonic() - began < 3
                await asyncio.sleep(0.2)
            for answer, seconds in await asyncio.gather(*waiting):
                assert answer.status == 503, answer.body
                assert answer.json()["code"] == "SERVICE_UNAVAILABLE"
                assert int(answer.header("retry-after") or 0) >= 1
                assert seconds < REFUSED_SECONDS
            ready = await wire.request(person.port, "GET", "/ready")
            assert (ready.status, ready.json()["database"]) == (503, "locked")
            # By now the lock is known, so that nobody else has to wait for it.
            while (await timed(asyncio.ensure_future(person.chat("hi"))))[1] > 2:
                pass
            while await connection.chunk(running) is not None:
                pass
            _, complaint = await command.communicate()
            assert command.returncode == 75
            assert b"locked" in complaint
            assert b"Traceback" not in complaint
    assert running.is_complete
    last = running.frames()[-1]
    assert (last["header"]["code"], last["header"]["status"]) == (0, 2)
    cost = last["payload"]["usage"]["text"]["total_tokens"]
    deadline = time.monotonic() + 20
    while await person.tokens() != before - cost:
        assert time.monotonic() < deadline, "the charge that was kept is written"
        await asyncio.sleep(0.1)
    answer = (await person.chat("hi")).json()
    assert answer["code"] == 0
    assert await person.tokens() == before - cost - answer["consume_token"]
    await server.settles()
    await server.assert_books_add_up()


async def until_ready_says(port: int, word: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        answer = await wire.request(port, "GET", "/ready")
        if answer.json()["database"] == word:
            assert answer.status == (200 if word == "ok" else 503)
            return
        assert time.monotonic() < deadline, answer.body
        await asyncio.sleep(0.2)


async def test_a_file_that_was_replaced_is_not_written(start_server: Callable[..., LocalServer]) -> None:
    server = await asyncio.to_thread(start_server)
    person = await server.person()
    before = await person.tokens()
    path = server.settings.data_dir / "aiproject.db"
    kept, other = path.with_name("kept"), path.with_name("other")
    other.write_bytes(path.read_bytes())
    path.rename(kept)
    other.rename(path)
    for answer in (
        await person.chat("hi"),
        await person.stream("hi"),
        await post_json(person.port, "/auth/login", {"username": person.username, "password": person.password}),
    ):
        assert answer.status == 503
        assert int(answer.header("retry-after") or 0) >= 1
    await until_ready_says(person.port, "file replaced")
    path.unlink()
    assert (await person.chat("hi")).status == 503
    kept.rename(path)
    await until_ready_says(person.port, "ok")
    deadline = time.monotonic() + 20
    while (answer := await person.chat("hi")).status == 503:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert await person.tokens() == before - answer.json()["consume_token"]
    await server.assert_books_add_up()


async def test_a_disk_that_takes_no_more(serve_command: Callable[..., ServerProcess]) -> None:
    """Files may not grow any more: to SQLite the same as a disk that fails."""
    process = serve_command()
    await process.until_ready()
    person = await open_account(process.port, "somebody")
    log = (process.log_path.parent / "data" / "aiproject.db-wal").stat().st_size
    _, hard = resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (log, hard))
    await until_ready_says(process.port, "disk failure")
    assert (await person.chat("hi")).status == 503
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    await until_ready_says(process.port, "ok")
    deadline = time.monotonic() + 20
    while (await person.chat("hi")).status == 503:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
