"""What accounts have balances of: the one table that the ledger, API keys and answers are derived from; no I/O.

A meter that is added here, with a migration for its columns, can be granted, held, charged, refunded, proved, limited
by API keys and explained in receipts. What consumes it names it where it holds quota.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from aiproject.codes import Code

__all__ = ["MAX_UNITS", "Meter", "MeterSpec", "Words"]

MAX_UNITS = (1 << 53) - 1
"""Units that a balance, a limit, a charge or a report has at most: exact in JSON and JavaScript, and small enough to
add up."""


class Words(NamedTuple):
    """The same in Chinese and in English."""

    zh: str
    en: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSpec:
    """How a meter is stored, shown and explained.

    Attributes:
        balance: the column of the table ``user`` that holds the balance, in units. It may be nullable: NULL means that
            nobody counts until the first grant.
        held: the column with what open holds set aside.
        used: the column that sums all charges, those of unmetered accounts included; ``None``: there is none.
        unit: what one unit is called in answers.
        field: the member of JSON objects that holds an amount in units.
        scale: units in one of what operators grant and what the audit log and tables show.
        heading: of a column of a table, whose amounts are in that.
        exhausted: how a call is refused for want of it.
        is_gradual: it is consumed while the answer comes, so that a call that fails may have shown a part, which counts
            against the account's bound of unpaid usage. What is not gradual is answered whole or not at all.
        one: one ``n`` of it, in the sentences of a receipt; ``n`` is an amount divided by the scale.
        many: any other ``n`` of it.
        basis: what its charge is taken from, in a receipt; ``None``: what the provider reports, or an estimate.
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

    # Type checkers take the look-up of a member, ``Meter("tokens")``, for calls of these two.
    def __new__(cls, name: str, spec: MeterSpec | None = None) -> Meter:
        meter = str.__new__(cls, name)
        meter._value_ = name
        return meter

    def __init__(self, name: str, spec: MeterSpec | None = None) -> None:
        if spec is None:
            raise TypeError(f"the meter {name} has no specification")
        self._spec = spec

    # Tokens of the model's own tokenizer.
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
    # Recordings that were heard: granted and named in seconds, counted in milliseconds.
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
        """How it is stored, shown and explained."""
        return self._spec

    def in_words(self, units: int) -> Words:
        """Return an amount in words, with at most three decimals."""
        spec = self.spec
        number = f"{units / spec.scale:.3f}".rstrip("0").rstrip(".") if spec.scale > 1 else str(units)
        words = spec.one if units == spec.scale else spec.many
        return Words(words.zh.format(n=number), words.en.format(n=number))

    def shown(self, units: int) -> int | float:
        """Return an amount as the audit log shows it: in what operators grant."""
        return units if self.spec.scale == 1 else units / self.spec.scale

    def stored(self, shown: float) -> int:
        """Return the units of an amount as the audit log shows it."""
        return int(shown) if self.spec.scale == 1 else round(shown * self.spec.scale)
