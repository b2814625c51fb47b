"""What an entry may hold, and its seal."""

from __future__ import annotations

import hashlib

import pytest

from aiproject.audit.model import CHANGED, MAX_FACT_LENGTH, facts_json, seal

FIELDS = {
    "seq": 2,
    "at": 1_700_000_000_000,
    "actor_kind": "administrator",
    "actor": "小明",
    "action": "user.grant",
    "target": "alice",
    "before": '{"tokens":1}',
    "after": '{"tokens":2}',
    "address": "127.0.0.1",
    "request_id": "abc",
}


def test_facts_are_json_with_keys_in_order() -> None:
    assert facts_json({"tokens": 5, "academy": None, "is_disabled": False}) == (
        '{"academy":null,"is_disabled":false,"tokens":5}'
    )


def test_texts_are_cut() -> None:
    assert len(facts_json({"email": "x" * 10_000})) == MAX_FACT_LENGTH + len('{"email":""}')


def test_a_field_that_is_not_listed_is_a_bug() -> None:
    with pytest.raises(ValueError, match="api_secret"):
        facts_json({"api_secret": "x"})


@pytest.mark.parametrize("name", ["password", "uuid"])
def test_a_secret_is_only_ever_changed(name: str) -> None:
    assert CHANGED in facts_json({name: CHANGED})
    with pytest.raises(ValueError, match=name) as caught:
        facts_json({name: "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_the_seal_is_what_the_document_says() -> None:
    text = (
        '["p",2,1700000000000,"administrator","\\u5c0f\\u660e","user.grant","alice",'
        '"{\\"tokens\\":1}","{\\"tokens\\":2}","127.0.0.1","abc"]'
    )
    assert seal("p", **FIELDS) == hashlib.sha256(text.encode("ascii")).hexdigest()  # type: ignore[arg-type]


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_every_field_is_sealed(field: str) -> None:
    value = FIELDS[field]
    changed = FIELDS | {field: value + 1 if isinstance(value, int) else f"{value}x"}
    assert seal("p", **FIELDS) != seal("p", **changed)  # type: ignore[arg-type]
    assert seal("p", **FIELDS) != seal("q", **FIELDS)  # type: ignore[arg-type]
