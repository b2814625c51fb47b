"""What a key looks like, and what its owner may say of it."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.accounts.api_keys.model import (
    ApiKey,
    KeyTerms,
    NewKey,
    SpendCap,
    check_caps,
    check_terms,
    draw_key,
    hash_of,
    networks_of,
    prefix_of,
)
from aiproject.accounts.core.model import Account
from aiproject.accounts.principal.principal import Credential, Principal
from aiproject.errors import InvalidInput, NotAllowed
from aiproject.meters import MAX_UNITS, Meter

NOW = datetime(2026, 5, 5, tzinfo=UTC)
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def key(**terms: object) -> ApiKey:
    return ApiKey(1, 2, "sk-0123456789", replace(KeyTerms("a"), **terms), NOW)  # type: ignore[arg-type]


class TestText:
    def test_is_of_the_documented_form(self) -> None:
        text = draw_key()
        assert re.fullmatch(r"sk-[0-9a-hjkmnp-tv-z]{49}", text)
        assert prefix_of(text) == text[:13]

    def test_is_another_each_time(self) -> None:
        drawn = {draw_key() for _ in range(200)}
        assert len(drawn) == 200
        assert {text[13 + place] for text in drawn for place in range(32)} == set(ALPHABET)

    def test_has_a_checksum_that_stays(self) -> None:
        # Worked out apart: CRC-32 of the first 45 characters, in base 32, the most significant digit first.
        body = "sk-" + "7m2k9x4q1b" + "c8v3" * 8
        assert prefix_of(body + "07b9ghf") == "sk-7m2k9x4q1b"
        assert prefix_of(body + "0000000") is None

    @given(place=st.integers(0, 51), digit=st.sampled_from(ALPHABET))
    def test_notices_a_digit_that_is_mistyped(self, place: int, digit: str) -> None:
        text = draw_key()
        mistyped = text[:place] + digit + text[place + 1 :]
        assert (prefix_of(mistyped) is None) == (mistyped != text)

    @given(st.text())
    def test_of_anything_is_read_without_a_fault(self, text: str) -> None:
        assert prefix_of(text) is None

    def test_is_hashed_whole(self) -> None:
        text = draw_key()
        assert len(hash_of(text)) == 64
        assert hash_of(text) != hash_of(text[:-1] + "0" + text[-1])

    def test_is_in_no_repr(self) -> None:
        text = draw_key()
        assert text[13:] not in repr(NewKey(key(), text))
        assert repr(key()) == "ApiKey(sk-0123456789)"


class TestTerms:
    def test_are_trimmed(self) -> None:
        assert check_terms(KeyTerms("  ci  "), now=NOW) == KeyTerms("ci")

    @pytest.mark.parametrize(
        "wrong",
        [
            {"name": " "},
            {"name": "x" * 101},
            {"name": "a\nb"},
            {"name": "\ud800"},
            {"expires_at": NOW},
            {"expires_at": datetime(2027, 1, 1)},  # noqa: DTZ001 - what is refused
            {"requests_per_minute": 0},
            {"concurrent_calls": -1},
            {"concurrent_calls": 1_000_001},
            {"tokens_per_minute": MAX_UNITS + 1},
            {"capabilities": frozenset()},
            {"models": frozenset()},
            {"models": frozenset({"a b"})},
            {"models": frozenset({""})},
            {"models": frozenset(f"model-{number:060}" for number in range(20))},
            {"addresses": ()},
            {"addresses": networks_of(f"2001:db8:{number:x}::/48" for number in range(100))},
        ],
    )
    def test_that_make_no_sense_are_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(InvalidInput) as caught:
            check_terms(replace(KeyTerms("a"), **wrong), now=NOW)  # type: ignore[arg-type]
        assert caught.value.detail

    @pytest.mark.parametrize("amount", [-1, MAX_UNITS + 1])
    def test_caps_are_bounded(self, amount: int) -> None:
        check_caps({Meter.TOKENS: SpendCap(0, MAX_UNITS)})
        for cap in (SpendCap(total=amount), SpendCap(daily=amount)):
            with pytest.raises(InvalidInput):
                check_caps({Meter.TOKENS: cap})

    def test_networks(self) -> None:
        assert [str(network) for network in networks_of(["192.0.2.7", " 10.1.2.3/8", "::1", "192.0.2.7/32"])] == [
            "192.0.2.7/32",
            "10.0.0.0/8",
            "::1/128",
        ]
        for word in ("", "localhost", "192.0.2.0/33", "1.2.3", "fe80::1%eth0/64"):
            with pytest.raises(InvalidInput):
                networks_of([word])


class TestUse:
    def test_ends(self) -> None:
        assert key().is_usable(NOW)
        assert not key(expires_at=NOW).is_usable(NOW)
        assert key(expires_at=NOW + timedelta(seconds=1)).is_usable(NOW)
        assert not replace(key(), revoked_at=NOW).is_usable(NOW)

    def test_is_held_to_capabilities_and_models(self) -> None:
        account = Account(2, "u", "ann", "", None, 0, 0, None, 0, None, None)
        held = Principal(
            account,
            Credential.API_KEY,
            key=key(capabilities=frozenset({Meter.TOKENS}), models=frozenset({"lite"})),
        )
        held.require(Meter.TOKENS, "lite")
        for capability, model in ((Meter.TOKENS, "max"), (Meter.PIC_TIMES, None)):
            with pytest.raises(NotAllowed):
                held.require(capability, model)
        Principal(account, Credential.API_KEY, key=key()).require(Meter.TOKENS, "max")
        Principal(account, Credential.UUID).require(Meter.PIC_TIMES)
