"""The meters for which accounts have balances: the table from which ledger, API keys and responses are derived; no I/O.

A meter that is added here, with a migration for its columns, can be granted, held, charged, refunded, verified, limited
by API keys and explained in receipts. The code that consumes a meter names it where it holds quota.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from aiproject.codes import Code

__all__ = ["MAX_UNITS", "Meter", "MeterSpec", "Words"]

MAX_UNITS = (1 << 53) - 1
"""Maximum units of a balance, a limit, a charge or a report: exact in JSON and JavaScript, and small enough to add."""


class Words(NamedTuple):
    """A text in Chinese and in English."""

    zh: str
    en: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSpec:
    """How a meter is stored, shown and explained.

    Attributes:
        balance: the column of the table ``user`` with the balance, in units. It may be nullable: NULL means that the
            account is unmetered until the first grant.
        held: the column with the sum of open holds.
        used: the column with the sum of all charges, including those of unmetered accounts; ``None``: there is none.
        unit: the name of one unit in responses.
        field: the JSON member with an amount in units.
        scale: units in one of what operators grant and what the audit log and tables show.
        heading: the heading of a table's column, whose amounts are divided by the scale.
        exhausted: the code with which a call is refused if the balance is insufficient.
        is_gradual: whether it is consumed while the answer is sent. A call that fails may then have delivered a part,
            which counts against the account's bound of unpaid usage. Otherwise a call is answered completely or not at
            all.
        one: the text for one ``n`` in a receipt; ``n`` is an amount divided by the scale.
        many: the text for any other ``n``.
        basis: the basis of the charge, in a receipt; ``None``: the provider's report, or an estimate.
    """

    balance: str
    held: str
    used: str | None = None
    unit: str
    field: str
    scale: int = 1
    heading: str
    exhausted: Code = Code.QUOTA_NOT_ENOUGH
    is_gradual: bool = False
    one: Words
    many: Words
    basis: Words | None = None


class Meter(StrEnum):
    """A meter, by the name under which it is stored and written in answers."""

    # Type checkers interpret the lookup of a member, ``Meter("tokens")``, as a call of these two methods.
    def __new__(cls, name: str, spec: MeterSpec | None = None) -> Meter:
        meter = str.__new__(cls, name)
        meter._value_ = name
        return meter

    def __init__(self, name: str, spec: MeterSpec | None = None) -> None:
        if spec is None:
            raise TypeError(f"the meter {name} has no specification")
        self._spec = spec

    # Tokens, as counted by the model's own tokenizer.
    TOKENS = (
        "tokens",
        MeterSpec(
            balance="Tokens",
            held="HeldTokens",
            unit="token",
            field="tokens",
            heading="tokens",
            exhausted=Code.TOKEN_NOT_ENOUGH,
            is_gradual=True,
            one=Words(" {n} 个 token", "{n} token"),
            many=Words(" {n} 个 token", "{n} tokens"),
        ),
    )
    # Recognised pictures.
    PIC_TIMES = (
        "pic_times",
        MeterSpec(
            balance="PicTimes",
            held="HeldPicTimes",
            unit="picture",
            field="pic_times",
            heading="picTimes",
            exhausted=Code.PIC_TIMES_NOT_ENOUGH,
            one=Words(" {n} 次图片识别", "{n} picture"),
            many=Words(" {n} 次图片识别", "{n} pictures"),
            basis=Words("按张", ", by the picture"),
        ),
    )
    # Transcribed recordings: granted and named in seconds, counted in milliseconds.
    VOICE_SECONDS = (
        "voice_seconds",
        MeterSpec(
            balance="VoiceMs",
            held="HeldVoiceMs",
            used="VoiceUsedMs",
            unit="millisecond",
            field="voice_ms",
            scale=1000,
            heading="voice s",
            exhausted=Code.VOICE_SECONDS_NOT_ENOUGH,
            one=Words(" {n} 秒语音", "{n} s of speech"),
            many=Words(" {n} 秒语音", "{n} s of speech"),
            basis=Words("按音频时长", ", the length of the recording"),
        ),
    )

    @property
    def spec(self) -> MeterSpec:
        """The specification of how the meter is stored, shown and explained."""
        return self._spec

    def in_words(self, units: int) -> Words:
        """Return an amount in words, with at most three decimals."""
        spec = self.spec
        number = f"{units / spec.scale:.3f}".rstrip("0").rstrip(".") if spec.scale > 1 else str(units)
        words = spec.one if units == spec.scale else spec.many
        return Words(words.zh.format(n=number), words.en.format(n=number))

    def shown(self, units: int) -> int | float:
        """Return an amount as the audit log shows it: in the measure that operators grant."""
        return units if self.spec.scale == 1 else units / self.spec.scale

    def stored(self, shown: float) -> int:
        """Return the units of an amount as the audit log shows it."""
        return int(shown) if self.spec.scale == 1 else round(shown * self.spec.scale)
