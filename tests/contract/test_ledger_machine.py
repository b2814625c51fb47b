"""Random lives of accounts on each database, against a simple model: nothing is lost, charged twice or below zero.

Two nodes keep books on one database. They hold, settle, are held up, crash, come back and sweep up after each other;
commits break off in doubt. After each step every balance is what the model says, and the books are proved.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from aiproject.accounts.api_keys import store as key_store
from aiproject.accounts.api_keys.model import ApiKey, KeyTerms, SpendCap, SpendLimit
from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.model import Account
from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.errors import CommitInDoubt, TransientConflict
from aiproject.adapters.db.schema import hold as holds
from aiproject.adapters.db.schema import metadata, unpaid_usage
from aiproject.adapters.db.schema import user as users
from aiproject.errors import QuotaExhausted, Refused, SpendLimitReached, VoucherRedeemed
from aiproject.ledger.account_store import BALANCE, HELD
from aiproject.ledger.batcher import LedgerBatcher
from aiproject.ledger.model import Hold, Meter, Outcome, Stage
from aiproject.ledger.rules import CHARGES, Basis, charge
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.ledger.verify import verify
from aiproject.vouchers.model import Voucher
from aiproject.vouchers.service import Vouchers
from bookkeeping import open_account
from troubled_writer import TroubledWriter

T = TypeVar("T")

NODES = 2
NAMES = ("ann", "bob", "eve")
OPENINGS: dict[str, dict[str, Any]] = {
    "ann": {"tokens": 1000, "pic_times": 5},
    "bob": {"tokens": 40, "voice_ms": 30_000},
    "eve": {},
}
KEYS: dict[str, tuple[str, dict[Meter, SpendCap]]] = {
    "ann's daily": (
        "ann",
        {Meter.TOKENS: SpendCap(total=600, daily=250), Meter.PIC_TIMES: SpendCap(total=2)},
    ),
    "ann's open": ("ann", {}),
    "bob's": ("bob", {Meter.TOKENS: SpendCap(daily=30), Meter.VOICE_SECONDS: SpendCap(total=300, daily=200)}),
    "eve's": ("eve", {Meter.VOICE_SECONDS: SpendCap(total=500, daily=300)}),
}
LEASE = LeaseTimes(3600)
BOUND = 250
"""Tokens of failed calls that an account need not pay in a day."""

nodes = st.integers(0, NODES - 1)
names = st.sampled_from(NAMES)
# Whose call it is, and the key that it is made with; a name alone is none.
callers = st.sampled_from([*((name, None) for name in NAMES), *((whose, key) for key, (whose, _) in KEYS.items())])
Wanted = tuple[tuple[str, str | None], Meter, int, int]
capabilities = st.sampled_from(Meter)
amounts = st.integers(0, 400)
allowances = st.none() | st.integers(0, 700)
ends = st.tuples(st.sampled_from(Outcome), st.sampled_from(Stage), st.none() | st.integers(-5, 500), amounts)
likely_ends = st.tuples(st.just(Outcome.FINISHED), st.just(Stage.LAST_FRAME), st.none() | st.integers(0, 500), amounts)
End = tuple[Outcome, Stage, int | None, int]


def seen(end: End) -> int:
    """What the caller saw of a call: half of what was generated."""
    return end[3] // 2


# -- the model ---------------------------------------------------------------------------------------------------------


@dataclass
class ModelLimit:
    """What one key may spend of one capability."""

    cap: SpendCap
    holds: list[ModelHold] = field(default_factory=list)
    day: int = 0

    def used(self, day: int | None = None) -> int:
        """Spent or held, in all or on a day."""
        return sum(
            hold.amount if hold.is_open else hold.charged for hold in self.holds if day is None or hold.day == day
        )

    def free(self, day: int) -> float:
        left = [float("inf")]
        if self.cap.total is not None:
            left.append(self.cap.total - self.used())
        if self.cap.daily is not None:
            left.append(self.cap.daily - self.used(day))
        return min(left)

    def free_of_late(self, hold: ModelHold) -> float:
        if self.cap.daily is not None and hold.day != self.day:
            return 0  # nobody knows what is left of that day
        return max(0, self.free(self.day))


@dataclass
class ModelHold:
    account: ModelAccount
    capability: Meter
    amount: int
    stage: Stage = Stage.HELD
    noted: Stage = Stage.HELD
    outcome: Outcome | None = None
    is_open: bool = True
    is_captured: bool = False
    is_expired: bool = False
    charged: int = 0
    limit: ModelLimit | None = None
    day: int | None = None


@dataclass
class ModelAccount:
    balances: dict[Meter, int | None]
    holds: list[ModelHold] = field(default_factory=list)
    voice_used: int = 0
    unpaid: dict[int, int] = field(default_factory=dict)

    def held(self, capability: Meter) -> int:
        return sum(hold.amount for hold in self.holds if hold.is_open and hold.capability is capability)

    def free(self, capability: Meter) -> float:
        balance = self.balances[capability]
        return float("inf") if balance is None else balance - self.held(capability)

    def open(
        self, capability: Meter, want: int, need: int, limit: ModelLimit | None, day: int
    ) -> ModelHold | type[Refused]:
        free = self.free(capability)
        least = max(need, 1) if want else 0
        if free < least:
            return QuotaExhausted
        if limit is None:
            hold = ModelHold(self, capability, int(min(want, free)))
        else:
            free_of_key = limit.free(day)
            if free_of_key < least:
                return SpendLimitReached
            hold = ModelHold(self, capability, int(min(want, free, free_of_key)), limit=limit, day=day)
            limit.holds.append(hold)
            limit.day = day
        self.holds.append(hold)
        return hold

    def extend(self, hold: ModelHold, units: int, day: int) -> None:
        """Hold more for an open hold; with a key the whole of it counts on the day of its last slice."""
        if not hold.is_open:
            return
        units = int(max(0, min(units, self.free(hold.capability))))
        if hold.limit is not None:
            former, hold.day = hold.day, None  # its room is what the limit leaves without it
            hold.limit.holds.remove(hold)
            units = int(max(0, min(units, hold.limit.free(day) - hold.amount)))
            hold.limit.holds.append(hold)
            hold.day = day if units else former
            hold.limit.day = day if units else hold.limit.day
        hold.amount += units

    def leave_unpaid(self, units: int, day: int) -> int:
        """Count a failed call's units; return what is beyond the bound."""
        used = self.unpaid.get(day, 0)
        free = min(units, BOUND - used)
        if free:
            self.unpaid[day] = used + free
        return units - free

    def settle(self, hold: ModelHold, end: End, day: int) -> int:
        outcome, stage, reported, estimated = end
        units = charge(outcome, stage, reported=reported, estimated=estimated)
        if CHARGES[outcome][stage] is Basis.BOUNDED and hold.capability is Meter.TOKENS and hold.is_open:
            units = self.leave_unpaid(seen(end), day)
        is_late = not hold.is_open and hold.outcome is Outcome.SERVER_KILLED and units > 0
        if not hold.is_open and not (is_late and not hold.is_captured):
            return hold.charged
        limit = max(0, self.free(hold.capability)) if is_late else float("inf")
        if is_late and hold.limit is not None:
            limit = min(limit, hold.limit.free_of_late(hold))
        hold.is_open = False
        balance = self.balances[hold.capability]
        taken = int(min(units, hold.amount, limit, float("inf") if balance is None else balance))
        if balance is not None:
            self.balances[hold.capability] = balance - taken
        if hold.capability is Meter.VOICE_SECONDS:
            self.voice_used += taken
        hold.is_captured, hold.charged, hold.stage, hold.outcome = units > 0, taken, stage, outcome
        return taken

    def grant(self, capability: Meter, amount: int) -> None:
        if amount:
            balance = self.balances[capability] or 0
            free = max(0, balance - self.held(capability))
            self.balances[capability] = balance + max(amount, -free)


