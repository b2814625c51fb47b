"""``Idempotency-Key``: the same call twice gives one answer and one charge, whatever happens in between."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import stored_answer
from aiproject.calls import idempotency as replay
from aiproject.calls.idempotency import IdempotencyStore
from aiproject.errors import TooManyRequests, Unavailable, UpstreamFailed
from aiproject.ledger import idempotency as quota_keys
from aiproject.ledger.batcher import LedgerBatcher as RealBooks
from aiproject.ledger.service import LeaseTimes, Quotas
from crash import STREAM_COME_BACK, Node
from forker import shared_forker
from system import wire
from system.charged import CLIP, MILLISECONDS, SERVICES, Books, Caller, caller_of, cluster, opened_books
from system.harness import Platform

PLATFORM_SERVICES = {"chat": "chat", "stream": "chat", "picture": "ocr", "voice": "dictation"}
LEASE = 1.0

keys = (f"key-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def database_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("idempotency") / "books.db"


@pytest.fixture(scope="module")
def nodes(_platform: Platform, database_file: Path) -> Iterator[list[Node]]:
    """Two servers on one SQLite file, for all tests here that do not look at what a server leaves behind."""
    settings = {
        **_platform.address.environment(),
        "AIPROJECT_DATABASE_URL": f"sqlite:///{database_file}",
        "AIPROJECT_HOLD_LEASE": str(LEASE),
        "AIPROJECT_CLIENT_GONE_DRAIN": "0",
        "AIPROJECT_SPARK_MAX_TOKENS": "12",
        # A connection opened ahead would be seen by the platform, too.
        "AIPROJECT_SPARK_WARM_CONNECTIONS": "0",
    }
    nodes = [Node(f"idempotency{index}", settings, database_file.parent, forker=shared_forker()) for index in range(2)]
    for node in nodes:
        node.start()
        assert node.await_ready(), node.log_tail()
    yield nodes
    for node in nodes:
        node.kill()


@pytest.fixture
def node(nodes: list[Node], platform: Platform) -> Node:
    assert platform is not None  # which forgets the orders of the test before
    return nodes[0]


@pytest.fixture
async def books(nodes: list[Node], database_file: Path) -> AsyncIterator[Books]:
    assert nodes
    async with opened_books(f"sqlite:///{database_file}") as opened:
        yield opened


@pytest.fixture
async def caller(books: Books, node: Node) -> Caller:
    return await caller_of(books, node)


@contextlib.asynccontextmanager
async def replaying(database: Database, *, lease: float) -> AsyncIterator[IdempotencyStore]:
    """Keys as a server deals with them, in this process."""
    async with Quotas.running(database, LeaseTimes(lease)) as quotas:
        yield IdempotencyStore(database, quotas)


def is_success(answer: wire.Answer) -> bool:
    assert answer.is_complete
    if answer.chunks:
        return bool(answer.frames()[-1]["header"]["code"] == 0)
    return bool(answer.json()["code"] == 0)


class TestRepetition:
    @pytest.mark.parametrize("service", SERVICES)
    async def test_gives_the_stored_answer_and_charges_once(
        self, service: str, caller: Caller, books: Books, platform: Platform
    ) -> None:
        key = next(keys)
        seen = platform.counts(PLATFORM_SERVICES[service])["seen"]
        first = await caller.ask(service, key)
        again = await caller.ask(service, key)
        assert is_success(first)
        assert (again.status, again.body) == (200, first.body)
        assert [chunk.data for chunk in again.chunks] == [chunk.data for chunk in first.chunks]
        assert again.header("content-type") == first.header("content-type")
        assert again.header("x-request-id") != first.header("x-request-id")
        assert len(await books.charges(caller.account)) == 1
        assert len(await books.holds(caller.account)) == 1
        assert platform.counts(PLATFORM_SERVICES[service])["seen"] == seen + 1

    async def test_at_another_server(self, caller: Caller, books: Books, nodes: list[Node]) -> None:
        key = next(keys)
        first = await caller.ask("stream", key)
        again = await caller.at(nodes[1]).ask("stream", key)
        assert again.body == first.body
        assert len(await books.charges(caller.account)) == 1

    async def test_of_a_stream_may_ask_for_events(self, caller: Caller, books: Books) -> None:
        key = next(keys)
        plain = await caller.ask("stream", key)
        events = await caller.ask("stream", key, headers=[("Accept", "text/event-stream")])
        assert [chunk.data for chunk in events.chunks] == [
            b"data: " + chunk.data.removesuffix(b"\n") + b"\n\n" for chunk in plain.chunks
        ]
        assert len(await books.charges(caller.account)) == 1

    async def test_tells_the_usage_that_was_charged_where_upstream_told_none(
        self, caller: Caller, books: Books
    ) -> None:
        key = next(keys)
        prompt = "[[fault:usage value=missing]] 多少？"
        first = await caller.ask("stream", key, prompt=prompt)
        again = await caller.ask("stream", key, prompt=prompt)
        assert again.body == first.body
        told = again.frames()[-1]["payload"]["usage"]["text"]["total_tokens"]
        assert await books.charges(caller.account) == [told]

    async def test_needs_no_money(self, caller: Caller, books: Books, node: Node) -> None:
        """What was paid for can be had again when the balance is used up."""
        poor = await caller_of(books, node, pic_times=1)
        key = next(keys)
        first = await poor.ask("picture", key)
        assert is_success(first)
        assert (await poor.ask("picture", next(keys))).json()["code"] == "PIC_TIMES_NOT_ENOUGH"
        assert (await poor.ask("picture", key)).body == first.body


class TestAnotherCallWithTheKey:
    async def refused(self, answer: wire.Answer) -> None:
        told = answer.json()
        assert isinstance(told["code"], str)
        assert told["msg"] == "该 Idempotency-Key 已用于另一个请求"

    @pytest.mark.parametrize("service", ["chat", "stream"])
    async def test_with_another_question_is_refused(self, service: str, caller: Caller, books: Books) -> None:
        key = next(keys)
        assert is_success(await caller.ask(service, key, prompt="一"))
        await self.refused(await caller.ask(service, key, prompt="二"))
        assert len(await books.holds(caller.account)) == 1

    async def test_at_another_endpoint_is_refused(self, caller: Caller, books: Books) -> None:
        key = next(keys)
        assert is_success(await caller.ask("chat", key))
        await self.refused(await caller.ask("stream", key))
        assert len(await books.holds(caller.account)) == 1

    async def test_with_other_files_or_rates_is_refused(self, caller: Caller, books: Books) -> None:
        key = next(keys)
        assert is_success(await caller.ask("voice", key))
        await self.refused(await caller.ask("voice", key, body=CLIP + b"\x00\x00"))
        await self.refused(await caller.ask("voice", key, query="?rate=8000"))
        assert await books.charges(caller.account) == [MILLISECONDS]

    async def test_of_another_account_is_another_call(self, caller: Caller, books: Books, node: Node) -> None:
        other = await caller_of(books, node)
        key = next(keys)
        mine, theirs = await caller.ask("stream", key), await other.ask("stream", key)
        assert is_success(mine)
        assert is_success(theirs)
        assert mine.frames()[0]["header"]["sid"] != theirs.frames()[0]["header"]["sid"]
        assert len(await books.charges(caller.account)) == len(await books.charges(other.account)) == 1


class TestWaiting:
    @pytest.mark.parametrize("service", SERVICES)
    async def test_the_second_waits_for_the_first_and_gets_its_answer(
        self, service: str, caller: Caller, books: Books, nodes: list[Node], platform: Platform
    ) -> None:
        key = next(keys)
        platform.order(PLATFORM_SERVICES[service], "slow", seconds=0.3)
        first = asyncio.create_task(caller.ask(service, key))
        await asyncio.sleep(0.15)
        second = await caller.at(nodes[1]).ask(service, key)
        assert is_success(second)
        assert second.body == (await first).body
        assert len(await books.holds(caller.account)) == 1

    async def test_the_second_takes_its_turn_where_the_first_fails(
        self, caller: Caller, books: Books, nodes: list[Node], platform: Platform
    ) -> None:
        key = next(keys)
        platform.order("chat", "slow", seconds=0.3)
        prompt = "[[fault:error code=10013 at=middle after=1 times=1]] 你好"
        first = asyncio.create_task(caller.ask("chat", key, prompt=prompt))
        await asyncio.sleep(0.15)
        second = await caller.at(nodes[1]).ask("chat", key, prompt=prompt)
        assert not is_success(await first)
        assert is_success(second)
        assert await books.charges(caller.account) == [second.json()["consume_token"]]

    async def test_has_an_end(
        self, caller: Caller, books: Books, platform: Platform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Told to come back, with the seconds after which that makes sense."""
        monkeypatch.setattr(replay, "WAIT_SECONDS", 0.3)
        async with replaying(books.database, lease=60) as turns:
            scope = _scope(b"k")
            async with turns.claim(scope, caller.account.account_id, b"body"):
                with pytest.raises(TooManyRequests) as refusal:
                    async with turns.claim(_scope(b"k"), caller.account.account_id, b"body"):
                        pytest.fail("it was not its turn")
            assert refusal.value.retry_after > 0
            assert await books.stored(caller.account) == []

    @pytest.mark.parametrize("service", ["picture", "stream"])
    async def test_twenty_at_once_on_two_servers_are_one_call(
        self, service: str, database_url: str, platform: Platform, tmp_path: Path
    ) -> None:
        key = next(keys)
        async with (
            opened_books(database_url) as books,
            cluster(2, database_url, platform.address.environment(), tmp_path) as nodes,
        ):
            caller = await caller_of(books, nodes[0])
            answers = await asyncio.gather(*(caller.at(nodes[turn % 2]).ask(service, key) for turn in range(20)))
            assert all(is_success(answer) for answer in answers)
            assert len({answer.body for answer in answers}) == 1
            assert len(await books.charges(caller.account)) == 1
            assert len(await books.holds(caller.account)) == 1


