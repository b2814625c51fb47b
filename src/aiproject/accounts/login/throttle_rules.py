"""The rules by which failures become delays and locks. No I/O; timestamps are arguments, in milliseconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ADDRESS_RULE", "GUESS_RULE", "LOCKED_MS", "NAME_RULE", "NO_FAILURES", "FailureCount", "Rule"]

FIRST_DELAY_MS = 1000
MAX_DELAY_MS = 15 * 60 * 1000

LOCKED_MS = 24 * 60 * 60 * 1000
"""The wait that a locked caller is given. The lock does not expire: an administrator, or another password, ends it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The consequence of failures.

    Attributes:
        free: failures without a delay; each further one doubles it, from one second up to 15 minutes.
        most: failures in a row after which the subject is locked for good; ``None``: never.
        forgiven_every: milliseconds after which one failure expires; ``None``: only a success deletes them all.
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
"""For a name, from any address. The limit of 100 in a row is NIST SP 800-63B-4, section 3.2.2."""

ADDRESS_RULE = Rule(free=200, forgiven_every=10_000)
"""For an address, whatever the names. A school behind one address mistypes more often than one user does. A success
does not clear the count, since an attacker may have an account, too; so failures expire."""

GUESS_RULE = Rule(free=60, forgiven_every=10_000)
"""For wrong uuids and keys, by name and by address. Their 128 bits cannot be guessed; the rule limits the load."""


@dataclass(frozen=True, slots=True)
class FailureCount:
    """The failures of one subject in a row.

    Attributes:
        failures: the number of them, attempts in progress included.
        blocked_until: when the next attempt is allowed; 0: at once.
        last_failure_at: of the last one; where failures expire, the time up to which that is accounted for.
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
        """Return the count with one more failure."""
        failures, forgiven_to = self.failures, now
        if rule.forgiven_every is not None:
            forgiven = max(0, now - self.last_failure_at) // rule.forgiven_every
            if forgiven < failures:
                # The remainder of the time counts towards the expiry of the next one.
                forgiven_to = self.last_failure_at + forgiven * rule.forgiven_every
            failures = max(0, failures - forgiven)
        failures += 1
        delay = rule.delay(failures)
        return FailureCount(failures, now + delay if delay else 0, forgiven_to)

    def given_back(self, rule: Rule) -> FailureCount:
        """Return the count without one of its attempts, which turned out not to be a failure."""
        failures = max(0, self.failures - 1)
        return FailureCount(failures, self.blocked_until if rule.delay(failures) else 0, self.last_failure_at)


NO_FAILURES = FailureCount(0, 0, 0)
