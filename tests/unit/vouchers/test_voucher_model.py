"""Vouchers' codes, states and audiences."""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.errors import InvalidInput
from aiproject.vouchers.model import ALPHABET, MAX_CODE_LENGTH, Voucher, check_new_voucher, new_code, normal_code

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def new(**changes: Any) -> Voucher:
    fields: dict[str, Any] = {"code": "SPRING", "tokens": 100, "pic_times": 0, "audience": None}
    return check_new_voucher(**(fields | {"expires_at": None, "max_uses": None, "now": NOW} | changes))


class TestCodes:
    @pytest.mark.parametrize(
        ("typed", "code"),
        [
            ("spring-2026", "SPRING-2026"),
            (" ＳＰＲＩＮＧ２０２６\n", "SPRING2026"),
            ("新生礼包", "新生礼包"),
            ("straße", "STRASSE"),
            ("two words", ""),
            ("", ""),
            ("a\0b", ""),
            ("=1+1", ""),
            ("\ud800", ""),
            ("x" * MAX_CODE_LENGTH, "X" * MAX_CODE_LENGTH),
            ("x" * (MAX_CODE_LENGTH + 1), ""),
            ("ß" * MAX_CODE_LENGTH, ""),
        ],
    )
    def test_have_one_spelling(self, typed: str, code: str) -> None:
        assert normal_code(typed) == code

    @given(st.text(max_size=MAX_CODE_LENGTH))
    def test_written_twice_are_the_same(self, text: str) -> None:
        assert normal_code(normal_code(text)) == normal_code(text)

    @given(st.text())
    def test_fit_an_entry_s_reference(self, text: str) -> None:
        if code := normal_code(text):
            assert len(new(code=text).reference) <= 64
            assert code == new(code=text).code

    def test_drawn_ones_differ_and_are_easily_read(self) -> None:
        codes = {new_code() for _ in range(200)}
        assert len(codes) == 200
        assert all(normal_code(code) == code for code in codes)
        assert all(set(code) <= {*ALPHABET, "-"} and len(code) == 19 for code in codes)
        assert not set("ILOU") & set(ALPHABET)

    def test_stand_in_no_repr(self) -> None:
        assert "SPRING" not in repr(new())


class TestNewVouchers:
    def test_are_available_at_once(self) -> None:
        voucher = new(audience="  计算机学院 ", expires_at=NOW + timedelta(seconds=1), max_uses=1)
        assert (voucher.state(NOW), voucher.audience, voucher.uses) == ("available", "计算机学院", 0)

    def test_draw_their_code(self) -> None:
        assert new(code=None).code != new(code=None).code

    @pytest.mark.parametrize(
        "changes",
        [
            {"code": "two words"},
            {"tokens": 0},
            {"tokens": -1},
            {"pic_times": -1},
            {"tokens": 10**15 + 1},
            {"audience": "x" * 101},
            {"audience": "a\0b"},
            {"expires_at": NOW},
            {"max_uses": 0},
        ],
    )
    def test_that_nobody_could_use_are_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput):
            new(**changes)


class TestStates:
    @pytest.mark.parametrize(
        ("changes", "state"),
        [
            ({}, "available"),
            ({"is_available": False, "expires_at": NOW}, "off"),
            ({"expires_at": NOW}, "expired"),
            ({"expires_at": NOW + timedelta(microseconds=1)}, "available"),
            ({"max_uses": 3, "uses": 3}, "used up"),
            ({"max_uses": 3, "uses": 2}, "available"),
            ({"uses": 10**9}, "available"),
        ],
    )
    def test_say_why_nobody_can_redeem(self, changes: dict[str, Any], state: str) -> None:
        assert dataclasses.replace(new(), **changes).state(NOW) == state


class TestAudience:
    @pytest.mark.parametrize(
        ("audience", "academy", "claimed", "may"),
        [
            (None, None, "", True),
            (None, "文学院", "", True),
            ("计算机学院", "计算机学院", "", True),
            ("School of Law", "school of law ", "", True),
            ("计算机学院", "文学院", "", False),
            # What the caller says does not beat what we know.
            ("计算机学院", "文学院", "计算机学院", False),
            ("计算机学院", "计算机学院", "文学院", True),
            # It counts where we know nothing.
            ("计算机学院", None, "计算机学院", True),
            ("计算机学院", None, "", False),
        ],
    )
    def test_is_the_account_s_academy(self, audience: str | None, academy: str | None, claimed: str, may: bool) -> None:
        assert new(audience=audience).is_for(academy, claimed=claimed) is may

    def test_a_long_claim_is_not_normalised(self) -> None:
        """Sorting combining marks takes quadratic time: 64 KB of them kept the event loop busy for seconds."""
        hostile = "a" + "\u0301" * 16_000 + "\u0323" * 16_000
        started = time.process_time()
        for _ in range(3):
            assert not new(audience="计算机学院").is_for(None, claimed=hostile)
        assert time.process_time() - started < 1
