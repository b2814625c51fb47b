"""Unpaid usage, recomputed from the losses that count in it; a part of `aiproject.ledger.verify`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiproject.adapters.db.schema import operator_loss as losses
from aiproject.adapters.db.schema import unpaid_usage as usage
from aiproject.ledger.model import HoldState, LossReason, Outcome, Stage, rule_facts
from aiproject.ledger.rules import CHARGES, RULE_VERSION, Basis

__all__ = ["check_unpaid", "is_unpaid", "miscounted_unpaid"]

ROWS = 1000

Check = Callable[[str, int | str | None, int | str | None], bool]


def is_unpaid(hold: Any) -> bool:
    """Whether a hold's loss is of a call that its account need not pay, rather than what a charge left."""
    return hold.loss_reason in {str(LossReason.KEY_LOST), hold.outcome}


def check_unpaid(hold: Any, what: str, check: Check) -> None:
    """Check a hold with such a loss against the written table of this release.

    Args:
        hold: its row, with the members of its loss.
        what: how differences name it.
    """
    if hold.state == HoldState.OPEN:
        check(f"loss of the open hold {what}", 0, hold.lost)
    is_counted = hold.loss_day is not None
    if rule_facts(hold.rule).get("rule") != RULE_VERSION:
        return
    try:
        basis = CHARGES[Outcome(hold.outcome)][Stage(hold.stage)]
    except ValueError:
        return  # reported already
    is_bounded = basis is Basis.BOUNDED and hold.loss_reason != LossReason.KEY_LOST
    if not is_bounded:
        check(f"charge {what}", 0, hold.charged or 0)
    if is_counted and not is_bounded:
        check(f"day of the loss {what}", None, hold.loss_day)
    if is_counted != bool(hold.loss_unpaid):
        check(f"unpaid usage {what}", "some" if is_counted else 0, hold.loss_unpaid)
    if not 0 <= hold.loss_unpaid <= hold.lost:
        check(f"unpaid usage {what}", f"0 to {hold.lost}", hold.loss_unpaid)


async def miscounted_unpaid(connection: AsyncConnection) -> AsyncIterator[tuple[int, str, int, int]]:
    """Yield account, name, sum and counter of each day's unpaid usage that is not what its losses add up to."""
    counted = (
        select(losses.c.account_id, losses.c.unpaid_day, func.sum(losses.c.unpaid).label("tokens"))
        .where(losses.c.unpaid_day.is_not(None))
        .group_by(losses.c.account_id, losses.c.unpaid_day)
        .subquery()
    )
    same = and_(counted.c.account_id == usage.c.account_id, counted.c.unpaid_day == usage.c.day)
    total = func.coalesce(counted.c.tokens, 0)
    both = (
        select(usage.c.account_id, usage.c.day, total.label("expected"), usage.c.tokens)
        .select_from(usage.outerjoin(counted, same))
        .where(usage.c.tokens != total)
        .order_by(usage.c.account_id, usage.c.day)
        .limit(ROWS)
    )
    uncounted = (
        select(counted.c.account_id, counted.c.unpaid_day, counted.c.tokens)
        .select_from(counted.outerjoin(usage, same))
        .where(usage.c.account_id.is_(None))
        .order_by(counted.c.account_id, counted.c.unpaid_day)
        .limit(ROWS)
    )
    for account_id, day, expected, found in await connection.execute(both):
        yield account_id, f"unpaid usage of {day}", int(expected), found
    for account_id, day, expected in await connection.execute(uncounted):
        yield account_id, f"unpaid usage of {day}", int(expected), 0
