"""A browser for tests: keeps the cookie, says where its page comes from, and sends the CSRF token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from system import wire
from system.harness import PASSWORD, Person

__all__ = ["Browser"]


class Browser:
    """One browser on one of our own pages.

    Attributes:
        cookie: ``name=value``, as it would be sent; empty: none.
        csrf: what the server told last.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookie = ""
        self.csrf = ""

    async def sign_in(self, person: Person, password: str = PASSWORD) -> dict[str, Any]:
        answer = await self.send("POST", "/v1/sessions", {"username": person.username, "password": password})
        body = answer.json()
        assert (answer.status, body["code"]) == (201, 0), body
        assert isinstance(body, dict)
        return body

    @property
    def own(self) -> list[tuple[str, str]]:
        """What a browser says of a request from our own page."""
        return [("Origin", f"http://127.0.0.1:{self.port}"), ("Sec-Fetch-Site", "same-origin")]

    async def send(
        self, method: str, path: str, body: object = None, headers: Sequence[tuple[str, str]] | None = None
    ) -> wire.Answer:
        """Send a request as our own page does, or with other headers beside the cookie."""
        if headers is None:
            headers = [*self.own, *([("X-CSRF-Token", self.csrf)] if self.csrf else [])]
        sent: list[wire.Header] = [("Host", f"127.0.0.1:{self.port}"), *headers]
        if self.cookie:
            sent.append(("Cookie", self.cookie))
        data = None
        if body is not None:
            sent.append(("Content-Type", "application/json"))
            data = json.dumps(body).encode()
        answer = await wire.request(self.port, method, path, sent, data)
        handed_out = answer.header("set-cookie")
        if handed_out is not None:
            name, _, value = handed_out.partition(";")[0].partition("=")
            self.cookie = f"{name}={value}" if value else ""
        if answer.body.startswith(b"{"):
            self.csrf = json.loads(answer.body).get("csrf_token", self.csrf)
        return answer
