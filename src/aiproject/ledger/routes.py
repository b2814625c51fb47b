"""``/v1/usage``: an account's entries, and the receipt of one call."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from aiproject.accounts.identity.authenticator import Authenticator
from aiproject.adapters.http.asgi import note
from aiproject.adapters.http.json import answer, answer_failure
from aiproject.adapters.http.timestamps import told_ms
from aiproject.codes import Code
from aiproject.errors import AiProjectError, InvalidInput
from aiproject.ledger.model import Entry, Kind, Meter
from aiproject.ledger.receipts import Receipt, Receipts, explain, rule_facts
from aiproject.protocols.legacy import success

__all__ = ["UsageRoutes"]

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
"""Entries of one page."""

INTERNAL_FACTS = frozenset({"sealed", "settled", "uuid_sha256"})
"""What rules keep for `aiproject ledger verify`; receipts say the same in members of their own."""

UNITS = {Meter.TOKENS: "token", Meter.PIC_TIMES: "picture", Meter.VOICE_SECONDS: "millisecond"}
"""What the amounts of a capability count; whole numbers, so that they add up on any machine."""


class UsageRoutes:
    """The two endpoints; `aiproject.web` mounts their methods. The headers ``uuid`` and ``username`` say who calls."""

    def __init__(self, authenticator: Authenticator, receipts: Receipts) -> None:
        self._authenticator = authenticator
        self._receipts = receipts

    async def entries(self, request: Request) -> Response:
        """List the account's entries, the newest first: ``limit`` of them, with numbers below ``before``."""
        try:
            limit = _number(request, "limit", most=MAX_LIMIT) or DEFAULT_LIMIT
            before = _number(request, "before", most=2**63 - 1)
            account = (await self._authenticator.of_headers(request.scope)).account
            # One more, to know whether there are more.
            found = await self._receipts.newest(account.account_id, limit=limit + 1, before=before)
        except AiProjectError as error:
            return answer_failure(request, error, Code.APP_QUERY_METHOD_ERROR)
        page = found[:limit]
        note(request.scope, outcome="ok", entries=len(page))
        return answer(
            success(
                "查询成功", entries=[_entry(entry) for entry in page], next=page[-1].seq if len(found) > limit else None
            )
        )

    async def receipt(self, request: Request) -> Response:
        """Explain one call of the account."""
        request_id = request.path_params["request_id"]
        try:
            account = (await self._authenticator.of_headers(request.scope)).account
            found = await self._receipts.of_call(account.account_id, request_id)
        except AiProjectError as error:
            return answer_failure(request, error, Code.APP_QUERY_METHOD_ERROR)
        note(request.scope, outcome="ok")
        return answer(success("查询成功", request_id=request_id, attempts=[_attempt(receipt) for receipt in found]))


def _number(request: Request, name: str, *, most: int) -> int | None:
    """Return a number of the query, 1 to ``most``; ``None``: it is not given.

    Raises:
        InvalidInput: it is something else.
    """
    text = request.query_params.get(name)
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 19 and 1 <= int(text) <= most:
        return int(text)
    raise InvalidInput(f"{name} 应为 1 到 {most} 的整数")


def _rule(rule: str) -> dict[str, Any]:
    """Return price and rule as the account's owner may know them."""
    return {name: fact for name, fact in rule_facts(rule).items() if name not in INTERNAL_FACTS}


def _entry(entry: Entry) -> dict[str, Any]:
    cause: dict[str, Any] = (
        {"request_id": entry.request_id, "attempt": entry.attempt}
        if entry.kind in (Kind.CHARGE, Kind.REFUND)
        else {"reference": entry.request_id}
    )
    return {
        "seq": entry.seq,
        "time": told_ms(entry.created_at),
        "kind": entry.kind,
        "capability": entry.capability,
        "unit": UNITS[entry.capability],
        "amount": entry.amount,
        "balance": entry.balance,
        **cause,
        "rule": _rule(entry.rule),
        "hash": entry.hash,
    }


def _attempt(receipt: Receipt) -> dict[str, Any]:
    return {
        "attempt": receipt.attempt,
        "capability": receipt.capability,
        "unit": UNITS[receipt.capability],
        "state": receipt.state,
        "stage": receipt.stage,
        "outcome": receipt.outcome,
        "held": receipt.held,
        "reported": receipt.reported,
        "charged": receipt.charged,
        "lost": receipt.lost,
        "unpaid": receipt.unpaid,
        "refunded": receipt.refunded,
        "explanation": explain(receipt)._asdict(),
        "sid": receipt.sid,
        "rule": _rule(receipt.rule),
        "opened_at": told_ms(receipt.opened_at),
        "closed_at": told_ms(receipt.closed_at),
    }
