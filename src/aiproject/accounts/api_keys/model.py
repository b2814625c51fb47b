"""API keys and their rules, without I/O.

A key consists of ``sk-``, ten characters that identify it in public, thirty-two secret ones, and seven of checksum::

    sk-7m2k9x4q1b  c8v3…(32)…h5td  0w3nfz5
    prefix         secret          checksum

All characters are Crockford's base 32 in lower case, five bits each: the secret has 160 bits from the system's random
generator. The checksum is the CRC-32 of everything before it. It detects a truncated or mistyped key without a database
query, and lets source code scanners find leaked keys.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from aiproject.codes import Detail, Term
from aiproject.errors import InvalidInput
from aiproject.meters import MAX_UNITS, Meter

__all__ = [
    "MAX_KEYS",
    "MAX_NAME_LENGTH",
    "PREFIX_LENGTH",
    "ApiKey",
    "KeyTerms",
    "Network",
    "NewKey",
    "SpendCap",
    "SpendLimit",
    "StoredKey",
    "check_caps",
    "check_terms",
    "draw_key",
    "hash_of",
    "networks_of",
    "prefix_of",
]

MAX_KEYS = 100
"""Maximum number of keys of one account that are not revoked."""

MAX_NAME_LENGTH = 100
MAX_WORDS_LENGTH = 1000
"""Maximum characters of all models, or of all networks, that a key is restricted to; the width of their columns."""

MAX_RATE = 1_000_000
"""Highest value of a limit: requests in a minute, or calls at once."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_MARK = "sk-"
_PUBLIC, _SECRET, CHECKSUM_LENGTH = 10, 32, 7

PREFIX_LENGTH = len(_MARK) + _PUBLIC

_SHAPE = re.compile(rf"{_MARK}[{_ALPHABET}]{{{_PUBLIC + _SECRET + CHECKSUM_LENGTH}}}")
_MODEL = re.compile(r"[A-Za-z0-9._:/-]{1,64}")

Network = IPv4Network | IPv6Network


# -- the text of a key -------------------------------------------------------------------------------------------------


def draw_key() -> str:
    """Return the text of a new key."""
    body = _MARK + "".join(secrets.choice(_ALPHABET) for _ in range(_PUBLIC + _SECRET))
    return with_checksum(body)


def with_checksum(body: str) -> str:
    """Return the text of the key whose prefix and secret are ``body``."""
    return body + _checksum(body)


def prefix_of(text: str) -> str | None:
    """Return the public part of a presented key; ``None``: the text cannot be a key."""
    if _SHAPE.fullmatch(text) is None or text[-CHECKSUM_LENGTH:] != _checksum(text[:-CHECKSUM_LENGTH]):
        return None
    return text[:PREFIX_LENGTH]


def hash_of(text: str) -> str:
    """Return the stored form of a key. A fast hash is sufficient, since 160 random bits cannot be guessed."""
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    return "".join(_ALPHABET[number >> shift & 31] for shift in range((CHECKSUM_LENGTH - 1) * 5, -1, -5))


# -- what a key may do -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """The terms that a key's owner sets; checked by `check_terms`. ``None``: the key adds no limit.

    Attributes:
        name: distinguishes it from the owner's other keys.
        expires_at: from this time on it is treated like an unknown key.
        requests_per_minute, concurrent_calls, tokens_per_minute: as for `aiproject.adapters.http.event_limits`.
        capabilities: the meters that it may consume.
        models: the text models that it may use, by the name that is sent upstream (``generalv3.5``).
        addresses: the networks from which it may be used.
    """

    name: str
    expires_at: datetime | None = None
    requests_per_minute: int | None = None
    concurrent_calls: int | None = None
    tokens_per_minute: int | None = None
    capabilities: frozenset[Meter] | None = None
    models: frozenset[str] | None = None
    addresses: tuple[Network, ...] | None = None


class SpendCap(NamedTuple):
    """The amount of a meter that a key may spend, in the units of the ledger: tokens, pictures, milliseconds.

    Attributes:
        total: during the key's lifetime; ``None``: no limit.
        daily: on one day in the server's time zone; ``None``: no limit.
    """

    total: int | None = None
    daily: int | None = None


class SpendLimit(NamedTuple):
    """A cap, with the amounts that are spent and held against it.

    Attributes:
        spent, held: during the key's lifetime.
        day: the day, as YYYYMMDD, to which ``day_spent`` and ``day_held`` refer; on a later day nothing is spent yet.
    """

    total: int | None
    daily: int | None
    spent: int
    held: int
    day: int
    day_spent: int
    day_held: int


@dataclass(frozen=True, slots=True, repr=False)
class ApiKey:
    """An existing key, without its secret.

    Attributes:
        key_id: the internal number, which the ledger uses.
        prefix: the public part, which users and logs see.
        last_used_at: accurate to about a minute; ``None``: never.
    """

    key_id: int
    account_id: int
    prefix: str
    terms: KeyTerms
    created_at: datetime
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    last_used_address: str | None = None

    def __repr__(self) -> str:
        return f"ApiKey({self.prefix})"

    @property
    def name(self) -> str:
        return self.terms.name

    @property
    def requests_per_minute(self) -> int | None:
        return self.terms.requests_per_minute

    @property
    def concurrent_calls(self) -> int | None:
        return self.terms.concurrent_calls

    @property
    def tokens_per_minute(self) -> int | None:
        return self.terms.tokens_per_minute

    def is_usable(self, now: datetime) -> bool:
        """Return whether the key is neither revoked nor expired."""
        expires_at = self.terms.expires_at
        return self.revoked_at is None and (expires_at is None or now < expires_at)

    def allows(self, capability: Meter, model: str | None = None) -> bool:
        """Return whether the key may consume the meter and use this text model."""
        terms = self.terms
        if terms.capabilities is not None and capability not in terms.capabilities:
            return False
        return model is None or terms.models is None or model in terms.models

    def allows_address(self, address: str) -> bool:
        """Return whether the key may be used from an address.

        A peer without an address (that of a Unix socket) is in no network.
        """
        if self.terms.addresses is None:
            return True
        try:
            found = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in network for network in self.terms.addresses)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key with its spending limits and amounts; one `SpendLimit` for each meter."""

    key: ApiKey
    limits: Mapping[Meter, SpendLimit]


