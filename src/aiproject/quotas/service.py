"""Hold before a call, capture or release after it.

The balance is checked at the hold, against what was read when the caller was identified, and taken at the capture, in
one transaction; a capture takes exactly what upstream reported, which may be more than was held, and never more than
there is. A process that dies between the two has taken nothing.
"""

from __future__ import annotations

from aiproject.accounts import Account
from aiproject.adapters.database import Database, retry_transient
from aiproject.adapters.log import get_logger
from aiproject.errors import QuotaExhausted
from aiproject.quotas import store
from aiproject.quotas.model import Capability, Hold

__all__ = ["Quotas"]

log = get_logger("quotas")


class Quotas:
    """The quota engine."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def hold(self, account: Account, capability: Capability, amount: int, *, request_id: str) -> Hold:
        """Ask for the right to consume at most ``amount``, before anything is sent upstream.

        Args:
            account: as just identified; its balances are the ones that are looked at.
            amount: tokens, pictures or milliseconds. Tokens may exceed the balance: a small one gives a short answer,
                and the returned hold says how much it covers.

        Raises:
            QuotaExhausted: there is nothing left, or too little of what cannot be divided.

        Capture or release the hold exactly once.
        """
        available = {
            Capability.TOKENS: account.tokens,
            Capability.PIC_TIMES: account.pic_times,
            Capability.VOICE_SECONDS: account.voice_ms,
        }[capability]
        if available is not None:
            if available <= 0 or (available < amount and capability is not Capability.TOKENS):
                raise QuotaExhausted(capability)
            amount = min(amount, available)
        return Hold(account.account_id, capability, amount, request_id)

    async def capture(self, hold: Hold, amount: int) -> int:
        """Take what the call consumed; return how much was taken.

        Args:
            amount: tokens, pictures or milliseconds that upstream reported, at least 0.

        Raises:
            QuotaExhausted: a picture or a clip whose balance other calls have used up meanwhile; nothing was taken.
            Unavailable: the database is away; nothing was taken.
        """
        account_id = hold.account_id
        if account_id is None or amount == 0:
            return 0
        taken = await retry_transient(lambda: self._capture_once(account_id, hold.capability, amount))
        if taken < amount and hold.capability is Capability.TOKENS:
            log.warning(
                "the balance did not cover the call",
                account=hold.account_id,
                request_id=hold.request_id,
                used=amount,
                taken=taken,
            )
        return taken

    async def _capture_once(self, account_id: int, capability: Capability, amount: int) -> int:
        async with self._database.begin() as connection:
            if capability is Capability.TOKENS:
                return await store.take_at_most(connection, account_id, capability, amount)
            if capability is Capability.VOICE_SECONDS:
                await store.record_voice(connection, account_id, amount)
            if await store.take(connection, account_id, capability, amount):
                return amount
            if await store.balance(connection, account_id, capability) is None:
                return 0  # unmetered
            raise QuotaExhausted(capability)

    async def release(self, hold: Hold) -> None:
        """Give up a hold whose call failed: nothing is taken."""
        log.debug("hold released", account=hold.account_id, request_id=hold.request_id)

    async def grant(self, account: Account, *, tokens: int = 0, pic_times: int = 0, voice_seconds: int = 0) -> None:
        """Add to the balances in one transaction; negative numbers take away, never below zero."""

        async def once() -> None:
            async with self._database.begin() as connection:
                for capability, amount in (
                    (Capability.TOKENS, tokens),
                    (Capability.PIC_TIMES, pic_times),
                    (Capability.VOICE_SECONDS, voice_seconds * 1000),
                ):
                    if amount:
                        await store.add(connection, account.account_id, capability, amount)

        await retry_transient(once)
        log.info(
            "quota granted", account=account.account_id, tokens=tokens, pic_times=pic_times, voice_seconds=voice_seconds
        )
