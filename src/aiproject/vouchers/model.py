"""Vouchers and their rules; no I/O."""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from aiproject.accounts.core.model import is_askable
from aiproject.adapters.db.schema import ACADEMY_LENGTH, NAME_KEY_LENGTH, NAME_LENGTH, name_key
from aiproject.codes import Detail
from aiproject.errors import InvalidInput

__all__ = [
    "MAX_CODE_LENGTH",
    "MAX_UNITS",
    "CodeTaken",
    "Voucher",
    "VoucherNameTaken",
    "check_new_voucher",
    "normal_code",
]

PREFIX = "voucher:"
"""What a ledger entry's reference begins with where a voucher was the cause."""

MAX_CODE_LENGTH = 64 - len(PREFIX)
"""Characters of a code: with the prefix it fills an entry's reference."""

MAX_UNITS = 10**15
"""Tokens or pictures of one voucher: far over what anybody gives away, far under what a 64-bit balance holds."""

UNNAMED = "a voucher without a name"

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: nothing in it is mistaken for something else when it is read out or copied from paper."""

GROUPS, GROUP_LENGTH = 4, 4
"""16 characters are 80 bits: nobody guesses one of a million codes in a lifetime, at any rate limit."""


class CodeTaken(InvalidInput):
    """There is a voucher with this code already."""


class VoucherNameTaken(CodeTaken):
    """There is a voucher with this name already."""


State = Literal["available", "off", "expired", "used up"]


@dataclass(frozen=True, slots=True, repr=False)
class Voucher:
    """A code and what it is worth.

    Attributes:
        voucher_id: random, no secret: what the ledger shows. ``None``: made by an earlier release beside this one.
        name: the operator's, no secret: what lists and the audit log show; unique. ``None``: as above.
        code: as `normal_code` writes it. Whoever knows it may redeem it, so it is in no log and no ``repr``.
        tokens: added to the account that redeems it.
        pic_times: likewise.
        audience: the academy whose accounts may redeem it; ``None``: everybody.
        is_available: the operator's switch.
        expires_at: the first moment at which it is worth nothing; ``None``: never.
        max_uses: accounts that may redeem it, each once; ``None``: any number.
        uses: accounts that have.
    """

    voucher_id: int | None
    name: str | None
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
        """What the ledger's entries name as their cause.

        The number, so that who reads receipts learns no code; the code only of a voucher that has no number.
        """
        return PREFIX + (self.code if self.voucher_id is None else str(self.voucher_id))

    @property
    def title(self) -> str:
        """What the audit log calls it; never the code."""
        return self.name or UNNAMED

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
        if self.audience is None:
            return True
        theirs = (academy or claimed).strip()
        # The bound spares us normalising a claim of 64 KB, see `aiproject.accounts.core.model.MAX_ASKED_LENGTH`.
        return len(theirs) <= ACADEMY_LENGTH and name_key(theirs) == name_key(self.audience)


def normal_code(text: str) -> str:
    """Return the one spelling of a code: capitals, without blanks around and compatibility forms; empty: it is none.

    Codes are typed from paper, with whatever input method is active: ``"ａbc-1 "`` is ``"ABC-1"``.
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


def new_voucher_id() -> int:
    """Draw a number that is exact in JavaScript. It says nothing about the code; the unique index decides."""
    return 1 + secrets.randbelow(2**53 - 1)


def new_code() -> str:
    """Draw a code from the system's generator, for example ``7G3K-QX0N-M2RD-94VB``."""
    groups = ("".join(secrets.choice(ALPHABET) for _ in range(GROUP_LENGTH)) for _ in range(GROUPS))
    return "-".join(groups)


def _checked_name(name: str) -> str:
    name = name.strip()
    if not is_askable(name) or any(unicodedata.category(each) in ("Cc", "Cs") for each in name):
        raise InvalidInput(Detail.VOUCHER_NAME_HAS_CONTROLS)
    if not name_key(name) or len(name) > NAME_LENGTH or len(name_key(name)) > NAME_KEY_LENGTH:
        raise InvalidInput(Detail.VOUCHER_NAME_LENGTH, limit=NAME_LENGTH)
    return name


def check_new_voucher(
    *,
    name: str | None = None,
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
        name: ``None``: it is called by its number.
        code: ``None``: one is drawn.
        expires_at: aware.

    Raises:
        InvalidInput: it would be worth nothing, never be redeemable, or has no proper code or name.
    """
    voucher_id = new_voucher_id()
    called = f"#{voucher_id}" if name is None else _checked_name(name)
    spelled = new_code() if code is None else normal_code(code)
    if not spelled:
        raise InvalidInput(Detail.VOUCHER_CODE_MALFORMED, limit=MAX_CODE_LENGTH)
    if not (0 <= tokens <= MAX_UNITS and 0 <= pic_times <= MAX_UNITS):
        raise InvalidInput(Detail.VOUCHER_AMOUNT_OUT_OF_RANGE, limit=MAX_UNITS)
    if not tokens and not pic_times:
        raise InvalidInput(Detail.VOUCHER_WORTH_NOTHING)
    audience = (audience or "").strip() or None
    if audience is not None and (
        len(audience) > ACADEMY_LENGTH or any(unicodedata.category(each) in ("Cc", "Cs") for each in audience)
    ):
        raise InvalidInput(Detail.VOUCHER_AUDIENCE_MALFORMED, limit=ACADEMY_LENGTH)
    if expires_at is not None and expires_at <= now:
        raise InvalidInput(Detail.VOUCHER_ALREADY_EXPIRED)
    if max_uses is not None and not 1 <= max_uses <= MAX_UNITS:
        raise InvalidInput(Detail.VOUCHER_WITHOUT_USES)
    return Voucher(voucher_id, called, spelled, tokens, pic_times, audience, True, expires_at, max_uses, 0, now)
