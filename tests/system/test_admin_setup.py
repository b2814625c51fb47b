"""The first administrator: by the code that ``serve`` shows on a terminal, or by the command line."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import program
from aiproject.administration.setup import SetupCode
from system.administrators import ADMIN_PASSWORD, Console
from system.harness import LocalServer, ServerProcess

CODE = "7G3K-QX0N-M2RD-94VB"
REFUSED = {"code": "LOGIN_ERROR", "msg": "初始化代码无效"}


@pytest.fixture
def fresh(start_server: Callable[..., LocalServer]) -> LocalServer:
    """A server without administrators, as one that was started on a terminal and shows `CODE`."""
    return start_server(setup_code=SetupCode(CODE, time.time() + 60))


def body(**fields: Any) -> dict[str, Any]:
    return {"code": CODE, "admin": "first", "password": ADMIN_PASSWORD, **fields}


class TestCode:
    async def test_makes_one_owner_once(self, fresh: LocalServer) -> None:
        console = Console(fresh.port)
        assert await console.post("setup", body(code="7G3K-QX0N-M2RD-94VC")) == REFUSED
        assert await console.post("setup", body(code=CODE.lower())) == {"code": 0, "msg": "首位管理员创建成功"}
        assert await console.post("setup", body(admin="second")) == REFUSED
        assert (await console.login("first"))["role"] == "owner"
        (entry,) = (await console.get("audit", action="admin.setup"))["data"]
        assert (entry["actor_kind"], entry["target"], entry["address"]) == ("server", "first", "127.0.0.1")
        assert CODE not in str(entry)

    async def test_a_weak_password_does_not_use_it_up(self, fresh: LocalServer) -> None:
        console = Console(fresh.port)
        weak = await console.post("setup", body(password="12345678"))
        assert weak["code"] == "LOGIN_ERROR"
        assert weak["msg"].startswith("创建首位管理员失败：")
        assert (await console.post("setup", {"code": CODE}))["code"] == "LOGIN_ERROR"
        assert (await console.post("setup", body()))["code"] == 0

    async def test_five_at_once_make_one(self, fresh: LocalServer) -> None:
        answers = await asyncio.gather(*(Console(fresh.port).post("setup", body(admin=f"first{n}")) for n in range(5)))
        assert sum(answer["code"] == 0 for answer in answers) == 1
        assert sum(answer == REFUSED for answer in answers) == 4

    async def test_without_a_code_there_is_no_setup(self, server: LocalServer) -> None:
        for code in (CODE, "", "null"):
            assert (await Console(server.port).post("setup", body(code=code)))["code"] == "LOGIN_ERROR"


@pytest.fixture
def on_terminal(tmp_path: Path) -> Iterator[Callable[[], tuple[int, str]]]:
    """Run ``aiproject serve`` on a terminal; return its port and what it showed."""
    running: list[tuple[subprocess.Popen[bytes], int]] = []

    def start() -> tuple[int, str]:
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            [*program.COMMAND, "serve", "--port", "0", "--workers", "2"],
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=follower,
            cwd=tmp_path,
            env=program.environment(AIPROJECT_DATA_DIR=str(tmp_path / "data"), COLUMNS="120"),
            start_new_session=True,
        )
        os.close(follower)
        running.append((process, leader))
        shown = ""
        deadline = time.monotonic() + 60
        while "╯" not in shown and time.monotonic() < deadline:
            shown += os.read(leader, 4096).decode("utf-8", "replace")
        shown = re.sub(r"\x1b\[[0-9;]*m", "", shown)
        found = re.search(r"listens on http://127\.0\.0\.1:(\d+)", shown)
        assert found, shown
        return int(found[1]), shown

    yield start
    for process, leader in running:
        process.terminate()
        process.wait(20)
        os.close(leader)


async def test_on_a_terminal_the_code_is_shown_and_all_workers_know_it(
    on_terminal: Callable[[], tuple[int, str]],
) -> None:
    port, shown = await asyncio.to_thread(on_terminal)
    found = re.search(r"\b([0-9A-Z]{4}(?:-[0-9A-Z]{4}){3})\b", shown)
    assert found, shown
    assert (await Console(port).post("setup", body(code=found[1])))["code"] == 0
    for _ in range(4):  # whichever worker answers
        console = Console(port)
        assert (await console.login("first"))["code"] == 0
        assert (await console.get("query_table_count", table="admin"))["total_count"] == 1


async def test_a_log_never_holds_the_code(serve_command: Callable[..., ServerProcess]) -> None:
    process = await serve_command().until_ready()
    assert "administrator" not in process.log
    assert not re.search(r"\b[0-9A-Z]{4}(-[0-9A-Z]{4}){3}\b", process.log)
