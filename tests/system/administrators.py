"""The original's admin console, as far as a server sees it: calls as a browser on another origin makes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from argon2.profiles import CHEAPEST

from aiproject.adapters.passwords import PasswordHasher, PasswordService
from aiproject.administration.model import Role
from aiproject.administration.service import Administrators
from aiproject.assembly import open_database
from aiproject.audit.model import Actor, ActorKind, AuditContext
from aiproject.config.settings import Settings
from system import wire
from system.harness import LocalServer

__all__ = ["ADMIN_PASSWORD", "CONSOLE_ORIGIN", "TEST_ORIGIN", "Console", "administrator", "sign_in"]

CONSOLE_ORIGIN = "http://localhost:8080"
ADMIN_PASSWORD = "four different horses"
TEST_ORIGIN = AuditContext(Actor(ActorKind.COMMAND_LINE, "tests"), "", "test")

Answer = wire.Answer


@dataclass
class Console:
    """A console in a browser; ``access`` and ``refresh`` are what it keeps in its local storage."""

    port: int
    access: str = "null"
    refresh: str = "null"

    async def call(self, method: str, path: str, body: object = None, *, token: str | None = None) -> Answer:
        """Call as axios does: JSON, the origin, and a Bearer header that may hold the word ``null``."""
        headers: list[wire.Header] = [
            ("Origin", CONSOLE_ORIGIN),
            ("Accept", "application/json, text/plain, */*"),
            ("Authorization", f"Bearer {self.access if token is None else token}"),
        ]
        data = b""
        if body is not None:
            headers.append(("Content-Type", "application/json"))
            data = json.dumps(body).encode()
        return await wire.request(self.port, method, path, headers, data)

    async def post(self, path: str, body: object, *, token: str | None = None) -> Any:
        """Post and return the JSON of a 200."""
        answer = await self.call("POST", f"/admin/{path}", body, token=token)
        assert answer.status == 200, answer
        return answer.json()

    async def get(self, path: str, **query: object) -> Any:
        """Get and return the JSON of a 200."""
        answer = await self.call("GET", f"/admin/{path}{'?' + urlencode(query) if query else ''}")
        assert answer.status == 200, answer
        return answer.json()

    async def login(self, name: str, password: str = ADMIN_PASSWORD) -> Any:
        """Log in and keep the tokens, as the console does."""
        told = await self.post("login", {"admin": name, "password": password})
        if not told["code"]:
            self.access, self.refresh = told["access_token"], told["refresh_token"]
        return told


async def administrator(settings: Settings, name: str, role: Role, password: str = ADMIN_PASSWORD) -> None:
    """Make an administrator by the operator's door, beside a server with these settings."""
    async with open_database(settings) as database:
        passwords = PasswordService(PasswordHasher(CHEAPEST))
        try:
            await Administrators(database, passwords).add(name, password, role, TEST_ORIGIN)
        finally:
            await passwords.close()


async def sign_in(server: LocalServer, name: str, role: Role) -> Console:
    """Make an administrator, and a console in which he is logged in."""
    await administrator(server.settings, name, role)
    console = Console(server.port)
    assert (await console.login(name))["code"] == 0
    return console
