"""What an account may see of the ledger: its entries, and the receipt of a call in plain words. Only reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiproject.adapters.db.engine import Database
from aiproject.errors import ReceiptUnknown
from aiproject.ledger import receipt_store as store
from aiproject.ledger.model import Entry, HoldState, Meter, Outcome, Stage, rule_facts
from aiproject.ledger.rules import CHARGES, RULE_VERSION, Basis
from aiproject.meters import Words

__all__ = ["Receipt", "Receipts", "explain", "rule_facts"]

MAX_REQUEST_ID_LENGTH = 64

PAGE = 1000
"""Entries read in one go when all are wanted."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one try of a call. Amounts are tokens, pictures or milliseconds; moments, milliseconds since 1970.

    Attributes:
        held: what was set aside before it.
        reported: what upstream said was consumed; ``None``: it said nothing, or the call still runs.
        charged: what was taken; ``None``: the call still runs.
        lost: what upstream may bill beyond that, which is the operator's.
        unpaid: the part of it that counts against the day's bound of unpaid usage.
        refunded: what of the charge was given back.
        outcome: how it ended; ``None``: it still runs.
        sid: the vendor's session id, by which its support finds the call.
        rule: price and rule as they were then: JSON.
    """

    request_id: str
    attempt: int
    capability: Meter
    held: int
    state: HoldState
    stage: Stage
    outcome: Outcome | None
    reported: int | None
    charged: int | None
    lost: int
    unpaid: int
    refunded: int
    sid: str | None
    rule: str
    opened_at: int
    closed_at: int | None


class Receipts:
    """Reads entries and receipts of one account at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, account_id: int, *, limit: int, before: int | None = None) -> list[Entry]:
        """Return the account's newest entries, the newest first.

        Args:
            before: only those with a smaller number.
        """
        async with self._database.connect() as connection:
            return await store.newest_entries(connection, account_id, limit=limit, before=before)

    async def all(self, account_id: int) -> AsyncIterator[Entry]:
        """Yield the account's entries, the oldest first, a page at a time: they only ever grow at the end."""
        after = 0
        while True:
            async with self._database.connect() as connection:
                page = await store.entries_after(connection, account_id, after, limit=PAGE)
            for entry in page:
                yield entry
            if len(page) < PAGE:
                return
            after = page[-1].seq

    async def of_call(self, account_id: int, request_id: str) -> list[Receipt]:
        """Return the receipts of one call, one for each try that held something.

        Raises:
            ReceiptUnknown: the account has no such call; nobody learns whether another has.
        """
        if not request_id.isascii() or not request_id.isprintable() or len(request_id) > MAX_REQUEST_ID_LENGTH:
            raise ReceiptUnknown
        async with self._database.connect() as connection:
            rows = await store.holds_of_call(connection, account_id, request_id)
            if not rows:
                raise ReceiptUnknown
            refunds = await store.refunds_of_call(connection, account_id, request_id)
        return [_receipt(row, refunds.get(row.attempt, 0)) for row in rows]


def _receipt(row: Any, refunded: int) -> Receipt:
    return Receipt(
        request_id=row.request_id,
        attempt=row.attempt,
        capability=Meter(row.capability),
        held=row.amount,
        state=HoldState(row.state),
        stage=Stage(row.stage),
        outcome=None if row.outcome is None else Outcome(row.outcome),
        reported=row.reported,
        charged=row.charged,
        lost=row.lost or 0,
        unpaid=row.unpaid or 0,
        refunded=refunded,
        sid=row.sid,
        rule=row.rule,
        opened_at=row.opened_at,
        closed_at=row.closed_at,
    )


# -- words -------------------------------------------------------------------------------------------------------------

