"""API keys as ``/v1`` reads and shows them; no I/O."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, defstruct, structs

from aiproject.accounts.api_keys.model import MAX_NAME_LENGTH, KeyTerms, SpendCap, SpendLimit, StoredKey, networks_of
from aiproject.accounts.routes.field_types import Confirmation
from aiproject.adapters.http.fields import document, reads
from aiproject.adapters.http.timestamps import Timestamp, format_timestamp, read_timestamp
from aiproject.meters import MAX_UNITS, Meter

__all__ = [
    "LIMIT_NAMES",
    "ApiKeyView",
    "KeyFields",
    "KeyName",
    "LimitView",
    "LimitsView",
    "caps_of",
    "day_of",
    "shown",
    "terms_with",
]

LIMIT_NAMES = {meter.spec.field: meter for meter in Meter}
"""The members of ``limits``, by the unit that they count."""

MAX_ITEMS = 100
"""Items of a list; far over what anybody restricts a key to."""

KeyName = Annotated[
    str, Meta(description="密钥的名称", examples=["笔记本"]), document(minLength=1, maxLength=MAX_NAME_LENGTH)
]
Amount = Annotated[int, document(minimum=0, maximum=MAX_UNITS)]
Rate = Annotated[int, document(minimum=1)]
Texts = Annotated[list[str], Meta(max_length=MAX_ITEMS)]
Meters = Annotated[list[Meter], Meta(max_length=MAX_ITEMS)]

REQUESTS = Meta(description="每分钟请求数上限；null 为不限", examples=[60])
CONCURRENCY = Meta(description="同时进行的调用数上限；null 为不限", examples=[4])
TOKENS = Meta(description="每分钟 token 数上限；null 为不限", examples=[20_000])
CAPABILITIES = Meta(description="可使用的能力；null 为不限", examples=[["tokens"]])
MODELS = Meta(description="可使用的文本模型；null 为不限", examples=[["generalv3.5"]])
ADDRESSES = Meta(description="允许使用该密钥的 IP 地址或网段；null 为不限", examples=[["192.0.2.0/24"]])


class CapFields(Struct, kw_only=True, forbid_unknown_fields=True):
    """What a key may spend of a meter, in its unit; both are set anew."""

    total: Annotated[Amount | None, Meta(description="总额；null 或缺少为不限", examples=[100_000])] = None
    daily: Annotated[Amount | None, Meta(description="每日上限；null 或缺少为不限", examples=[10_000])] = None


class LimitView(Struct, kw_only=True):
    """What a key may spend of a meter, and has spent, in the meter's unit."""

    total: Annotated[Amount | None, Meta(description="总额；null 为不限")]
    daily: Annotated[Amount | None, Meta(description="每日上限；null 为不限")]
    spent: Annotated[int, Meta(description="已花费")]
    held: Annotated[int, Meta(description="进行中的调用所预留的数量")]
    spent_today: Annotated[int, Meta(description="今日已花费")]


if TYPE_CHECKING:
    # Their fields are those of `LIMIT_NAMES`, so that a new meter is named once.
    LimitFields = Struct
    LimitsView = Struct
else:
    LimitFields = defstruct(
        "LimitFields",
        [(name, CapFields | UnsetType, UNSET) for name in LIMIT_NAMES],
        kw_only=True,
        forbid_unknown_fields=True,
        module=__name__,
        namespace={"__doc__": "What a key may spend, by meter: tokens, pictures, milliseconds."},
    )
    LimitsView = defstruct(
        "LimitsView",
        [(name, LimitView) for name in LIMIT_NAMES],
        kw_only=True,
        module=__name__,
        namespace={"__doc__": "What a key may spend and has spent, by meter: tokens, pictures, milliseconds."},
    )


class KeyFields(Confirmation, kw_only=True, forbid_unknown_fields=True):
    """What a body says of a key: the fields that are there. ``null`` lifts a restriction.

    Other fields are refused, since a misspelt limit must not look like one.
    """

    name: KeyName | UnsetType = UNSET
    expires_at: (
        Annotated[
            datetime | None,
            reads(read_timestamp),
            Meta(description="过期时间，带时区；null 为永不过期", examples=["2026-12-31T23:59:59+08:00"]),
        ]
        | UnsetType
    ) = UNSET
    requests_per_minute: Annotated[Rate | None, REQUESTS] | UnsetType = UNSET
    concurrent_calls: Annotated[Rate | None, CONCURRENCY] | UnsetType = UNSET
    tokens_per_minute: Annotated[Rate | None, TOKENS] | UnsetType = UNSET
    capabilities: Annotated[Meters | None, CAPABILITIES] | UnsetType = UNSET
    models: Annotated[Texts | None, MODELS] | UnsetType = UNSET
    addresses: Annotated[Texts | None, ADDRESSES] | UnsetType = UNSET
    limits: Annotated[LimitFields | None, Meta(description="可花费的额度，按能力；语音以毫秒计")] | UnsetType = UNSET


