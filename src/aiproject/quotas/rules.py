"""The one written table: how a call ended, how far it had got, and what is charged for it.

`docs/quotas.md` shows the same table in plain words; a test compares the two.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType

from aiproject.quotas.model import MAX_UNITS, Outcome, Stage

__all__ = ["CHARGES", "RULE_VERSION", "Basis", "charge"]

RULE_VERSION = 1
"""Written into every hold and entry, so that an old one can be explained after the table has changed."""


class Basis(StrEnum):
    """What a charge is taken from."""

    NOTHING = "nothing"
    REPORTED = "reported"
    """What upstream reported; where it forgot to, our estimate of prompt and answer."""
    ESTIMATED = "estimated"
    """Our estimate of the prompt and of what was generated until then."""


def _row(held: Basis, sent: Basis, first_frame: Basis, last_frame: Basis) -> dict[Stage, Basis]:
    return {Stage.HELD: held, Stage.SENT: sent, Stage.FIRST_FRAME: first_frame, Stage.LAST_FRAME: last_frame}


_FREE = _row(Basis.NOTHING, Basis.NOTHING, Basis.NOTHING, Basis.NOTHING)

CHARGES = MappingProxyType(
    {
        # A whole answer. Before its last frame there is no such thing.
        Outcome.FINISHED: _row(Basis.NOTHING, Basis.NOTHING, Basis.NOTHING, Basis.REPORTED),
        # A failed call takes nothing, however much of it was seen.
        Outcome.UPSTREAM_FAILED: _FREE,
        Outcome.MODERATED: _FREE,
        Outcome.TRUNCATED: _FREE,
        Outcome.TIMED_OUT: _FREE,
        # Somebody who hangs up has used what was generated for them; otherwise all but the last word would be free.
        Outcome.CLIENT_GONE: _row(Basis.NOTHING, Basis.NOTHING, Basis.ESTIMATED, Basis.REPORTED),
        # Our fault.
        Outcome.SERVER_STOPPED: _FREE,
        Outcome.SERVER_FAILED: _FREE,
        Outcome.SERVER_KILLED: _FREE,
    }
)


def charge(outcome: Outcome, stage: Stage, *, reported: int | None, estimated: int) -> int:
    """Return the units to capture, from 0 to `MAX_UNITS`; 0 releases the hold.

    Args:
        reported: what upstream said was consumed, whatever number that is; ``None``: it said nothing.
        estimated: our estimate.
    """
    basis = CHARGES[outcome][stage]
    if basis is Basis.NOTHING:
        return 0
    units = reported if basis is Basis.REPORTED and reported is not None else estimated
    return min(max(units, 0), MAX_UNITS)