ENDINGS = {
    Outcome.FINISHED: Words("调用已完成。", "The call was finished."),
    Outcome.UPSTREAM_FAILED: Words("模型平台出错，调用失败。", "The platform failed."),
    Outcome.MODERATED: Words("平台的内容审核中止了回答。", "The platform's moderation stopped the answer."),
    Outcome.TRUNCATED: Words("与平台的连接中断，回答不完整。", "The connection to the platform broke off."),
    Outcome.TIMED_OUT: Words("平台响应超时。", "The platform took too long."),
    Outcome.CLIENT_GONE: Words("客户端在回答结束前断开了连接。", "The client hung up before the answer ended."),
    Outcome.SERVER_STOPPED: Words("服务器停机，调用中止。", "The server was stopped during the call."),
    Outcome.SERVER_FAILED: Words("服务器内部错误，调用失败。", "The server failed."),
    Outcome.SERVER_KILLED: Words("服务器进程意外终止，调用中止。", "The server's process died during the call."),
}


def explain(receipt: Receipt) -> Words:
    """Say how a call ended and why it costs what it costs."""
    held = receipt.capability.in_words(receipt.held)
    if receipt.outcome is None or receipt.charged is None:
        return Words(f"调用仍在进行，已预留{held.zh}。", f"The call is still running; {held.en} set aside for it.")
    ending = ENDINGS[receipt.outcome]
    if not receipt.charged and (not receipt.lost or receipt.state is HoldState.RELEASED):
        free = Words(
            f"{ending.zh}没有扣费，预留额度已全部退回（{held.zh.strip()}）。",
            f"{ending.en} Nothing was charged; what was set aside ({held.en}) is free again.",
        )
        return Words(*map("".join, zip(free, _unpaid(receipt), strict=True)))
    charged = receipt.capability.in_words(receipt.charged)
    why = _basis(receipt)
    words = Words(f"{ending.zh}{why.zh}扣除{charged.zh}。", f"{ending.en} Charged {charged.en}{why.en}.")
    if receipt.lost:
        lost = receipt.capability.in_words(receipt.lost)
        words = Words(
            f"{words.zh}实际用量还多出{lost.zh}，由运营方承担。",
            f"{words.en} It consumed {lost.en} more, which the operator bears.",
        )
    words = Words(*map("".join, zip(words, _unpaid(receipt), strict=True)))
    if receipt.refunded:
        refunded = receipt.capability.in_words(receipt.refunded)
        words = Words(f"{words.zh}之后已退还{refunded.zh}。", f"{words.en} Later {refunded.en} given back.")
    return words


def _unpaid(receipt: Receipt) -> Words:
    """What of the call counts against the day's bound."""
    if not receipt.unpaid:
        return Words("", "")
    unpaid = receipt.capability.in_words(receipt.unpaid)
    return Words(
        f"其中{unpaid.zh}计入当日免付用量。",
        f" {unpaid.en[:1].upper()}{unpaid.en[1:]} count against the day's bound of unpaid usage.",
    )


def _basis(receipt: Receipt) -> Words:
    """What the charge was taken from, where this release's table says so."""
    if rule_facts(receipt.rule).get("rule") != RULE_VERSION or receipt.outcome is None:
        return Words("", "")
    basis = CHARGES[receipt.outcome][receipt.stage]
    if basis is Basis.NOTHING:
        return Words("", "")
    if receipt.capability.spec.basis is not None:
        return receipt.capability.spec.basis
    if basis is Basis.REPORTED and receipt.reported is not None:
        return Words("按平台报告的用量", ", as the platform reported")
    if basis is Basis.BOUNDED:
        return Words(
            "当日免付用量已用完，超出部分按提问和已收到的内容估算，",
            ", our estimate of the prompt and of what was passed on, beyond the day's bound of unpaid usage",
        )
    if receipt.outcome is Outcome.CLIENT_GONE:
        return Words(
            "按提问和断开前已生成的内容估算，", ", our estimate of the prompt and of what had been generated by then"
        )
    return Words("平台未报告用量，按我们的估算", ", by our estimate, since the platform reported nothing")
