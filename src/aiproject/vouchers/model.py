"""Vouchers and their rules, without I/O."""

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
"""The prefix of a ledger entry's reference if a voucher was the cause."""

MAX_CODE_LENGTH = 64 - len(PREFIX)
"""Maximum characters of a code: together with the prefix it fills an entry's reference."""

MAX_UNITS = 10**15
"""Maximum tokens or pictures of one voucher: far above any realistic amount, far below a 64-bit balance's maximum."""

UNNAMED = "a voucher without a name"

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32, whose characters are not confused with each other when a code is read out or copied by hand."""

GROUPS, GROUP_LENGTH = 4, 4
"""16 characters are 80 bits: even with a million codes, guessing one is infeasible at any rate limit."""


class CodeTaken(InvalidInput):
    """A voucher with this code exists already."""


class VoucherNameTaken(CodeTaken):
    """A voucher with this name exists already."""


State = Literal["available", "off", "expired", "used up"]


@dataclass(frozen=True, slots=True, repr=False)
class Voucher:
    """A code and its value.

    Attributes:
        voucher_id: random and not secret; shown in the ledger. ``None``: created by an earlier release that runs at the
            same time as this one.
        name: chosen by the operator and not secret; shown in lists and the audit log; unique. ``None``: as above.
        code: in the form of `normal_code`. It is all that is needed to redeem the voucher, so it is never logged and
            not part of ``repr``.
        tokens: added to the account that redeems the voucher.
        pic_times: likewise.
        audience: the academy whose accounts may redeem it; ``None``: all accounts.
        is_available: whether the operator has enabled it.
        expires_at: the time from which on it cannot be redeemed; ``None``: never.
        max_uses: maximum number of accounts that may redeem it, each once; ``None``: any number.
        uses: number of accounts that have redeemed it.
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
        """The reference of the ledger entries that the voucher causes.

        It contains the number, so that receipts do not reveal the code; the code only if the voucher has no number.
        """
        return PREFIX + (self.code if self.voucher_id is None else str(self.voucher_id))

    @property
    def title(self) -> str:
        """The voucher's name in the audit log; never the code."""
        return self.name or UNNAMED

    def state(self, now: datetime) -> State:
        """Return whether the voucher may be redeemed, or the reason why it cannot."""
        if not self.is_available:
            return "off"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        if self.max_uses is not None and self.uses >= self.max_uses:
            return "used up"
        return "available"

    def is_for(self, academy: str | None, *, claimed: str = "") -> bool:
        """Return whether a member of ``academy`` may redeem the voucher.

        Args:
            academy: the account's academy; ``None``: it has none.
            claimed: the academy that the caller states. It is unverified, so it is used only for accounts without an
                academy, which were created before registration asked for one.
        """
        if self.audience is None:
            return True
        theirs = (academy or claimed).strip()
        # The limit avoids normalising a claim of 64 KB, see `aiproject.accounts.core.model.MAX_ASKED_LENGTH`.
        return len(theirs) <= ACADEMY_LENGTH and name_key(theirs) == name_key(self.audience)


def normal_code(text: str) -> str:
    """Return the canonical form of a code: upper case, trimmed, without compatibility characters; empty: not a code.

    Codes are typed from paper with any input method: ``"ａbc-1 "`` becomes ``"ABC-1"``.
    """
    code = text.strip()
    if len(code) > MAX_CODE_LENGTH:
        return ""
    for _ in range(2):
        # Twice, because upper-casing can produce characters that normalise further.
        code = unicodedata.normalize("NFKC", code).upper()
    code = unicodedata.normalize("NFKC", code)
    return code if len(code) <= MAX_CODE_LENGTH and all(map(_is_code_character, code)) else ""


def _is_code_character(character: str) -> bool:
    return character in "-_." or unicodedata.category(character)[0] in "LN"


def new_voucher_id() -> int:
    """Draw a number that is exact in JavaScript and independent of the code; the unique index detects collisions."""
    return 1 + secrets.randbelow(2**53 - 1)


def new_code() -> str:
    """Draw a code from the system's random generator, for example ``7G3K-QX0N-M2RD-94VB``."""
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
        name: ``None``: its number serves as the name.
        code: ``None``: a code is drawn.
        expires_at: aware.

    Raises:
        InvalidInput: the voucher would have no value or never be redeemable, or its code or name is invalid.
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
