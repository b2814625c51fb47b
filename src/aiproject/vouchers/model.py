"""Vouchers and their rules; no I/O."""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from aiproject.adapters.schema import ACADEMY_LENGTH, name_key
from aiproject.errors import InvalidInput

__all__ = [
    "MAX_CODE_LENGTH",
    "MOST_UNITS",
    "CodeTaken",
    "Voucher",
    "check_new_voucher",
    "masked",
    "new_code",
    "normal_code",
    "number_of",
]

PREFIX = "voucher:"
"""What a ledger entry's reference begins with where a voucher was the cause."""

MAX_CODE_LENGTH = 64 - len(PREFIX)
"""Characters of a code: with the prefix it fills an entry's reference."""

MOST_UNITS = 10**15
"""Tokens or pictures of one voucher: far over what anybody gives away, far under what a 64-bit balance holds."""

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: nothing in it is mistaken for something else when it is read out or copied from paper."""

GROUPS, GROUP_LENGTH = 4, 4
"""16 characters are 80 bits: nobody guesses one of a million codes in a lifetime, at any rate limit."""


class CodeTaken(InvalidInput):
    """There is a voucher with this code already."""


State = Literal["available", "off", "expired", "used up"]


@dataclass(frozen=True, slots=True, repr=False)
class Voucher:
    """A code and what it is worth.

    Attributes:
        code: as `normal_code` writes it. Whoever knows it may redeem it, so it is in no log and no ``repr``.
        tokens: added to the account that redeems it.
        pic_times: likewise.
        audience: the academy whose accounts may redeem it; ``None``: everybody.
        is_available: the operator's switch.
        expires_at: the first moment at which it is worth nothing; ``None``: never.
        max_uses: accounts that may redeem it, each once; ``None``: any number.
        uses: accounts that have.
    """

    code: str
    tokens: int
    pic_times: int
    audience: str | None
    is_available: bool
    expires_at: datetime | None
    max_uses: int | None
    uses: int
    created_at: datetime

    def __repr__(self) -> str:
        return f"Voucher(tokens={self.tokens}, pic_times={self.pic_times})"

    @property
    def reference(self) -> str:
        """What the ledger's entries name as their cause."""
        return PREFIX + self.code

    def state(self, now: datetime) -> State:
        """Say whether it may be redeemed, or why nobody can."""
        if not self.is_available:
            return "off"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        if self.max_uses is not None and self.uses >= self.max_uses:
            return "used up"
        return "available"

    def is_for(self, academy: str | None, *, claimed: str = "") -> bool:
        """Say whether a member of ``academy`` may redeem it.

        Args:
            academy: the account's own; ``None``: it has none.
            claimed: what the caller says, which anybody may say: it counts only where we know nothing better, for the
                accounts that were opened before academies were asked for.
        """
        return self.audience is None or name_key(academy or claimed) == name_key(self.audience)


def normal_code(text: str) -> str:
    """Return the one spelling of a code: capitals, without blanks around and compatibility forms; empty: it is none.

    People type what they read on paper, with whatever keyboard is on: ``"ａbc-1 "`` is ``"ABC-1"``.
    """
    code = text.strip()
    if len(code) > MAX_CODE_LENGTH:
        return ""
    for _ in range(2):
        # Twice, because capitals can bring forth what normalises further.
        code = unicodedata.normalize("NFKC", code).upper()
    code = unicodedata.normalize("NFKC", code)
    return code if len(code) <= MAX_CODE_LENGTH and all(map(_is_code_character, code)) else ""


def _is_code_character(character: str) -> bool:
    return character in "-_." or unicodedata.category(character)[0] in "LN"


def masked(code: str) -> str:
    """Return a code as logs and lists may show it: enough to tell vouchers apart, too little to redeem one."""
    return f"{code[:4]}… #{number_of(code)}" if len(code) > 8 else f"{code[:1]}… #{number_of(code)}"


def number_of(code: str) -> int:
    """Return a voucher's number in lists: stable, below 2^40 (exact in JavaScript), and the same on every node.

    It is worked out from the code, which is the voucher's only key. With more than a few hundred thousand vouchers two
    may share a number, so nothing is looked up by it.
    """
    return int.from_bytes(hashlib.sha256(f"voucher number:{code}".encode()).digest()[:5])


def new_code() -> str:
    """Draw a code from the system's generator, for example ``7G3K-QX0N-M2RD-94VB``."""
    groups = ("".join(secrets.choice(ALPHABET) for _ in range(GROUP_LENGTH)) for _ in range(GROUPS))
    return "-".join(groups)


def check_new_voucher(
    *,
    code: str | None,
    tokens: int,
    pic_times: int,
    audience: str | None,
    expires_at: datetime | None,
    max_uses: int | None,
    now: datetime,
) -> Voucher:
    """Return a new voucher that is available at once.

    Args:
        code: ``None``: one is drawn.
        expires_at: aware.

    Raises:
        InvalidInput: it would be worth nothing, never be redeemable, or has no proper code.
    """
    spelled = new_code() if code is None else normal_code(code)
    if not spelled:
        raise InvalidInput(f"a code has 1 to {MAX_CODE_LENGTH} letters, digits, hyphens, dots or underscores")
    if not (0 <= tokens <= MOST_UNITS and 0 <= pic_times <= MOST_UNITS):
        raise InvalidInput(f"tokens and picture times are 0 to {MOST_UNITS}")
    if not tokens and not pic_times:
        raise InvalidInput("a voucher must be worth something: give tokens or picture times")
    audience = (audience or "").strip() or None
    if audience is not None and (
        len(audience) > ACADEMY_LENGTH or any(unicodedata.category(each) in ("Cc", "Cs") for each in audience)
    ):
        raise InvalidInput(f"an audience has at most {ACADEMY_LENGTH} characters and no control characters")
    if expires_at is not None and expires_at <= now:
        raise InvalidInput("the voucher would have expired already")
    if max_uses is not None and not 1 <= max_uses <= MOST_UNITS:
        raise InvalidInput("a voucher must be good for at least one use")
    return Voucher(spelled, tokens, pic_times, audience, True, expires_at, max_uses, 0, now)
