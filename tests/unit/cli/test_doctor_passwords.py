"""What ``doctor`` makes of the time that a hash takes."""

from __future__ import annotations

import pytest

from aiproject.cli.doctor import judge_hashing
from aiproject.messages.formatting import Language


def test_a_good_measure_is_left_alone() -> None:
    for seconds in (0.25, 0.3, 0.5):
        assert judge_hashing(65_536, 3, 4, seconds).level == "ok"


@pytest.mark.parametrize(
    ("profile", "seconds", "advice"),
    [
        ((65_536, 3, 4), 0.1, "AIPROJECT_ARGON2_PASSES=11"),
        ((65_536, 3, 4), 1.1, "AIPROJECT_ARGON2_PASSES=1"),
        ((65_536, 3, 4), 2.2, "AIPROJECT_ARGON2_MEMORY=19456 AIPROJECT_ARGON2_PASSES=2"),
        ((1_048_576, 3, 4), 3.0, "AIPROJECT_ARGON2_MEMORY=196608 AIPROJECT_ARGON2_PASSES=2"),
        ((19_456, 2, 1), 0.05, "AIPROJECT_ARGON2_PASSES=15"),
    ],
)
def test_what_is_advised(profile: tuple[int, int, int], seconds: float, advice: str) -> None:
    found = judge_hashing(*profile, seconds)
    assert found.level == "note"
    assert found.text(Language.EN).endswith(f": {advice}")


def test_never_below_the_least() -> None:
    assert judge_hashing(19_456, 2, 1, 5.0).level == "ok"
    weak = judge_hashing(19_456, 1, 1, 0.3)
    assert weak.level == "fix"
    assert "AIPROJECT_ARGON2_PASSES=2" in weak.text(Language.EN)


def test_what_is_advised_brings_it_within_the_measure() -> None:
    for seconds in (0.02, 0.1, 0.2, 0.6, 0.9):
        text = judge_hashing(65_536, 3, 4, seconds).text(Language.EN)
        passes = int(text.rpartition("PASSES=")[2])
        assert 0.25 <= seconds * passes / 3 <= 0.5, text
