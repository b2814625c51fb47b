"""API keys as ``/v1`` reads and shows them; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from aiproject.accounts.api_keys.model import KeyTerms, SpendCap, SpendLimit, StoredKey, networks_of
from aiproject.accounts.core.meter import Meter
from aiproject.adapters.http.json import text_field
from aiproject.adapters.http.timestamps import read_moment, told
from aiproject.errors import InvalidInput

__all__ = ["LIMIT_NAMES", "caps_of", "day_of", "shown", "terms_with"]

LIMIT_NAMES = {"tokens": Meter.TOKENS, "pic_times": Meter.PIC_TIMES, "voice_ms": Meter.VOICE_SECONDS}
"""The members of ``limits``, by the unit that they count."""

NUMBERS = ("requests_per_minute", "concurrent_calls", "tokens_per_minute")
LISTS = ("capabilities", "models", "addresses")
FIELDS = frozenset({"name", "expires_at", *NUMBERS, *LISTS, "limits", "password"})

MAX_ITEMS = 100


def terms_with(terms: KeyTerms, fields: Mapping[str, Any]) -> KeyTerms:
    """Return the terms with what a body says of them; ``null`` lifts a restriction.

    Raises:
        InvalidInput: a field is unknown (a misspelt limit must not look like one) or of another type.
    """
    if fields.keys() - FIELDS:  # not quoted: it may be anything that was pasted
        raise InvalidInput(f"含有未知字段，可用的有 {'、'.join(sorted(FIELDS))}")
    changes: dict[str, Any] = {}
    if "name" in fields:
        changes["name"] = text_field(fields, "name")
    if "expires_at" in fields:
        is_never = fields["expires_at"] is None
        changes["expires_at"] = None if is_never else read_moment(text_field(fields, "expires_at"), "expires_at")
    changes |= {name: _number(fields[name], name) for name in NUMBERS if name in fields}
    lists = {name: _texts(fields[name], name) for name in LISTS if name in fields}
    if "capabilities" in lists:
        changes["capabilities"] = _capabilities(lists["capabilities"])
    if "models" in lists:
        changes["models"] = None if lists["models"] is None else frozenset(lists["models"])
    if "addresses" in lists:
        changes["addresses"] = None if lists["addresses"] is None else networks_of(lists["addresses"])
    return replace(terms, **changes)


def caps_of(fields: Mapping[str, Any]) -> dict[Meter, SpendCap]:
    """Return what ``limits`` says: of each unit that it names, ``total`` and ``daily`` anew.

    Raises:
        InvalidInput: it is something else.
    """
    limits = fields.get("limits")
    if limits is None:
        return {}
    if not isinstance(limits, dict) or limits.keys() - LIMIT_NAMES.keys():
        raise InvalidInput(f"limits 应为对象，可含 {'、'.join(LIMIT_NAMES)}")
    caps = {}
    for name, cap in limits.items():
        if not isinstance(cap, dict) or cap.keys() - {"total", "daily"}:
            raise InvalidInput(f"limits.{name} 应为对象，可含 total 和 daily")
        caps[LIMIT_NAMES[name]] = SpendCap(
            _number(cap.get("total"), f"limits.{name}.total"), _number(cap.get("daily"), f"limits.{name}.daily")
        )
    return caps


def shown(stored: StoredKey, *, today: int) -> dict[str, Any]:
    """Return a key as its owner sees it.

    Args:
        today: the day that daily caps count, as YYYYMMDD.
    """
    key, terms = stored.key, stored.key.terms
    return {
        "id": key.prefix,
        "name": terms.name,
        "created_at": told(key.created_at),
        "expires_at": told(terms.expires_at),
        "revoked_at": told(key.revoked_at),
        "last_used_at": told(key.last_used_at),
        "last_used_address": key.last_used_address,
        "requests_per_minute": terms.requests_per_minute,
        "concurrent_calls": terms.concurrent_calls,
        "tokens_per_minute": terms.tokens_per_minute,
        "capabilities": None if terms.capabilities is None else sorted(map(str, terms.capabilities)),
        "models": None if terms.models is None else sorted(terms.models),
        "addresses": None if terms.addresses is None else [str(network) for network in terms.addresses],
        "limits": {name: _limit(stored.limits[capability], today) for name, capability in LIMIT_NAMES.items()},
    }


def _limit(limit: SpendLimit, today: int) -> dict[str, int | None]:
    return {
        "total": limit.total,
        "daily": limit.daily,
        "spent": limit.spent,
        "held": limit.held,
        "spent_today": limit.day_spent if limit.day == today else 0,
    }


def _number(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput(f"{name} 应为整数")
    return value


def _texts(value: Any, name: str) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MAX_ITEMS or not all(isinstance(item, str) for item in value):
        raise InvalidInput(f"{name} 应为字符串数组，最多 {MAX_ITEMS} 项")
    return value


def _capabilities(words: list[str] | None) -> frozenset[Meter] | None:
    try:
        return None if words is None else frozenset(map(Meter, words))
    except ValueError:
        raise InvalidInput(f"capabilities 只能是 {'、'.join(Meter)}") from None


def day_of(moment: datetime) -> int:
    """Return a moment's day as YYYYMMDD."""
    return moment.year * 10_000 + moment.month * 100 + moment.day