@dataclass(frozen=True, slots=True, repr=False)
class NewKey:
    """A new key with its text, which is available only at creation.

    Attributes:
        text: the credential that the owner presents from now on; a secret.
    """

    key: ApiKey
    text: str

    def __repr__(self) -> str:
        return f"NewKey({self.key.prefix})"


# -- checks ------------------------------------------------------------------------------------------------------------


def networks_of(words: Iterable[str]) -> tuple[Network, ...]:
    """Parse addresses and networks (``192.0.2.7``, ``2001:db8::/32``).

    Raises:
        InvalidInput: one of them is neither an address nor a network.
    """
    found = []
    for number, word in enumerate(words, 1):
        try:
            if "%" in word:  # the zone of a link-local address is only meaningful on one machine
                raise ValueError
            found.append(ip_network(word.strip(), strict=False))
        except ValueError:
            raise InvalidInput(Detail.ADDRESS_MALFORMED, number=number) from None
    return tuple(dict.fromkeys(found))


def check_terms(terms: KeyTerms, *, now: datetime) -> KeyTerms:
    """Trim and check the terms of a key.

    Args:
        terms: as requested.
        now: aware.

    Raises:
        InvalidInput: describes the first invalid value.
    """
    name = terms.name.strip()
    if not name or len(name) > MAX_NAME_LENGTH:
        raise InvalidInput(Detail.KEY_NAME_LENGTH, limit=MAX_NAME_LENGTH)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise InvalidInput(Detail.FIELD_HAS_CONTROLS, field=Term.KEY_NAME)
    if terms.expires_at is not None and (terms.expires_at.tzinfo is None or terms.expires_at <= now):
        raise InvalidInput(Detail.EXPIRY_NOT_IN_FUTURE)
    for word, value, most in (
        ("requests_per_minute", terms.requests_per_minute, MAX_RATE),
        ("concurrent_calls", terms.concurrent_calls, MAX_RATE),
        ("tokens_per_minute", terms.tokens_per_minute, MAX_UNITS),
    ):
        if value is not None and not 1 <= value <= most:
            raise InvalidInput(Detail.FIELD_OUT_OF_RANGE, field=word, least=1, most=most)
    if terms.capabilities is not None and not terms.capabilities:
        raise InvalidInput(Detail.FIELD_EMPTY, field="capabilities")
    if terms.models is not None:
        if not terms.models or not all(map(_MODEL.fullmatch, terms.models)):
            raise InvalidInput(Detail.MODELS_MALFORMED)
        _check_length("models", terms.models)
    if terms.addresses is not None:
        if not terms.addresses:
            raise InvalidInput(Detail.FIELD_EMPTY, field="addresses")
        _check_length("addresses", map(str, terms.addresses))
    return replace(terms, name=name)


def _check_length(word: str, words: Iterable[str]) -> None:
    if len(" ".join(words)) > MAX_WORDS_LENGTH:
        raise InvalidInput(Detail.FIELD_TOO_MANY_ITEMS, field=word)


def check_caps(caps: Mapping[Meter, SpendCap]) -> None:
    """Check the amounts that a key may spend.

    Raises:
        InvalidInput: an amount is negative or above `MAX_UNITS`.
    """
    for capability, cap in caps.items():
        for amount in cap:
            if amount is not None and not 0 <= amount <= MAX_UNITS:
                raise InvalidInput(Detail.SPEND_LIMIT_OUT_OF_RANGE, meter=capability, limit=MAX_UNITS)
