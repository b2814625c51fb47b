"""Who calls is found out before the body is read, and again where the body took long."""

from __future__ import annotations

import asyncio

import pytest

from aiproject.adapters.http.asgi import Message, Scope
from aiproject.api import endpoint
from aiproject.api.endpoint import read_identified
from aiproject.errors import NotSignedIn

SCOPE: Scope = {"type": "http", "headers": []}


async def receive() -> Message:
    return {"type": "http.request", "body": b"thrown away", "more_body": False}


class Key:
    """An API key that is good for so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    async def identify(self) -> str:
        self.looks -= 1
        if self.looks < 0:
            raise NotSignedIn
        return "caller"


async def read_slowly() -> bytes:
    await asyncio.sleep(0.02)
    return b"body"


async def never_read() -> bytes:
    raise AssertionError("the body of a refused caller is read")


async def test_a_refused_caller_is_refused_first() -> None:
    with pytest.raises(NotSignedIn):
        await read_identified(SCOPE, receive, Key(0).identify, never_read)


async def test_nobody_is_looked_up_twice_for_a_body_that_comes_swiftly() -> None:
    assert await read_identified(SCOPE, receive, Key(1).identify, read_slowly) == ("caller", b"body")


async def test_a_key_that_was_revoked_during_a_slow_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "IDENTITY_SECONDS", 0.001)
    with pytest.raises(NotSignedIn):
        await read_identified(SCOPE, receive, Key(1).identify, read_slowly)


async def test_nobody_in_particular_is_not_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "IDENTITY_SECONDS", 0.001)
    looks = 0

    async def anonymous() -> None:
        nonlocal looks
        looks += 1

    assert await read_identified(SCOPE, receive, anonymous, read_slowly) == (None, b"body")
    assert looks == 1
