"""Fixtures of the system tests: the platform's stand-in, and the whole server in front of it.

`server` is one server for all tests that only talk to it: each opens its own account. A test that wants other
settings, or looks at what is left behind, starts one by `start_server`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiproject.sandbox.platform import SandboxOptions
from aiproject.sandbox.running import SandboxThread
from system.harness import LocalServer, Platform, ServerProcess

FAST = SandboxOptions(first_frame_delay=0, frame_gap=0, use_engines=False)


@pytest.fixture(scope="session")
def _platform() -> Iterator[Platform]:
    thread = SandboxThread(FAST)
    yield Platform(thread, thread.start())
    thread.stop()


@pytest.fixture
def platform(_platform: Platform) -> Iterator[Platform]:
    """The stand-in of the vendor's platform: answers at once, with no faults ordered."""
    _platform.forget()
    yield _platform
    _platform.forget()


@pytest.fixture(scope="session")
def _server(_platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    server = LocalServer(_platform.address, tmp_path_factory.mktemp("server")).start()
    yield server
    server.run(server.assert_books_add_up)
    server.stop()


@pytest.fixture
def server(_server: LocalServer, platform: Platform) -> LocalServer:
    """A running server in front of `platform`: SQLite, no rate limits, new accounts hold 1,000,000 tokens."""
    assert platform is not None
    return _server


@pytest.fixture
def start_server(platform: Platform, tmp_path: Path) -> Iterator[Callable[..., LocalServer]]:
    """Start a server of one's own, with settings by name."""
    started: list[LocalServer] = []

    def start(**settings: Any) -> LocalServer:
        server = LocalServer(platform.address, tmp_path / f"server{len(started)}", **settings).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def serve_command(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Run ``aiproject serve`` with environment variables (a dict) and arguments."""
    running: list[ServerProcess] = []

    def run(environment: dict[str, str] | None = None, *arguments: str) -> ServerProcess:
        directory = tmp_path / f"process{len(running)}"
        directory.mkdir()
        process = ServerProcess(directory, environment or {}, *arguments)
        running.append(process)
        return process

    yield run
    for process in running:
        process.clean_up()
