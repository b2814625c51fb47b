"""The one written table: how a call ended, how far it had got, and what is charged for it.

`docs/en/explanation/quotas.md` shows the same table in plain words; a test compares the two.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType

from aiproject.ledger.model import MAX_UNITS, Outcome, Stage

__all__ = ["CHARGES", "RULE_VERSION", "Basis", "charge", "is_billable"]

RULE_VERSION = 2
"""Written into every hold and entry, so that an old one can be explained after the table has changed."""


class Basis(StrEnum):
    """What a charge is taken from."""

    NOTHING = "nothing"
    REPORTED = "reported"
    """What upstream reported; where it forgot to, our estimate of prompt and answer."""
    ESTIMATED = "estimated"
    """Our estimate of the prompt and of what was generated until then."""
    BOUNDED = "bounded"
    """Nothing, as long as the account has not used up its day's bound of unpaid usage; beyond that, our estimate of the
    prompt and of what was passed on to the caller."""


def _row(held: Basis, sent: Basis, first_frame: Basis, last_frame: Basis) -> dict[Stage, Basis]:
    return {Stage.HELD: held, Stage.SENT: sent, Stage.FIRST_FRAME: first_frame, Stage.LAST_FRAME: last_frame}


_FREE = _row(Basis.NOTHING, Basis.NOTHING, Basis.NOTHING, Basis.NOTHING)
_BOUNDED = _row(Basis.NOTHING, Basis.BOUNDED, Basis.BOUNDED, Basis.BOUNDED)

CHARGES = MappingProxyType(
    {
        # A whole answer. Before its last frame there is no such thing.
        Outcome.FINISHED: _row(Basis.NOTHING, Basis.NOTHING, Basis.NOTHING, Basis.REPORTED),
        # What upstream refused before it answered anything was neither generated nor seen.
        Outcome.UPSTREAM_FAILED: _row(Basis.NOTHING, Basis.NOTHING, Basis.BOUNDED, Basis.BOUNDED),
        # A failed call takes nothing, but it must not be a way to use the model for nothing.
        Outcome.MODERATED: _BOUNDED,
        Outcome.TRUNCATED: _BOUNDED,
        Outcome.TIMED_OUT: _BOUNDED,
        # Somebody who hangs up has used the prompt and what was generated; else all but the last word would be free.
        Outcome.CLIENT_GONE: _row(Basis.NOTHING, Basis.ESTIMATED, Basis.ESTIMATED, Basis.REPORTED),
        # A mistake of ours that one call meets may be one that its caller has found.
        Outcome.SERVER_FAILED: _BOUNDED,
        # These end the calls of everybody, so nobody pays for them: somebody could make others pay.
        Outcome.SERVER_STOPPED: _FREE,
        Outcome.SERVER_KILLED: _FREE,
    }
)


def charge(outcome: Outcome, stage: Stage, *, reported: int | None, estimated: int) -> int:
    """Return the units to capture in any case, from 0 to `MAX_UNITS`; 0 releases the hold.

    Where the table says `Basis.BOUNDED` that is 0; what is beyond the bound is known only to the ledger.

    Args:
        reported: what upstream said was consumed, whatever number that is; ``None``: it said nothing.
        estimated: our estimate.
    """
    basis = CHARGES[outcome][stage]
    if basis is Basis.NOTHING or basis is Basis.BOUNDED:
        return 0
    units = reported if basis is Basis.REPORTED and reported is not None else estimated
    return min(max(units, 0), MAX_UNITS)


def is_billable(outcome: Outcome, stage: Stage) -> bool:
    """Return whether upstream may bill a call that ended so, whoever pays it."""
    if outcome is Outcome.SERVER_KILLED:
        return True  # what the dead process noted last may be older than its question
    if stage is Stage.HELD:
        return False
    return not (outcome is Outcome.UPSTREAM_FAILED and stage is Stage.SENT)
