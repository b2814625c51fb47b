"""``/v1/usage``: an account's entries, and the receipt of one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from aiproject.accounts.identity.authenticator import Authenticator
from aiproject.accounts.routes.operations import caller
from aiproject.adapters.http.asgi import note
from aiproject.adapters.http.errors import error_response
from aiproject.adapters.http.fields import read_fields_as, reads
from aiproject.adapters.http.operation import Answer, Operation, succeed
from aiproject.adapters.http.timestamps import Timestamp, format_milliseconds
from aiproject.codes import Code, Success
from aiproject.errors import AiProjectError
from aiproject.ledger.model import Entry, HoldState, Kind, Meter, Outcome, Stage
from aiproject.ledger.receipts import Receipt, Receipts, explain, rule_facts

__all__ = ["ENTRIES", "OPERATIONS", "SHOW", "UsageRoutes"]

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
"""Entries of one page."""

INTERNAL_FACTS = frozenset({"sealed", "settled", "uuid_sha256"})
"""What rules keep for `aiproject ledger verify`; receipts say the same in members of their own."""

MAX_SEQUENCE = 2**63 - 1
"""The largest number of an entry that a column holds."""


def read_digits(text: Any) -> int:
    """Read a whole number of a query, without a sign.

    Raises:
        ValueError: it is none, or has more than 19 digits.
    """
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 19:
        raise ValueError("no number")
    return int(text)


if TYPE_CHECKING:
    Unit = str
else:
    # The words are those of the table of meters, so that a new meter is named once.
    Unit = Literal[tuple(meter.spec.unit for meter in Meter)]

MeterField = Annotated[Meter, Meta(description="消耗的能力")]
UnitField = Annotated[Unit, Meta(description="数量的单位")]
RuleField = Annotated[dict[str, Any], Meta(description="当时的计费规则及其依据")]


class UsageQuery(Struct, kw_only=True):
    """Which entries are wanted."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="条数", examples=[20]), reads(read_digits)] = (
        DEFAULT_LIMIT
    )
    before: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_SEQUENCE)] | None,
        Meta(description="只要编号更小的；取上一页的 next", examples=[21]),
        reads(read_digits),
    ] = None


class UsageEntry(Struct, kw_only=True):
    """A change of a balance."""

    seq: Annotated[int, Meta(description="账户内从 1 起连续编号", examples=[2])]
    time: Annotated[Timestamp, Meta(description="记账的时间")]
    kind: Annotated[Kind, Meta(description="变动的来由")]
    capability: MeterField
    unit: UnitField
    amount: Annotated[int, Meta(description="余额的变化；负数为扣费", examples=[-14])]
    balance: Annotated[int | None, Meta(description="变化后的余额；null 为不计量", examples=[9986])]
    request_id: Annotated[str, Meta(description="扣费的调用（应答头 X-Request-Id）")] | UnsetType = UNSET
    attempt: Annotated[int, Meta(description="该调用的第几次尝试", examples=[1])] | UnsetType = UNSET
    reference: Annotated[str, Meta(description="其它变动的来由", examples=["signup"])] | UnsetType = UNSET
    rule: RuleField
    hash: Annotated[str, Meta(description="本条与上一条的 SHA-256 链")]


class UsagePage(Struct, kw_only=True):
    """Entries of an account, the newest first."""

    entries: list[UsageEntry]
    next: Annotated[int | None, Meta(description="下一页的 before；null 为没有更早的")]


class Explanation(Struct, kw_only=True):
    """Why a call costs what it costs."""

    zh: Annotated[str, Meta(description="中文")]
    en: Annotated[str, Meta(description="English")]


class UsageAttempt(Struct, kw_only=True):
    """One try of a call, and what it cost."""

    attempt: Annotated[int, Meta(description="第几次尝试", examples=[1])]
    capability: MeterField
    unit: UnitField
    state: Annotated[HoldState, Meta(description="预留的状态")]
    stage: Annotated[Stage, Meta(description="调用进行到哪一步")]
    outcome: Annotated[Outcome | None, Meta(description="调用如何结束；null 为仍在进行")]
    held: Annotated[int, Meta(description="调用前预留的数量", examples=[4101])]
    reported: Annotated[int | None, Meta(description="平台报告的用量", examples=[14])]
    charged: Annotated[int | None, Meta(description="扣除的数量；null 为仍在进行", examples=[14])]
    lost: Annotated[int, Meta(description="平台可能计费而未扣除、由运营方承担的数量", examples=[0])]
    unpaid: Annotated[int, Meta(description="其中计入当日免付用量的数量", examples=[0])]
    refunded: Annotated[int, Meta(description="之后退还的数量", examples=[0])]
    explanation: Explanation
    sid: Annotated[str | None, Meta(description="平台的会话号")]
    rule: RuleField
    opened_at: Annotated[Timestamp, Meta(description="预留的时间")]
    closed_at: Annotated[Timestamp | None, Meta(description="结算的时间；null 为仍在进行")]


class UsageReceipt(Struct, kw_only=True):
    """What a call cost, and why."""

    request_id: Annotated[str, Meta(description="调用的 X-Request-Id")]
    attempts: list[UsageAttempt]


