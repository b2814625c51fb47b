"""The fuzzer's harnesses without the fuzzer: a few hundred mutated inputs each, so that they do not rot."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from fuzz.targets import TARGETS, Target

INPUTS = 300


def mutated(target: Target, random_numbers: random.Random) -> Iterator[bytes]:
    """The seeds as they are, then with bytes changed, cut, doubled or spliced."""
    seeds = target.seeds()
    yield from seeds
    for _ in range(INPUTS - len(seeds)):
        data = bytearray(random_numbers.choice(seeds))
        for _ in range(random_numbers.randint(1, 4)):
            at = random_numbers.randrange(len(data) + 1)
            match random_numbers.randrange(5):
                case 0:
                    data[at : at + 1] = random_numbers.randbytes(1)
                case 1:
                    del data[at : at + random_numbers.randrange(1, 16)]
                case 2:
                    data[at:at] = data[at : at + random_numbers.randrange(1, 64)]
                case 3:
                    data[at:] = random_numbers.choice(seeds)[at:]
                case _:
                    data[at : at + 1] = random_numbers.choice([b"\0", b"\xff", b'"', b"-1", b"1e999", b"[" * 40, b"\n"])
        yield bytes(data[: target.longest])


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_it_ends_quietly(target: Target) -> None:
    for data in mutated(target, random.Random(target.name)):
        try:
            target.feed(data)
        except Exception as error:
            error.add_note(f"input: {data!r}")
            raise


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_its_seeds_are_small(target: Target) -> None:
    assert 0 < sum(map(len, target.seeds())) < 16_384
    assert all(len(seed) <= target.longest for seed in target.seeds())
