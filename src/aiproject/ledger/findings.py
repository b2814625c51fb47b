"""Differences between the ledger and what it is recomputed from; a part of `aiproject.ledger.verify`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Difference", "Findings"]

MAX_SHOWN = 20
"""Differences shown of one account; more are counted."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it must be.

    Attributes:
        account_id: whose ledger; of an account that may not exist. ``None``: it is about a voucher or the audit log.
        what: the number or the record.
        expected: recomputed from the other records.
        found: as it is stored.
    """

    account_id: int | None
    what: str
    expected: int | str | None
    found: int | str | None

    def __str__(self) -> str:
        whose = "" if self.account_id is None else f"account {self.account_id}: "
        return f"{whose}{self.what}: expected {_text(self.expected)}, found {_text(self.found)}"


class Findings:
    """The differences of one account; of very many, the first ones and their number."""

    def __init__(self, account_id: int | None) -> None:
        self._account_id = account_id
        self._differences: list[Difference] = []
        self._further = 0

    def check(self, what: str, expected: int | str | None, found: int | str | None) -> bool:
        if expected == found:
            return True
        if len(self._differences) < MAX_SHOWN:
            self._differences.append(Difference(self._account_id, what, expected, found))
        else:
            self._further += 1
        return False

    def check_known(self, what: str, found: str | None, known: frozenset[str]) -> bool:
        return found in known or self.check(what, "a known word", found)

    def check_kind(self, what: str, found: object, *, is_number: bool) -> bool:
        if found is None or isinstance(found, int if is_number else str):
            return True
        return self.check(what, "a number" if is_number else "text", str(found)[:100])

    def shown(self) -> Iterator[Difference]:
        yield from self._differences
        if self._further:
            yield Difference(self._account_id, "further differences", 0, self._further)


def _text(value: int | str | None) -> str:
    return "nothing" if value is None else str(value)