class TestAFailedCall:
    @pytest.mark.parametrize("service", SERVICES)
    async def test_gives_its_key_up(self, service: str, caller: Caller, books: Books, platform: Platform) -> None:
        key = next(keys)
        http = {"http": 200} if service == "picture" else {}
        platform.order(PLATFORM_SERVICES[service], "error", code=10013, **http)
        assert not is_success(await caller.ask(service, key))
        assert await books.charges(caller.account) == []
        assert await books.stored(caller.account) == []
        assert is_success(await caller.ask(service, key))
        assert len(await books.charges(caller.account)) == 1

    async def test_gives_its_key_up_after_some_frames_too(
        self, caller: Caller, books: Books, platform: Platform
    ) -> None:
        key = next(keys)
        platform.order("chat", "truncate", after=2)
        cut = await caller.ask("stream", key)
        assert len(cut.chunks) == 3
        assert not is_success(cut)
        whole = await caller.ask("stream", key)
        assert is_success(whole)
        charged = whole.frames()[-1]["payload"]["usage"]["text"]["total_tokens"]
        assert await books.charges(caller.account) == [charged]

    async def test_gives_its_key_up_for_another_question(self, caller: Caller, books: Books) -> None:
        key = next(keys)
        assert not is_success(await caller.ask("picture", key, body=b"no picture"))
        assert is_success(await caller.ask("chat", key))
        assert len(await books.charges(caller.account)) == 1

    async def test_is_told_even_if_the_key_cannot_be_given_up(
        self, caller: Caller, books: Books, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with replaying(books.database, lease=60) as turns:

            async def call() -> None:
                async with turns.claim(_scope(b"k"), caller.account.account_id, b"body"):
                    monkeypatch.setattr(RealBooks, "submit", _away)
                    raise UpstreamFailed("the real trouble")

            with pytest.raises(UpstreamFailed, match="the real trouble"):
                await call()


async def _away(*_: object) -> None:
    raise Unavailable("the database is away")


def _scope(key: bytes, *, identity: str = "") -> dict[str, object]:
    return {
        "path": "/somewhere",
        "query_string": b"",
        "headers": [(b"idempotency-key", key)],
        "aiproject.record": {"request_id": identity or next(keys)},
    }


class TestTheKey:
    @pytest.mark.parametrize("key", ["k", "k" * 255, "钥匙".encode().decode("latin-1")])
    async def test_may_be_anything_of_1_to_255_bytes(self, key: str, caller: Caller, books: Books) -> None:
        assert is_success(await caller.ask("chat", key))
        assert is_success(await caller.ask("chat", key))
        assert len(await books.charges(caller.account)) == 1

    @pytest.mark.parametrize("given", [[""], ["k" * 256], ["one", "two"]])
    async def test_is_refused_otherwise(self, given: list[str], caller: Caller, books: Books) -> None:
        headers = [("Idempotency-Key", key) for key in given]
        answer = await caller.ask("chat", headers=headers)
        assert not is_success(answer)
        assert "Idempotency-Key 应为 1 到 255 个字符" in answer.json()["msg"]
        assert await books.holds(caller.account) == []

    async def test_of_an_anonymous_caller_means_nothing(self, books: Books, node: Node, platform: Platform) -> None:
        seen = platform.counts("dictation")["seen"]
        kind = [("Content-Type", "application/octet-stream"), ("Idempotency-Key", next(keys))]
        for _ in range(2):
            assert is_success(await wire.request(node.port, "POST", "/voiceModel/chat", kind, CLIP))
        assert platform.counts("dictation")["seen"] == seen + 2
        async with books.database.connect() as connection:
            scopes = (await connection.execute(sa.select(stored_answer.c.scope).distinct())).scalars().all()
        assert all(scope.startswith("account ") for scope in scopes)

    async def test_is_kept_for_a_day(self, caller: Caller, books: Books) -> None:
        key = next(keys)
        await caller.ask("chat", key)
        (row,) = await books.stored(caller.account)
        day = 24 * 3600
        assert row["expires_at"] / 1000 == pytest.approx(time.time() + day, abs=60)
        mine = stored_answer.c.scope == row["scope"]
        await books.change(sa.update(stored_answer).where(mine).values(expires_at=int((time.time() - 1) * 1000)))
        assert is_success(await caller.ask("chat", key, prompt="又一次"))
        assert len(await books.charges(caller.account)) == 2
        assert len(await books.stored(caller.account)) == 1


class TestTheTable:
    """On each database, without servers."""

    async def fill(self, database: Database, scope: str, number: int, *, expires_in: int) -> None:
        async with database.begin() as connection:
            for index in range(number):
                await connection.execute(
                    sa.insert(stored_answer).values(
                        scope=scope,
                        key_hash=f"{index:064x}",
                        body_hash="b" * 64,
                        request_id=f"request {index}",
                        state="done",
                        lease_until=0,
                        expires_at=int(time.time() * 1000) + expires_in + index,
                        answer=b"{}",
                    )
                )

    async def count(self, database: Database) -> int:
        async with database.connect() as connection:
            return int((await connection.execute(sa.select(sa.func.count()).select_from(stored_answer))).scalar_one())

    async def test_forgets_what_is_a_day_old(self, database: Database) -> None:
        await self.fill(database, "account 1", 25, expires_in=-100_000)
        async with replaying(database, lease=1) as turns:
            for number in range(3):
                async with turns.claim(_scope(b"%d" % number), 2, b"body") as claim:
                    assert claim.is_wanted
            assert await self.count(database) == 0

    async def test_keeps_a_bounded_number_for_an_account(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(quota_keys, "TRIM_ODDS", 1.0)
        monkeypatch.setattr(quota_keys, "MAX_KEYS_PER_ACCOUNT", 5)
        await self.fill(database, "account 1", 6, expires_in=1_000_000)
        await self.fill(database, "account 2", 9, expires_in=1_000_000)
        async with replaying(database, lease=1) as turns:
            async with turns.claim(_scope(b"new"), 1, b"body"):
                assert await self.count(database) == 5 + 1 + 9
            async with database.connect() as connection:
                left = await connection.execute(
                    sa.select(stored_answer.c.request_id).where(stored_answer.c.scope == "account 1")
                )
                assert sorted(left.scalars()) == [f"request {index}" for index in range(1, 6)], "the oldest goes"

    async def test_frees_the_key_of_a_dead_call_after_its_lease(self, database: Database) -> None:
        async with replaying(database, lease=0.6) as turns:
            dead = turns.claim(_scope(b"k"), 1, b"body")
            await dead.__aenter__()
            async with database.begin() as connection:  # as if it had been killed: nobody renews, nobody gives up
                await connection.execute(sa.update(stored_answer).values(request_id="of the dead"))
            began = time.monotonic()
            async with turns.claim(_scope(b"k"), 1, b"body") as claim:
                assert claim.is_wanted
                assert 0.3 < time.monotonic() - began < 3
            await dead.__aexit__(None, None, None)

    async def test_keeps_the_key_of_a_call_that_runs_longer_than_a_lease(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replay, "WAIT_SECONDS", 1.5)
        async with replaying(database, lease=0.6) as turns, turns.claim(_scope(b"k"), 1, b"body"):
            with pytest.raises(TooManyRequests):
                async with turns.claim(_scope(b"k"), 1, b"body"):
                    pytest.fail("it was not its turn")


class TestAKilledServer:
    @pytest.mark.parametrize("point", ["after claim", "at sent", "at last frame", "before commit of a settlement"])
    async def test_frees_the_key_after_its_lease(
        self, point: str, caller: Caller, books: Books, nodes: list[Node]
    ) -> None:
        """Nothing was charged; the call that comes back is a new one."""
        key = next(keys)
        answer = await _ask_a_dying(nodes, caller, key, point)
        assert is_success(answer)
        charged = answer.frames()[-1]["payload"]["usage"]["text"]["total_tokens"]
        assert await books.charges(caller.account) == [charged]

    @pytest.mark.parametrize("point", ["after settlement", "before reply"])
    async def test_leaves_the_answer_that_it_charged_for(
        self, point: str, caller: Caller, books: Books, nodes: list[Node], platform: Platform
    ) -> None:
        key = next(keys)
        seen = platform.counts("chat")["seen"]
        answer = await _ask_a_dying(nodes, caller, key, point)
        assert is_success(answer)
        assert platform.counts("chat")["seen"] == seen + 1
        charged = answer.frames()[-1]["payload"]["usage"]["text"]["total_tokens"]
        assert await books.charges(caller.account) == [charged]
        assert [row["state"] for row in await books.holds(caller.account)] == ["captured"]


async def _ask_a_dying(nodes: list[Node], caller: Caller, key: str, point: str) -> wire.Answer:
    """Ask a server that is killed at ``point``, then another with the same key; the first one lives again after it."""
    dying, other = nodes
    dying.kill()
    served = dying.start(fault_point=point)
    assert dying.await_ready()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await caller.ask("stream", key)
    assert await served.ended(5) == -signal.SIGKILL
    try:
        return await caller.at(other).ask("stream", key)
    finally:
        dying.start()
        assert dying.await_ready()


class TestAServerThatWasTakenForDead:
    """Held up for longer than its lease, as by a machine that swaps or a paused guest; then it goes on."""

    async def test_does_not_charge_for_a_key_that_is_in_other_hands(
        self, caller: Caller, books: Books, nodes: list[Node], platform: Platform
    ) -> None:
        key = next(keys)
        platform.order("chat", "slow", seconds=0.2)
        async with wire.Connection(caller.port) as connection:
            caller.begin(connection, "stream", key)
            held_up = await connection.head()
            await connection.chunk(held_up)
            nodes[0].signal(signal.SIGSTOP)
            try:
                answer = await caller.at(nodes[1]).ask("stream", key)
            finally:
                nodes[0].signal(signal.SIGCONT)
            while await connection.chunk(held_up) is not None:
                pass
        assert is_success(answer)
        last = held_up.frames()[-1]
        assert last["header"]["code"] == STREAM_COME_BACK, "it must not give an answer that nobody pays"
        charged = answer.frames()[-1]["payload"]["usage"]["text"]["total_tokens"]
        assert await books.charges(caller.account) == [charged]
        assert sorted(row["state"] for row in await books.holds(caller.account)) == ["captured", "released"]
        again = await caller.ask("stream", key)
        assert again.body == answer.body

    async def test_charges_for_an_answer_without_a_key_that_it_gives(
        self, caller: Caller, books: Books, nodes: list[Node], platform: Platform
    ) -> None:
        platform.order("chat", "slow", seconds=0.2)
        async with wire.Connection(caller.port) as connection:
            caller.begin(connection, "stream")
            held_up = await connection.head()
            await connection.chunk(held_up)
            nodes[0].signal(signal.SIGSTOP)
            await asyncio.sleep(LEASE * 2.5)
            nodes[0].signal(signal.SIGCONT)
            while await connection.chunk(held_up) is not None:
                pass
        assert is_success(held_up)
        charged = held_up.frames()[-1]["payload"]["usage"]["text"]["total_tokens"]
        assert await books.charges(caller.account) == [charged]
        balance = await books.balance(caller.account)
        assert balance["HeldTokens"] == 0


class TestAClientThatHangsUp:
    @pytest.mark.parametrize("service", ["chat", "stream"])
    async def test_finds_the_whole_answer_when_it_comes_back(
        self, service: str, caller: Caller, books: Books, platform: Platform
    ) -> None:
        """Though the server cuts answers off whose clients have gone: this one is sure to come back."""
        key = next(keys)
        platform.order("chat", "slow", seconds=0.3)
        seen = platform.counts("chat")["seen"]
        async with wire.Connection(caller.port) as connection:
            caller.begin(connection, service, key)
            if service == "stream":
                await connection.chunk(await connection.head())
            else:
                await asyncio.sleep(0.15)
            connection.reset()
        answer = await caller.ask(service, key)
        assert is_success(answer)
        assert platform.counts("chat")["seen"] == seen + 1
        told = answer.frames()[-1]["payload"]["usage"]["text"] if answer.chunks else json.loads(answer.body)
        assert await books.charges(caller.account) == [told.get("total_tokens") or told.get("consume_token")]
        (row,) = await books.holds(caller.account)
        assert row["outcome"] == "client gone"
