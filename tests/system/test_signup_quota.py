"""A burst of registrations from one address, over HTTP and with the defaults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from system.harness import PASSWORD, LocalServer, post_json


async def test_beyond_the_limit_accounts_start_without_quota_and_are_told_so(
    start_server: Callable[..., LocalServer],
) -> None:
    server = start_server(limits="on", signups_per_address_per_day=3, signup_tokens=10_000, signup_voice_seconds=60)
    entries = [{"username": f"student{number}", "password": PASSWORD, "email": ""} for number in range(6)]
    answers = await asyncio.gather(*(post_json(server.port, "/auth/register", entry) for entry in entries))
    told = [answer.json() for answer in answers]
    assert {each["code"] for each in told} == {0}
    assert sorted("暂无额度" in each["msg"] for each in told) == [False] * 3 + [True] * 3
    balances = [
        (await post_json(server.port, "/auth/login", {"username": entry["username"], "password": PASSWORD})).json()
        for entry in entries
    ]
    for registered, found in zip(told, balances, strict=True):
        is_empty = "暂无额度" in registered["msg"]
        assert (found["tokens"], found["picTimes"] == 0) == (0 if is_empty else 10_000, is_empty)
    async with server.accounts() as (accounts, _):
        by_operator = await accounts.register("by the operator", PASSWORD, "")
    assert by_operator.tokens == 10_000, "what the operator opens is not counted"
