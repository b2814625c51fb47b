"""Names as keys, and account numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproject.adapters.db.schema import name_key, new_account_id


class TestNameKey:
    @pytest.mark.parametrize(
        ("name", "key"),
        [
            ("Alice", "alice"),
            ("  Ａｌｉｃｅ\u3000", "alice"),
            ("STRASSE", "strasse"),
            ("Straße", "strasse"),
            ("Jose\u0301", "jos\u00e9"),
            ("王小明", "王小明"),
            ("两 个", "两 个"),
            (" ", ""),
        ],
    )
    def test_sees_through_case_width_and_blanks_around(self, name: str, key: str) -> None:
        assert name_key(name) == key

    @given(st.text())
    def test_applied_twice_changes_nothing(self, name: str) -> None:
        assert name_key(name_key(name)) == name_key(name)

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_knows_no_case(self, name: str) -> None:
        assert name_key(name.casefold()) == name_key(name)


class TestAccountNumbers:
    NOW = datetime(2026, 5, 1, tzinfo=UTC)

    def test_rise_with_time_and_stay_exact_in_javascript(self) -> None:
        numbers = [new_account_id(self.NOW + timedelta(days=days)) for days in (0, 1, 365, 40_000)]
        assert numbers == sorted(numbers)
        assert all(0 < number < 1 << 53 for number in numbers)

    def test_of_one_second_differ(self) -> None:
        assert len({new_account_id(self.NOW) for _ in range(100)}) > 95

    def test_a_clock_that_is_far_off_is_refused(self) -> None:
        for year in (1970, 2200):
            with pytest.raises(ValueError, match="clock"):
                new_account_id(datetime(year, 1, 1, tzinfo=UTC))