class ApiKeyView(Struct, kw_only=True):
    """A key as its owner sees it; never its secret."""

    id: Annotated[str, Meta(description="密钥的公开前缀，不是凭证", examples=["sk-ab12cd34ef"])]
    name: KeyName
    created_at: Annotated[Timestamp, Meta(description="创建的时间")]
    expires_at: Annotated[Timestamp | None, Meta(description="过期时间；null 为永不过期")]
    revoked_at: Annotated[Timestamp | None, Meta(description="吊销的时间；null 为未吊销")]
    last_used_at: Annotated[Timestamp | None, Meta(description="最近一次使用，精确到分钟；null 为从未使用")]
    last_used_address: Annotated[str | None, Meta(description="最近一次使用的 IP 地址")]
    requests_per_minute: Annotated[Rate | None, REQUESTS]
    concurrent_calls: Annotated[Rate | None, CONCURRENCY]
    tokens_per_minute: Annotated[Rate | None, TOKENS]
    capabilities: Annotated[list[Meter] | None, CAPABILITIES]
    models: Annotated[list[str] | None, MODELS]
    addresses: Annotated[list[str] | None, ADDRESSES]
    limits: LimitsView


def terms_with(terms: KeyTerms, fields: KeyFields) -> KeyTerms:
    """Return the terms with what a body says of them.

    Raises:
        InvalidInput: an address is none.
    """
    changes: dict[str, Any] = {
        name: value
        for name in ("name", "expires_at", "requests_per_minute", "concurrent_calls", "tokens_per_minute")
        if (value := getattr(fields, name)) is not UNSET
    }
    if fields.capabilities is not UNSET:
        changes["capabilities"] = None if fields.capabilities is None else frozenset(fields.capabilities)
    if fields.models is not UNSET:
        changes["models"] = None if fields.models is None else frozenset(fields.models)
    if fields.addresses is not UNSET:
        changes["addresses"] = None if fields.addresses is None else networks_of(fields.addresses)
    return replace(terms, **changes)


def caps_of(fields: KeyFields) -> dict[Meter, SpendCap]:
    """Return what ``limits`` says: of each meter that it names, ``total`` and ``daily`` anew."""
    if fields.limits is UNSET or fields.limits is None:
        return {}
    caps: dict[str, CapFields | UnsetType] = structs.asdict(fields.limits)
    return {LIMIT_NAMES[name]: SpendCap(cap.total, cap.daily) for name, cap in caps.items() if cap is not UNSET}


def shown(stored: StoredKey, *, today: int) -> ApiKeyView:
    """Return a key as its owner sees it.

    Args:
        today: the day that daily caps count, as YYYYMMDD.
    """
    key, terms = stored.key, stored.key.terms
    return ApiKeyView(
        id=key.prefix,
        name=terms.name,
        created_at=format_timestamp(key.created_at),
        expires_at=format_timestamp(terms.expires_at),
        revoked_at=format_timestamp(key.revoked_at),
        last_used_at=format_timestamp(key.last_used_at),
        last_used_address=key.last_used_address,
        requests_per_minute=terms.requests_per_minute,
        concurrent_calls=terms.concurrent_calls,
        tokens_per_minute=terms.tokens_per_minute,
        capabilities=None if terms.capabilities is None else sorted(terms.capabilities, key=str),
        models=None if terms.models is None else sorted(terms.models),
        addresses=None if terms.addresses is None else [str(network) for network in terms.addresses],
        limits=LimitsView(**{name: _limit(stored.limits[meter], today) for name, meter in LIMIT_NAMES.items()}),
    )


def _limit(limit: SpendLimit, today: int) -> LimitView:
    return LimitView(
        total=limit.total,
        daily=limit.daily,
        spent=limit.spent,
        held=limit.held,
        spent_today=limit.day_spent if limit.day == today else 0,
    )


def day_of(moment: datetime) -> int:
    """Return a moment's day as YYYYMMDD."""
    return moment.year * 10_000 + moment.month * 100 + moment.day
