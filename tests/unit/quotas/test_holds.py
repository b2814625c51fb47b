"""Holds: what a balance allows before a call; the database is not asked."""

from __future__ import annotations

from typing import cast

import pytest

from aiproject.accounts import Account
from aiproject.adapters.database import Database
from aiproject.errors import QuotaExhausted
from aiproject.protocols.seed import QUOTA_CODES
from aiproject.quotas import Capability, Hold, Quotas

QUOTAS = Quotas(cast("Database", None))  # a hold and a free capture touch no database


def account(tokens: int = 0, pic_times: int = 0, voice_ms: int | None = 0) -> Account:
    return Account(7, "the-uuid", "小明", "", None, tokens, pic_times, voice_ms, 0, None, None)


async def hold(of: Account, capability: Capability, amount: int) -> Hold:
    return await QUOTAS.hold(of, capability, amount, request_id="r1")


@pytest.mark.parametrize(
    ("balance", "asked", "held"),
    [(100, 40, 40), (100, 100, 100), (100, 500, 100), (1, 500, 1)],
)
async def test_tokens_are_held_as_far_as_they_go(balance: int, asked: int, held: int) -> None:
    assert await hold(account(tokens=balance), Capability.TOKENS, asked) == Hold(7, Capability.TOKENS, held, "r1")


@pytest.mark.parametrize("balance", [0, -350])
@pytest.mark.parametrize("capability", list(Capability))
async def test_nothing_left(balance: int, capability: Capability) -> None:
    with pytest.raises(QuotaExhausted) as caught:
        await hold(account(balance, balance, balance), capability, 1)
    assert caught.value.capability == capability
    assert caught.value.capability in QUOTA_CODES


async def test_one_balance_does_not_pay_for_another() -> None:
    with pytest.raises(QuotaExhausted):
        await hold(account(tokens=1000, voice_ms=1000), Capability.PIC_TIMES, 1)
    with pytest.raises(QuotaExhausted):
        await hold(account(tokens=1000, pic_times=10), Capability.VOICE_SECONDS, 1)


async def test_what_cannot_be_divided_is_held_whole() -> None:
    assert (await hold(account(pic_times=1), Capability.PIC_TIMES, 1)).amount == 1
    assert (await hold(account(voice_ms=1500), Capability.VOICE_SECONDS, 1500)).amount == 1500
    with pytest.raises(QuotaExhausted):
        await hold(account(voice_ms=1500), Capability.VOICE_SECONDS, 1501)


async def test_unmetered_dictation_is_never_refused() -> None:
    assert (await hold(account(voice_ms=None), Capability.VOICE_SECONDS, 60_000)).amount == 60_000


async def test_a_call_that_nobody_pays_takes_nothing() -> None:
    assert await QUOTAS.capture(Hold(None, Capability.VOICE_SECONDS, 1000, "r1"), 1000) == 0


async def test_nothing_used_is_nothing_taken() -> None:
    assert await QUOTAS.capture(Hold(7, Capability.TOKENS, 1000, "r1"), 0) == 0
