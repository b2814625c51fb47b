"""The life of a meter that the package does not have; run by `tests/contract/test_new_meter.py` on a copy that has it.

Knows nothing of that meter but its name: everything else is derived from the table.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
import pytest

from aiproject.accounts.api_keys.model import KeyTerms, SpendCap
from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.model import Account
from aiproject.accounts.routes.key_schemas import KeyFields, caps_of, shown
from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from aiproject.codes import Code
from aiproject.errors import QuotaBusy, QuotaExhausted, SpendLimitReached
from aiproject.ledger.account_store import read_balances
from aiproject.ledger.model import Outcome, Stage
from aiproject.ledger.receipts import Receipts, explain
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify
from aiproject.meters import Meter
from bookkeeping import open_account, reread


async def before(database: Database) -> None:
    """An account of the release before, with a key."""
    ann = await open_account(database, "ann", tokens=100)
    await ApiKeys(database).create(ann.account_id, KeyTerms("old"), {})


async def after(database: Database) -> None:
    pages = Meter("pages")
    ann = await reread(database, "ann")
    keys = ApiKeys(database)
    async with Quotas.running(database, LeaseTimes(30)) as quotas:
        await quotas.grant(ann, pages=10)
        await hold_and_settle(quotas, ann, pages)
        assert (await read_balances(database, [ann.account_id]))[ann.account_id, pages] == (8, 0)

        refunded = await quotas.refund(ann, "call")
        assert (refunded.capability, refunded.amount) == (pages, 2)
        assert (await read_balances(database, [ann.account_id]))[ann.account_id, pages] == (10, 0)

        (old,) = await keys.list(ann.account_id)
        fields = msgspec.convert({"limits": {"pages": {"total": 3, "daily": 2}}}, KeyFields)
        assert caps_of(fields) == {pages: SpendCap(3, 2)}
        await keys.change(ann.account_id, old.key.prefix, caps=caps_of(fields))
        hold = await quotas.hold(ann, pages, 2, request_id="by key", key_id=old.key.key_id)
        await expect(SpendLimitReached, quotas, ann, pages, 1, key_id=old.key.key_id)
        await quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=1)
        (old,) = await keys.list(ann.account_id)
        assert msgspec.to_builtins(shown(old, today=0).limits)["pages"]["spent"] == 1

        await expect(QuotaExhausted, quotas, ann, pages, 11)
        assert (await read_balances(database, [ann.account_id]))[ann.account_id, pages] == (9, 0)

    (receipt,) = await Receipts(database).of_call(ann.account_id, "call")
    assert explain(receipt).en == "The call was finished. Charged 2 pages, by the page. Later 2 pages given back."
    assert explain(receipt).zh == "调用已完成。按页扣除 2 页。之后已退还 2 页。"
    assert receipt.capability.spec.unit == "page"
    assert [str(difference) async for difference in verify(database)] == []


async def hold_and_settle(quotas: Quotas, ann: Account, pages: Meter) -> None:
    hold = await quotas.hold(ann, pages, 3, request_id="call")
    hold = await quotas.extend(hold, 4)
    assert hold.amount == 7
    await expect(QuotaBusy, quotas, ann, pages, 4)
    assert await quotas.settle(hold, Outcome.FINISHED, Stage.LAST_FRAME, reported=2) == 2


async def expect(
    kind: type[QuotaExhausted] | type[SpendLimitReached],
    quotas: Quotas,
    ann: Account,
    pages: Meter,
    units: int,
    key_id: int | None = None,
) -> None:
    with pytest.raises(kind) as caught:
        await quotas.hold(ann, pages, units, request_id="refused", key_id=key_id)
    assert caught.type is kind
    assert caught.value.answer_code in (Code.QUOTA_NOT_ENOUGH, Code.KEY_LIMIT_REACHED)


async def main(url: str, step: str) -> None:
    database = await Database.open(url)
    try:
        await migrations.upgrade(database)
        await {"before": before, "after": after}[step](database)
    finally:
        await database.close()
    sys.stdout.write(f"lived {step} the upgrade\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