# -- the machine -------------------------------------------------------------------------------------------------------


@dataclass
class Call:
    """A hold of both worlds, and the node on which its call runs; ``None``: it is dead."""

    hold: Hold
    model: ModelHold
    node: int | None


@dataclass
class Calendar:
    """The day that the books' clock shows."""

    day: int = 20260101


class LedgerMachine(RuleBasedStateMachine):
    calls = Bundle("calls")

    def __init__(self, runner: asyncio.Runner, database: Database, calendar: Calendar) -> None:
        super().__init__()
        self._calendar = calendar
        self._runner = runner
        self._database = database
        self._all: list[Call] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    @initialize()
    def open_accounts(self) -> None:
        self.run(self._forget_former_lives())
        self._accounts: dict[str, Account] = {}
        self._model: dict[str, ModelAccount] = {}
        for name in NAMES:
            opening = OPENINGS[name]
            self._accounts[name] = self.run(open_account(self._database, f"{name} {secrets.token_hex(6)}", **opening))
            self._model[name] = ModelAccount(
                {
                    Meter.TOKENS: opening.get("tokens", 0),
                    Meter.PIC_TIMES: opening.get("pic_times", 0),
                    Meter.VOICE_SECONDS: opening.get("voice_ms"),
                }
            )
        self._keys: dict[str, ApiKey] = {}
        self._limits: dict[tuple[str, Meter], ModelLimit] = {}
        for label, (name, caps) in KEYS.items():
            new = self.run(ApiKeys(self._database).create(self._accounts[name].account_id, KeyTerms(label), caps))
            self._keys[label] = new.key
            for capability in Meter:
                self._limits[label, capability] = ModelLimit(caps.get(capability, SpendCap()))
        self._vouchers = Vouchers(self._database)
        self._voucher: Voucher = self.run(self._vouchers.add(tokens=70, pic_times=1))[0]
        self._redeemed: set[str] = set()
        self._writers = [TroubledWriter(self._database) for _ in range(NODES)]
        self._nodes = [self._node(number) for number in range(NODES)]

    async def _forget_former_lives(self) -> None:
        """Empty the database: whatever it held was proved, and would be proved again after each step."""
        async with self._database.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                await connection.execute(sa.delete(table))

    def _node(self, number: int) -> Quotas:
        return Quotas(self._database, LEASE, LedgerBatcher(self._database, self._writers[number]), unpaid_per_day=BOUND)

    # -- calls --

    @rule(target=calls, node=nodes, caller=callers, capability=capabilities, want=amounts, part=st.integers(0, 4))
    def hold(self, node: int, caller: tuple[str, str | None], capability: Meter, want: int, part: int) -> Any:
        return multiple(*self._hold_at_once(node, [(caller, capability, want, want * part // 4)]))

    @rule(
        target=calls,
        node=nodes,
        wanted=st.lists(st.tuples(callers, capabilities, amounts, st.just(0)), min_size=2, max_size=6),
    )
    def hold_at_once(self, node: int, wanted: list[Wanted]) -> Any:
        return multiple(*self._hold_at_once(node, wanted))

    def _hold_at_once(self, node: int, wanted: list[Wanted]) -> list[Call]:
        async def work() -> list[Hold | BaseException]:
            return await asyncio.gather(
                *(
                    self._nodes[node].hold(
                        self._accounts[name],
                        capability,
                        want,
                        need=need,
                        request_id=secrets.token_hex(8),
                        key_id=None if key is None else self._keys[key].key_id,
                    )
                    for (name, key), capability, want, need in wanted
                ),
                return_exceptions=True,
            )

        made = []
        for ((name, key), capability, want, need), result in zip(wanted, self.run(work()), strict=True):
            limit = None if key is None else self._limits[key, capability]
            expected = self._model[name].open(capability, want, need, limit, self._calendar.day)
            if isinstance(expected, type):
                assert isinstance(result, expected), repr(result)
                continue
            assert isinstance(result, Hold), repr(result)
            assert result.amount == expected.amount
            made.append(Call(result, expected, node))
        self._all += made
        return made

    @rule(call=calls, units=amounts)
    def extend(self, call: Call, units: int) -> None:
        self._extend_at_once([(call, units)])

    @rule(wanted=st.lists(st.tuples(calls, amounts), min_size=2, max_size=5, unique_by=lambda each: id(each[0])))
    def extend_at_once(self, wanted: list[tuple[Call, int]]) -> None:
        self._extend_at_once(wanted)

    def _extend_at_once(self, wanted: list[tuple[Call, int]]) -> None:
        """Whatever became of their holds meanwhile; a batch is one node's, as in `_settle_at_once`."""
        for node in range(NODES):
            ours = [(call, units) for call, units in wanted if call.node == node]

            async def work(node: int = node, ours: list[tuple[Call, int]] = ours) -> list[Hold]:
                return await asyncio.gather(*(self._nodes[node].extend(call.hold, units) for call, units in ours))

            for (call, units), extended in zip(ours, self.run(work()), strict=True):
                call.model.account.extend(call.model, units, self._calendar.day)
                assert extended.amount == call.model.amount
                call.hold = extended

    @rule(call=calls, stage=st.sampled_from(Stage))
    def go_on(self, call: Call, stage: Stage) -> None:
        if call.node is not None and call.model.is_open:
            self._nodes[call.node].note(call.hold, stage)
            call.model.noted = stage

    @rule(call=calls, end=likely_ends | ends)
    def settle(self, call: Call, end: End) -> None:
        self._settle_at_once([(call, end)])

    @rule(ended=st.lists(st.tuples(calls, likely_ends | ends), min_size=2, max_size=6))
    def settle_at_once(self, ended: list[tuple[Call, End]]) -> None:
        """Also the same one twice, which the first settlement decides."""
        self._settle_at_once(ended)

    def _settle_at_once(self, ended: list[tuple[Call, End]]) -> None:
        # A batch is one node's; those of the other follow, so that the model knows the order.
        for node in range(NODES):
            ours = [(call, end) for call, end in ended if call.node == node]

            async def work(node: int = node, ours: list[tuple[Call, End]] = ours) -> list[int]:
                return await asyncio.gather(
                    *(
                        self._nodes[node].settle(
                            call.hold, outcome, stage, reported=reported, estimated=estimated, seen=seen(end)
                        )
                        for call, end in ours
                        for outcome, stage, reported, estimated in [end]
                    )
                )

            has_trouble = bool(self._writers[node].troubles)
            told = self.run(work())
            expected = [call.model.account.settle(call.model, end, self._calendar.day) for call, end in ours]
            for (call, _), charged, taken in zip(ours, told, expected, strict=True):
                # A batch that is done again because its commit was in doubt finds its holds as it left them: of two
                # settlements of one hold, the first is told then what the second took.
                assert charged == taken or (has_trouble and charged == call.model.charged)

    # -- nodes --

    @rule(node=nodes)
    def renew(self, node: int) -> None:
        self.run(self._nodes[node].renew())
        for call in self._all:
            if call.node == node and call.model.is_open:
                call.model.is_expired = False
                call.model.stage = call.model.noted

    @rule(call=calls)
    def be_held_up(self, call: Call) -> None:
        """The lease runs out although the call lives."""
        self._expire([call])

    @rule(node=nodes)
    def crash(self, node: int) -> None:
        """The process is gone with all its calls; another takes its place, and later the leases run out."""
        lost = [call for call in self._all if call.node == node]
        for call in lost:
            call.node = None
        self._nodes[node] = self._node(node)
        self._expire(lost)

    def _expire(self, calls: list[Call]) -> None:
        async def work() -> None:
            async with self._database.begin() as connection:
                await connection.execute(
                    sa.update(holds)
                    .where(holds.c.request_id.in_([call.hold.request_id for call in calls]))
                    .values(lease_until=holds.c.opened_at - 1)
                )

        if calls:
            self.run(work())
        for call in calls:
            call.model.is_expired = True

    @rule(node=nodes)
    def sweep(self, node: int) -> None:
        orphans = [call.model for call in self._all if call.model.is_open and call.model.is_expired]
        assert self.run(self._nodes[node].sweep()) == len(orphans)
        for orphan in orphans:
            orphan.is_open, orphan.outcome = False, Outcome.SERVER_KILLED

    @rule(node=nodes, when=st.sampled_from(["after", "instead"]))
    def break_the_next_commit(self, node: int, when: str) -> None:
        if not self._writers[node].troubles:  # a second one would make the database count as away
            self._writers[node].trouble(CommitInDoubt("connection lost while committing"), when=when)

    @rule(node=nodes)
    def meet_others(self, node: int) -> None:
        self._writers[node].trouble(TransientConflict("deadlock"), times=2)

    # -- keys --

    @rule()
    def let_a_day_pass(self) -> None:
        self._calendar.day += 1

    @rule(label=st.sampled_from(list(KEYS)), capability=capabilities, caps=st.builds(SpendCap, allowances, allowances))
    def cap(self, label: str, capability: Meter, caps: SpendCap) -> None:
        """Also below what is spent: then nothing more can be."""
        key = self._keys[label]
        self.run(ApiKeys(self._database).change(key.account_id, key.prefix, caps={capability: caps}))
        self._limits[label, capability].cap = caps

    # -- money --

    @rule(name=names, tokens=st.integers(-500, 300), pictures=st.integers(-3, 3), seconds=st.integers(-20, 20))
    def grant(self, name: str, tokens: int, pictures: int, seconds: int) -> None:
        account = self._accounts[name]
        self.run(self._nodes[0].grant(account, tokens=tokens, pic_times=pictures, voice_seconds=seconds))
        self._model[name].grant(Meter.TOKENS, tokens)
        self._model[name].grant(Meter.PIC_TIMES, pictures)
        self._model[name].grant(Meter.VOICE_SECONDS, seconds * 1000)

    @rule(name=names)
    def redeem(self, name: str) -> None:
        try:
            self.run(self._vouchers.redeem(self._accounts[name], self._voucher.code))
        except VoucherRedeemed:
            assert name in self._redeemed
            return
        assert name not in self._redeemed
        self._redeemed.add(name)
        self._model[name].grant(Meter.TOKENS, 70)
        self._model[name].grant(Meter.PIC_TIMES, 1)

    # -- what holds at any time --

    @invariant()
    def the_database_is_the_model_s(self) -> None:
        """Read in one go: five runs of the loop with a connection each would take most of the test's time."""
        balances, unpaid, limits, stored, differences = self.run(self._read())
        assert differences == []
        self._compare_balances(balances)
        self._compare_unpaid(unpaid)
        self._compare_limits(limits)
        self._compare_holds(stored)

    async def _read(self) -> tuple[Any, ...]:
        numbers = [account.account_id for account in self._accounts.values()]
        columns = (users.c.AccountId, *BALANCE.values(), *HELD.values(), users.c.VoiceUsedMs)
        async with self._database.connect() as connection:
            balances = await connection.execute(sa.select(*columns).where(users.c.AccountId.in_(numbers)))
            unpaid = await connection.execute(sa.select(unpaid_usage).where(unpaid_usage.c.account_id.in_(numbers)))
            limits = await key_store.limits_of(connection, [key.key_id for key in self._keys.values()])
            stored = await connection.execute(sa.select(holds))
            rows = balances.all(), unpaid.all(), limits, stored.all()
        return *rows, [str(difference) async for difference in verify(self._database, overdue_seconds=86_400)]

    def _compare_balances(self, rows: Sequence[Any]) -> None:
        found = {row[0]: tuple(row[1:]) for row in rows}
        for name, account in self._accounts.items():
            model = self._model[name]
            expected = (*(model.balances[c] for c in BALANCE), *(model.held(c) for c in HELD), model.voice_used)
            assert found[account.account_id] == expected
            assert all(number is None or number >= 0 for number in expected)

    def _compare_unpaid(self, rows: Sequence[Any]) -> None:
        found = {(row.account_id, row.day): row.tokens for row in rows}
        assert found == {
            (account.account_id, day): tokens
            for name, account in self._accounts.items()
            for day, tokens in self._model[name].unpaid.items()
        }
        assert all(tokens <= BOUND for tokens in found.values())

    def _compare_limits(self, found: dict[int, dict[Meter, SpendLimit]]) -> None:
        for (label, capability), model in self._limits.items():
            stored = found[self._keys[label].key_id][capability]
            assert (stored.total, stored.daily) == model.cap
            assert stored.spent + stored.held == model.used()
            assert stored.day == model.day
            assert stored.day_spent + stored.day_held == model.used(model.day)

    def _compare_holds(self, rows: Sequence[Any]) -> None:
        models = {call.hold.request_id: call.model for call in self._all}
        assert len(rows) == len(models)
        for row in rows:
            model = models[row.request_id]
            state = "open" if model.is_open else "captured" if model.is_captured else "released"
            found = (row.state, row.stage, row.outcome, row.charged or 0, row.amount)
            assert found == (state, model.stage, model.outcome, model.charged, model.amount)

    def teardown(self) -> None:
        """All die; in the end nothing is held for ever."""
        self._expire([call for call in self._all if call.model.is_open])
        self.run(self._nodes[0].sweep())

        async def held() -> int:
            async with self._database.connect() as connection:
                return int(await connection.scalar(sa.select(sa.func.sum(sum(HELD.values(), sa.literal(0))))) or 0)

        assert self.run(held()) == 0


def test_random_lives(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calendar = Calendar()
    for module in ("key_limits", "unpaid"):
        monkeypatch.setattr(f"aiproject.ledger.{module}.day_of", lambda _now, _zone: calendar.day)

    async def prepared() -> Database:
        database = await Database.open(database_url)
        await migrations.upgrade(database)
        return database

    with asyncio.Runner() as runner:
        database = runner.run(prepared())
        try:
            run_state_machine_as_test(
                partial(LedgerMachine, runner, database, calendar),  # type: ignore[arg-type]
                settings=settings(
                    # Not shrunk: that takes minutes with a database, and the steps are told as they are.
                    phases=[Phase.explicit, Phase.reuse, Phase.generate],
                    max_examples=10,
                    stateful_step_count=30,
                    deadline=None,
                    suppress_health_check=[HealthCheck.too_slow],
                ),
            )
        finally:
            runner.run(database.close())