CALL = "5f0c3d9a7b1e4c2d8f6a0b3e"
RULE = {"completion_limit": 4096, "prompt_estimate": 5, "rule": 1}
PAGE = UsagePage(
    entries=[
        UsageEntry(
            seq=2,
            time="2026-05-01T08:30:00.123Z",
            kind=Kind.CHARGE,
            capability=Meter.TOKENS,
            unit="token",
            amount=-14,
            balance=9986,
            request_id=CALL,
            attempt=1,
            rule=RULE,
            hash="9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab",
        ),
        UsageEntry(
            seq=1,
            time="2026-05-01T08:00:00.000Z",
            kind=Kind.SIGNUP,
            capability=Meter.TOKENS,
            unit="token",
            amount=10000,
            balance=10000,
            reference="signup",
            rule={},
            hash="4e07408562bedb8b60ce05c1decfe3ad16b72230967de01f640b7e4729b49fce",
        ),
    ],
    next=None,
)
RECEIPT = UsageReceipt(
    request_id=CALL,
    attempts=[
        UsageAttempt(
            attempt=1,
            capability=Meter.TOKENS,
            unit="token",
            state=HoldState.CAPTURED,
            stage=Stage.LAST_FRAME,
            outcome=Outcome.FINISHED,
            held=4101,
            reported=14,
            charged=14,
            lost=0,
            unpaid=0,
            refunded=0,
            explanation=Explanation(
                zh="调用已完成。按平台报告的用量扣除 14 个 token。",
                en="The call was finished. Charged 14 tokens, as the platform reported.",
            ),
            sid="cht000cb087@dx18793cd421fb894542",
            rule=RULE,
            opened_at="2026-05-01T08:29:58.020Z",
            closed_at="2026-05-01T08:30:00.123Z",
        )
    ],
)

ENTRIES = Operation(
    name="usage",
    method="GET",
    path="/v1/usage",
    summary="账目，从新到旧",
    tag="用户",
    access=caller(in_headers=True, spends=False),
    query=UsageQuery,
    answers=(Answer(message=Success.FOUND, body=PAGE),),
    failures={200: (Code.USER_NOT_FOUND, Code.APP_QUERY_METHOD_ERROR)},
)
SHOW = Operation(
    name="receipt",
    method="GET",
    path="/v1/usage/{request_id}",
    summary="一次调用为何扣费",
    tag="用户",
    path_parameters={"request_id": "调用的 X-Request-Id"},
    access=caller(in_headers=True, spends=False),
    answers=(Answer(message=Success.FOUND, body=RECEIPT),),
    failures={200: (Code.USER_NOT_FOUND,), 404: (Code.RECEIPT_NOT_FOUND,)},
)

OPERATIONS = (ENTRIES, SHOW)
"""For the description, see `aiproject.web.openapi`."""


class UsageRoutes:
    """The two endpoints; `aiproject.web` mounts their methods. The headers ``uuid`` and ``username`` say who calls."""

    def __init__(self, authenticator: Authenticator, receipts: Receipts) -> None:
        self._authenticator = authenticator
        self._receipts = receipts

    async def entries(self, request: Request) -> Response:
        """List the account's entries, the newest first: ``limit`` of them, with numbers below ``before``."""
        try:
            wanted = read_fields_as(UsageQuery, request.query_params)
            account = (await self._authenticator.of_headers(request.scope)).account
            # One more, to know whether there are more.
            found = await self._receipts.newest(account.account_id, limit=wanted.limit + 1, before=wanted.before)
        except AiProjectError as error:
            return error_response(request, error)
        page = found[: wanted.limit]
        note(request.scope, outcome="ok", entries=len(page))
        usage = UsagePage(
            entries=[_entry(entry) for entry in page], next=page[-1].seq if len(found) > wanted.limit else None
        )
        return succeed(request, Success.FOUND, usage)

    async def receipt(self, request: Request) -> Response:
        """Explain one call of the account."""
        request_id = request.path_params["request_id"]
        try:
            account = (await self._authenticator.of_headers(request.scope)).account
            found = await self._receipts.of_call(account.account_id, request_id)
        except AiProjectError as error:
            return error_response(request, error)
        note(request.scope, outcome="ok")
        receipt = UsageReceipt(request_id=request_id, attempts=[_attempt(each) for each in found])
        return succeed(request, Success.FOUND, receipt)


def _rule(rule: str) -> dict[str, Any]:
    """Return price and rule as the account's owner may know them."""
    return {name: fact for name, fact in rule_facts(rule).items() if name not in INTERNAL_FACTS}


def _entry(entry: Entry) -> UsageEntry:
    is_of_call = entry.kind in (Kind.CHARGE, Kind.REFUND)
    return UsageEntry(
        seq=entry.seq,
        time=format_milliseconds(entry.created_at),
        kind=entry.kind,
        capability=entry.capability,
        unit=entry.capability.spec.unit,
        amount=entry.amount,
        balance=entry.balance,
        request_id=entry.request_id if is_of_call else UNSET,
        attempt=entry.attempt if is_of_call else UNSET,
        reference=UNSET if is_of_call else entry.request_id,
        rule=_rule(entry.rule),
        hash=entry.hash,
    )


def _attempt(receipt: Receipt) -> UsageAttempt:
    words = explain(receipt)
    return UsageAttempt(
        attempt=receipt.attempt,
        capability=receipt.capability,
        unit=receipt.capability.spec.unit,
        state=receipt.state,
        stage=receipt.stage,
        outcome=receipt.outcome,
        held=receipt.held,
        reported=receipt.reported,
        charged=receipt.charged,
        lost=receipt.lost,
        unpaid=receipt.unpaid,
        refunded=receipt.refunded,
        explanation=Explanation(zh=words.zh, en=words.en),
        sid=receipt.sid,
        rule=_rule(receipt.rule),
        opened_at=format_milliseconds(receipt.opened_at),
        closed_at=format_milliseconds(receipt.closed_at),
    )
