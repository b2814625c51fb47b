"""What a charge's ledger entry seals of the hold behind it; no I/O."""

from __future__ import annotations

__all__ = ["SEALED", "settled_rule"]

SEALED = {"sealed": 1}
"""Fact in the rule of a hold: its charge will be entered by `settled_rule`. Holds of former releases have none."""

_MARK = '"sealed":1'


def settled_rule(rule: str, *, amount: int, outcome: str, stage: str, reported: int | None) -> str:
    """Return the rule of a charge's entry: the hold's own, and behind it how the hold was settled.

    The entry is sealed in the account's chain, and so is the hold from then on: `aiproject.ledger.verify` compares
    them.

    Args:
        rule: of the hold; one without `SEALED` is returned as it is.
        amount: that was held.
        outcome, stage: words of `aiproject.ledger.model`, in plain ASCII.
        reported: what upstream said was consumed.
    """
    if _MARK not in rule:
        return rule
    consumed = "null" if reported is None else reported
    return f'{rule[:-1]},"settled":[{amount},"{outcome}","{stage}",{consumed}]}}'
