"""How failures add up to delays and locks; no I/O, and the time is an argument. Moments are milliseconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ADDRESS_RULE", "GUESS_RULE", "LOCKED_MS", "NAME_RULE", "NO_FAILURES", "FailureCount", "Rule"]

FIRST_DELAY_MS = 1000
MAX_DELAY_MS = 15 * 60 * 1000

LOCKED_MS = 24 * 60 * 60 * 1000
"""What somebody locked out is told to wait; tomorrow the answer is the same until somebody unlocks."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What failures lead to.

    Attributes:
        free: failures that cost no waiting; each one more doubles the delay, from a second up to 15 minutes.
        most: failures in a row from which on it is locked, whatever time passes; ``None``: never.
        forgiven_every: milliseconds after which one failure is forgotten; ``None``: only a success forgets, and all.
    """

    free: int
    most: int | None = None
    forgiven_every: int | None = None

    def delay(self, failures: int) -> int:
        """Return how many milliseconds after the last of so many failures the next attempt may come."""
        if failures <= self.free:
            return 0
        doublings = min(failures - self.free - 1, 32)  # past the longest delay by far, and a small number still
        return min(MAX_DELAY_MS, FIRST_DELAY_MS << doublings)


NAME_RULE = Rule(free=5, most=100)
"""Of a name, from anywhere. The bound of 100 in a row is NIST SP 800-63B-4, section 3.2.2."""

ADDRESS_RULE = Rule(free=200, forgiven_every=10_000)
"""Of an address, whatever the names. A school behind one address mistypes more than one person does, and successes
must not clear the count, since a guesser may have an account too; so time does."""

GUESS_RULE = Rule(free=60, forgiven_every=10_000)
"""Of wrong uuids and keys, by name and by address: 128 bits keep these, the rule keeps down the noise."""


@dataclass(frozen=True, slots=True)
class FailureCount:
    """The failures of one subject in a row.

    Attributes:
        failures: counted, attempts under way included.
        blocked_until: when the next attempt may come; 0: at once.
        last_failure_at: of the last one; where failures are forgiven, the moment up to which that has been done.
    """

    failures: int
    blocked_until: int
    last_failure_at: int

    def wait(self, rule: Rule, now: int) -> int:
        """Return for how many milliseconds no attempt may be made; 0: one may."""
        if rule.most is not None and self.failures >= rule.most:
            return LOCKED_MS
        return max(0, self.blocked_until - now)

    def counted(self, rule: Rule, now: int) -> FailureCount:
        """Return the tally with one failure more."""
        failures, forgiven_to = self.failures, now
        if rule.forgiven_every is not None:
            forgiven = max(0, now - self.last_failure_at) // rule.forgiven_every
            if forgiven < failures:
                # What is left of the time counts for the next one to be forgiven.
                forgiven_to = self.last_failure_at + forgiven * rule.forgiven_every
            failures = max(0, failures - forgiven)
        failures += 1
        delay = rule.delay(failures)
        return FailureCount(failures, now + delay if delay else 0, forgiven_to)

    def given_back(self, rule: Rule) -> FailureCount:
        """Return the tally after one of the attempts in it turned out to be none, or no failure."""
        failures = max(0, self.failures - 1)
        return FailureCount(failures, self.blocked_until if rule.delay(failures) else 0, self.last_failure_at)


NO_FAILURES = FailureCount(0, 0, 0)
