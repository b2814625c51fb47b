"""Clients that hang up in the middle of a body: noted in the line of their request, and no bug of ours."""

from __future__ import annotations

import pytest
import structlog.testing

from system import wire
from system.harness import LocalServer, eventually

ROUTES = [
    "/auth/register",
    "/auth/login",
    "/user/get_token",
    "/admin/login",
    "/admin/setup",
    "/textModel/chat",
    "/textModel/stream",
    "/voiceModel/chat",
    "/v1/sessions",
    "/v1/password-reset",
]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("way", ["close", "reset"])
async def test_it_is_no_bug(server: LocalServer, path: str, way: str) -> None:
    with structlog.testing.capture_logs() as lines:
        async with wire.Connection(server.port) as connection:
            connection.ask("POST", path, [("Content-Type", "application/json"), ("Content-Length", "100")], b'{"uuid":')
            await connection.flush()
            await eventually(lambda: server.task_count() > server.idle_tasks, "the request is being read")
            if way == "reset":
                connection.reset()
        await eventually(lambda: any(line["event"] == "request" for line in lines), "the request is logged")
    (line,) = [line for line in lines if line["event"] == "request"]
    assert line["path"] == path
    assert line["outcome"] == "client gone"
    assert [line for line in lines if line["log_level"] in ("warning", "error", "critical")] == []
    await server.settles()
