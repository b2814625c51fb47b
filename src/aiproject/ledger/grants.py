"""Grants and refunds, applied in the caller's transaction and noted in the audit log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

from aiproject.adapters.db.engine import Connection
from aiproject.audit.model import AuditContext, Fact
from aiproject.audit.store import record
from aiproject.errors import AiProjectError
from aiproject.ledger.account_store import name_and_balances
from aiproject.ledger.batch import apply
from aiproject.ledger.model import Grant, Kind, Meter, Refund, Refunded

__all__ = ["apply_grants", "apply_refund", "by_meter", "grants_of"]

A = TypeVar("A", int, int | None)


def by_meter(names: Mapping[str, Meter], amounts: Mapping[str, A]) -> dict[Meter, A]:
    """Return amounts by meter, in the table's order, whatever order they were named in.

    Args:
        names: of all meters.

    Raises:
        ValueError: there is no such meter.
    """
    if unknown := amounts.keys() - names.keys():
        raise ValueError(f"there are no such meters: {sorted(unknown)}")
    return {meter: amounts[name] for name, meter in names.items() if name in amounts}


def grants_of(account_id: int, units: Mapping[Meter, int | None], kind: Kind, reference: str) -> list[Grant]:
    """Return the grants of what is not ``None``. A grant of 0 makes an unmetered balance a metered one of 0."""
    return [Grant(account_id, meter, n, kind, reference) for meter, n in units.items() if n is not None]


async def apply_grants(
    connection: Connection, grants: Sequence[Grant], *, dialect: str, origin: AuditContext | None = None
) -> dict[Meter, int]:
    """Apply grants to one account in the caller's transaction; return what each really added or took.

    Args:
        grants: at least one.
        origin: whose act it is: an entry of the audit log; ``None``: none.

    Raises:
        AccountUnknown: there is no such account.
        InvalidInput: a balance would grow too large.
    """
    applied: dict[Meter, int] = {}
    for grant, result in zip(grants, await apply(connection, grants, dialect=dialect), strict=True):
        if isinstance(result, AiProjectError):
            raise result
        applied[grant.capability] = result if isinstance(result, int) else 0
    if origin is not None:
        await _record_balances(connection, origin, "user.grant", grants[0].account_id, applied)
    return applied


async def apply_refund(connection: Connection, refund: Refund, *, dialect: str, origin: AuditContext) -> Refunded:
    """Give back what a call was charged, in the caller's transaction.

    Args:
        origin: whose act it is, for the audit log.

    Raises:
        AccountUnknown: there is no such account.
        InvalidInput: it was charged nothing for such a call, or that was given back already.
    """
    (result,) = await apply(connection, [refund], dialect=dialect)
    if isinstance(result, AiProjectError):
        raise result
    if not isinstance(result, Refunded):
        raise TypeError(f"a refund ended as {type(result).__name__}")
    given_back = {result.capability: result.amount}
    call: dict[str, Fact] = {"call": refund.request_id, "attempt": result.attempt}
    await _record_balances(connection, origin, "ledger.refund", refund.account_id, given_back, call)
    return result


async def _record_balances(
    connection: Connection,
    origin: AuditContext,
    action: str,
    account_id: int,
    changes: Mapping[Meter, int],
    facts: Mapping[str, Fact] = MappingProxyType({}),
) -> None:
    """Append an entry to the audit log about balances that this transaction has changed by ``changes``.

    `aiproject.ledger.verify` compares it with the ledger: by the account's number, since names are changed.
    """
    name, now = await name_and_balances(connection, account_id)
    before: dict[str, Fact] = {str(each): each.shown(now[each] - amount) for each, amount in changes.items()}
    after: dict[str, Fact] = {str(each): each.shown(now[each]) for each in changes}
    await record(connection, origin, action, name, before=before, after={**after, "account": account_id, **facts})
