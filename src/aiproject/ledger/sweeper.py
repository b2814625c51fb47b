"""Closing the holds of dead processes: whose lease has run out, nobody renews it."""

from __future__ import annotations

from aiproject.adapters.db.engine import Database
from aiproject.ledger.batch import apply
from aiproject.ledger.lease_store import expired_holds
from aiproject.ledger.model import Hold, Outcome, Settle, Settled, Unpaid, rule_facts
from aiproject.ledger.rules import charge

__all__ = ["SWEEP_LIMIT", "close_expired"]

SWEEP_LIMIT = 200
"""Orphans closed in one transaction."""


async def close_expired(database: Database) -> list[Hold]:
    """Close at most `SWEEP_LIMIT` holds whose lease has run out, by the table of charges; return those that were.

    Each is looked at again under its account's lock, so that of all sweepers and the owner, should it live after all,
    only one closes it.

    Raises:
        Unavailable: the database is away.
    """
    async with database.connect() as connection:
        expired = await expired_holds(connection, dialect=database.dialect, limit=SWEEP_LIMIT)
    if not expired:
        return []
    settlements = [
        Settle(
            hold=hold,
            charge=charge(Outcome.SERVER_KILLED, stage, reported=None, estimated=0),
            outcome=Outcome.SERVER_KILLED,
            stage=stage,
            expired_only=True,
            unpaid=Unpaid(_least_consumed(hold, rule)),
        )
        for hold, stage, rule in expired
    ]
    results = await database.transact(apply, settlements, dialect=database.dialect)
    return [
        settlement.hold for settlement, result in zip(settlements, results, strict=True) if isinstance(result, Settled)
    ]


def _least_consumed(hold: Hold, rule: str) -> int:
    """Return what a call consumed at least whose process is dead: of one that is answered gradually, its prompt."""
    if not hold.capability.spec.is_gradual:
        return hold.amount
    prompt = rule_facts(rule).get("prompt_estimate")
    return min(max(prompt, 0), hold.amount) if isinstance(prompt, int) else 0
