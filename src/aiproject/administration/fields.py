"""The fields of bodies and queries, as the console and people's scripts write them."""

from __future__ import annotations

import string
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from starlette.requests import Request

from aiproject.adapters.http.json import read_fields
from aiproject.administration.model import Malformed, Role
from aiproject.administration.users import NewProfile
from aiproject.audit.model import AuditFilter
from aiproject.errors import InvalidInput

__all__ = [
    "audit_filter",
    "body_of",
    "flag",
    "number",
    "optional_text",
    "parsed",
    "profile",
    "required_text",
    "role",
    "units",
]

MAX_UNITS = 10**15
"""Tokens or pictures of a balance that is typed in: far over what anybody sells."""

MAX_FILTER_LENGTH = 200
"""Characters of one filter of the audit log."""


async def body_of(request: Request) -> Mapping[str, Any]:
    """Return the body's JSON object.

    Raises:
        Malformed: it is none.
        BodyTooLarge: see `read_fields`.
    """
    try:
        return await read_fields(request)
    except InvalidInput:
        raise Malformed from None


def parsed(value: object) -> Mapping[str, Any]:
    """Return an object within a body.

    Raises:
        Malformed: it is none.
    """
    if not isinstance(value, dict):
        raise Malformed
    return value


def required_text(fields: Mapping[str, Any], name: str) -> str:
    """Return a text that must be there and hold something.

    Raises:
        Malformed: it is missing, null, blank or no text.
    """
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Malformed
    return value


def optional_text(fields: Mapping[str, Any], name: str, *, must_be_there: bool = False) -> str | None:
    """Return a text that may be empty or null, without blanks around it; ``None`` where it is.

    Raises:
        Malformed: it is something else, or is not there at all and must be.
    """
    if must_be_there and name not in fields:
        raise Malformed
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Malformed
    return value.strip() or None


def units(fields: Mapping[str, Any], name: str, *, default: int | None = None) -> int:
    """Return a number of tokens or pictures; a text of digits is one, as forms send it.

    Raises:
        Malformed: it is missing without a default, negative, absurd or no whole number.
    """
    value = fields.get(name, default)
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) <= 16:
        value = int(value)
    if type(value) is not int or not 0 <= value <= MAX_UNITS:
        raise Malformed
    return value


def flag(value: object) -> bool:
    """Return a switch: 0 or 1, as number, text or boolean.

    Raises:
        Malformed: it is something else.
    """
    if value in (True, "1", "true"):
        return True
    if value in (False, "0", "false"):
        return False
    raise Malformed


def profile(fields: Mapping[str, Any], prefix: str) -> NewProfile:
    """Read what an account shall be. All six fields are required, as in the original; mail and academy may be empty."""
    password = fields.get(f"{prefix}password")
    if not isinstance(password, str):
        raise Malformed
    return NewProfile(
        username=required_text(fields, f"{prefix}username"),
        password=password,
        email=optional_text(fields, f"{prefix}email", must_be_there=True) or "",
        academy=optional_text(fields, f"{prefix}academy", must_be_there=True),
        tokens=units(fields, f"{prefix}tokens"),
        pic_times=units(fields, f"{prefix}pictimes"),
    )


def role(fields: Mapping[str, Any], name: str) -> Role | None:
    word = optional_text(fields, name)
    if word is None:
        return None
    try:
        return Role(word)
    except ValueError:
        raise Malformed from None


def number(query: Mapping[str, str], name: str, least: int, *, most: int, default: int | None = None) -> int:
    text = query.get(name)
    if text is None and default is not None:
        return default
    if not text or len(text) > 12 or not set(text) <= set(string.digits):
        raise Malformed
    number = int(text)
    if number < least:
        raise Malformed
    return min(number, most)


def audit_filter(query: Mapping[str, str]) -> AuditFilter:
    def text(name: str) -> str | None:
        value = query.get(name)
        if value is not None and ("\0" in value or len(value) > MAX_FILTER_LENGTH):
            raise Malformed
        return value

    return AuditFilter(
        actor=text("actor"),
        action=text("action"),
        target=text("target"),
        request_id=text("request_id"),
        since=_moment(query, "since"),
        until=_moment(query, "until"),
        before_seq=number(query, "before", 0, most=2**53) if "before" in query else None,
    )


def _moment(query: Mapping[str, str], name: str) -> int | None:
    """Read a moment: milliseconds since 1970, or as ISO 8601 with a zone."""
    text = query.get(name)
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise Malformed
        return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise Malformed from None
