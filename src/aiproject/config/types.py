"""The types of settings: what they accept, and the units that the reference displays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from aiproject.protocols.addresses import parse_network

__all__ = [
    "MAX_SIGNUP_UNITS",
    "HttpUrl",
    "Networks",
    "Origins",
    "RedisUrl",
    "Seconds",
    "Unit",
    "Unlimited",
    "Unmetered",
    "WebSocketUrl",
    "ZoneName",
]


def _url_of(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        try:
            parts = urlsplit(value)
            is_usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:  # its text may quote the URL
            is_usable = False
        if not is_usable:
            raise ValueError(f"must be a {' or '.join(s + '://' for s in schemes)} address with a host")
        if parts.username or parts.password or parts.fragment:
            raise ValueError("must not hold a user, a password or a fragment")
        return value

    return AfterValidator(check)


def _zone_name(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):  # not found; not the name of a zone; a folder of zones
        raise ValueError("is no time zone; it is named like Asia/Shanghai or UTC") from None
    return value


def _redis_url(value: SecretStr | None) -> SecretStr | None:
    if value is None or not value.get_secret_value():
        return None
    try:
        parts = urlsplit(value.get_secret_value())
        is_usable = bool(parts.path if parts.scheme == "unix" else parts.hostname) and parts.port != 0
    except ValueError:  # its text may quote the password
        is_usable = False
    if not is_usable or parts.scheme not in ("redis", "rediss", "valkey", "valkeys", "unix"):
        raise ValueError("must be a redis://, rediss://, valkey://, valkeys:// or unix:// address")
    return value


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        try:
            parse_network(text)
        except ValueError:
            raise ValueError(f"{text!r} is neither an address nor a network such as 10.0.0.0/8") from None
    return value


def _split_list(value: object) -> object:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return value


def _unlimited(value: object) -> object:
    return None if value == "unlimited" else value


def _unmetered(value: object) -> object:
    return None if value == "unmetered" else value


MAX_SIGNUP_UNITS = 10**15
"""The largest sign-up quota, as large as one grant may be. A balance can hold nine of them (2^53 - 1)."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of a setting's number, for the generated reference."""

    name: str


Seconds = Annotated[float, Field(gt=0, le=86_400), Unit("seconds")]
WebSocketUrl = Annotated[str, _url_of("ws", "wss")]
HttpUrl = Annotated[str, _url_of("http", "https")]
ZoneName = Annotated[str, AfterValidator(_zone_name)]
RedisUrl = Annotated[SecretStr | None, AfterValidator(_redis_url)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list)]
Networks = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_list), AfterValidator(_networks)]
Unlimited = BeforeValidator(_unlimited)
"""Converts the word ``unlimited`` to ``None``."""
Unmetered = BeforeValidator(_unmetered)
"""Converts the word ``unmetered`` to ``None``."""
