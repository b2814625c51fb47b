"""How what a page shows is compared with what its commands print."""

from __future__ import annotations

import pytest

from system.typed import Step, differences, steps


def test_the_block_after_commands_is_their_output() -> None:
    page = "# Page\n\n```sh\necho a\n```\n\nIt prints:\n\n```text\na\n```\n\n1. Then:\n\n   ```sh\n   echo b\n   ```\n"
    assert steps(page) == [Step(3, "echo a\n", "a\n"), Step(15, "echo b\n", None)]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("a\nb\n", "a\n\nb  \n"),
        ("id 83f49fa31c2c07f416c62e3a4a47b87a\n", "id b25a76bce97374e8b2f896c5c2129a7e\n"),
        ("voucher:4711337207754545\n", "voucher:822833760539268\n"),
        ("at 2026-11-22T12:25:02.636Z\n", "at 2026-11-28T21:06:36.542011Z\n"),
        ("first\n…\nlast\n", "first\nsecond\nthird\nlast\n"),
        ("code …\n", "code 404 and more\n"),
        ("begins\n…\n", "begins\nand goes on\n"),
    ],
)
def test_what_differs_between_two_runs_is_no_difference(shown: str, printed: str) -> None:
    assert differences(shown, printed) is None


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("tokens 56\n", "tokens 58\n"),
        ("id 83f49fa31c2c07f416c62e3a4a47b87a\n", "id none\n"),
        ("a\n", "a\nb\n"),
        ("a\nb\n", "a\n"),
        ("first\n…\nlast\n", "first\nsecond\n"),
        ("", "a\n"),
    ],
)
def test_everything_else_is(shown: str, printed: str) -> None:
    assert differences(shown, printed) is not None
