"""Seals: what they cover, and that they are what every reader of the published description would compute."""

from __future__ import annotations

import hashlib
import importlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.ledger.chain import seal

ENTRY: dict[str, Any] = {
    "account_id": 7,
    "seq": 2,
    "capability": "tokens",
    "amount": -120,
    "balance": 880,
    "kind": "charge",
    "request_id": "4f2a",
    "attempt": 1,
    "rule": '{"completion_limit":2048,"rule":1}',
    "created_at": 1_790_000_000_000,
}
PREVIOUS = hashlib.sha256(b"the entry before").hexdigest()

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
integers = st.integers(-(1 << 63), (1 << 63) - 1)
entries = st.fixed_dictionaries(
    {
        "account_id": integers,
        "seq": integers,
        "capability": texts,
        "amount": integers,
        "balance": st.none() | integers,
        "kind": texts,
        "request_id": texts,
        "attempt": integers,
        "rule": texts,
        "created_at": integers,
    }
)


def by_the_description(previous: str, fields: dict[str, Any]) -> str:
    text = json.dumps([previous, *(fields[name] for name in ENTRY)], separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def test_of_a_known_entry() -> None:
    """Written down, because books that exist must stay provable."""
    assert seal("", **ENTRY) == "d79dde7f62097c22c6593e3bcedfe1650f8fbd28a39ffae0a82eb6f079cb5c91"


@given(previous=texts, fields=entries)
def test_is_sha256_of_a_json_array(previous: str, fields: dict[str, Any]) -> None:
    assert seal(previous, **fields) == by_the_description(previous, fields)


@given(fields=entries)
def test_the_migration_that_opened_the_books_sealed_alike(fields: dict[str, Any]) -> None:
    migration = importlib.import_module("aiproject.adapters.db.migrations.versions.v0002_ledger")
    assert migration.seal(PREVIOUS, {name: fields[name] for name in ENTRY}) == seal(PREVIOUS, **fields)


@pytest.mark.parametrize("name", ENTRY)
def test_every_field_counts(name: str) -> None:
    changed = ENTRY[name] + 1 if isinstance(ENTRY[name], int) else ENTRY[name] + "x"
    assert seal(PREVIOUS, **{**ENTRY, name: changed}) != seal(PREVIOUS, **ENTRY)


def test_so_does_the_entry_before() -> None:
    assert seal(PREVIOUS, **ENTRY) != seal("", **ENTRY)


def test_no_balance_is_not_a_balance_of_nothing() -> None:
    assert seal(PREVIOUS, **{**ENTRY, "balance": None}) != seal(PREVIOUS, **{**ENTRY, "balance": 0})


def test_what_stands_in_one_field_does_not_reach_into_the_next() -> None:
    one = {**ENTRY, "kind": 'charge","4f2a', "request_id": "x"}
    other = {**ENTRY, "kind": "charge", "request_id": '4f2a","x'}
    assert seal(PREVIOUS, **one) != seal(PREVIOUS, **other)
