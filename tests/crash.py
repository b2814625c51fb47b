"""A load of charged calls on servers that are being killed, and the proof afterwards that the books agree with it.

The clients behave as good ones do: each call has an ``Idempotency-Key``, and is sent again with it, to any server,
until there is a whole answer or a refusal. They write down what they were told; `Load.verdict` lays that beside the
database:

- each answer that a client holds whole is charged exactly once, with the amount that the client was told; repeated
  answers (by key) count once, and are the same byte for byte;
- a refused call is not charged, and nothing is charged that belongs to no call;
- what failed calls used is a loss with its reason, and no account leaves more than the bound unpaid;
- calls without a key are charged once if answered, at most once if the connection was lost;
- calls that hold slice by slice (`slices`) are charged what their process was told, and once;
- no balance is below zero, nothing is held at the end, and a dead server's hold was closed soon after its lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import io
import json
import random
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import sqlalchemy as sa
from PIL import Image

from aiproject.accounts.api_keys.model import KeyTerms, SpendCap
from aiproject.accounts.api_keys.service import ApiKeys
from aiproject.accounts.core.model import Account
from aiproject.adapters.db import migrations
from aiproject.adapters.db.engine import Database
from aiproject.adapters.db.schema import hold, ledger_entry, operator_loss, stored_answer, unpaid_usage, user
from aiproject.adapters.fault_points import FAULT_POINTS
from aiproject.ledger.model import Meter
from aiproject.ledger.service import LeaseTimes, Quotas
from aiproject.sandbox.platform import SandboxOptions
from bookkeeping import open_account
from forker import Forker, Served
from slices import PREFIX, WORKERS

__all__ = [
    "SANDBOX",
    "Call",
    "Load",
    "Node",
    "Ordeal",
    "Storm",
    "Tally",
    "Verdict",
    "await_quiet",
    "describe",
    "judge",
    "ledger_verify",
    "ordeal",
    "small_picture",
]

SANDBOX = SandboxOptions(first_frame_delay=0.02, frame_gap=0.01, use_engines=False)
"""A chat takes a fifth of a second, so that there are calls under way whenever a server is killed."""

PATIENCE = 180.0
"""Seconds after which a client gives a call up, undecided; a verdict counts that as a failure. More than a storm lasts:
while servers live two seconds each, a call that waits out the lease of the last one may die with forty in a row."""

SHORT_ANSWERS = 40
"""Completion limit; a hold is near its charge then, so that small balances go through many calls. As long as that, an
answer quotes its question."""


UNPAID_BOUND = 20_000
"""Tokens of failed calls that an account need not pay in a day: more than a load's accounts come to, so that a refused
call costs nothing."""


def _loopback_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- servers -----------------------------------------------------------------------------------------------------------


class Node:
    """One ``aiproject serve`` on a port of its own, which may be started any number of times.

    Args:
        settings: environment variables.
        directory: for its data and its log.
        arguments: further ones of the command.
    """

    def __init__(
        self, name: str, settings: dict[str, str], directory: Path, *, forker: Forker, arguments: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.port = _loopback_port()
        self.log_path = directory / f"{name}.log"
        self._forker = forker
        self._settings = {
            "AIPROJECT_DATA_DIR": str(directory / "data"),
            "AIPROJECT_LIMITS": "off",
            "AIPROJECT_LOG_LEVEL": "warning",
            "AIPROJECT_LOG_FORMAT": "json",
            "AIPROJECT_SHUTDOWN_GRACE": "3",
            "AIPROJECT_SPARK_MAX_TOKENS": str(SHORT_ANSWERS),
            "AIPROJECT_UNPAID_TOKENS_PER_DAY": str(UNPAID_BOUND),
            **settings,
        }
        self._arguments = arguments
        self._served: Served | None = None

    def start(self, *, fault_point: str | None = None) -> Served:
        """Start it; it is not ready yet."""
        settings = self._settings | ({"AIPROJECT_FAULT_POINT": fault_point} if fault_point else {})
        arguments = ["serve", "--port", str(self.port), *self._arguments]
        self._served = self._forker.start(self.name, arguments, settings, self.log_path)
        return self._served

    def await_ready(self, *, seconds: float = 30.0) -> bool:
        """Wait until it serves; false if it ended before, or does not serve in that time."""
        served = self._served
        assert served is not None
        until = time.monotonic() + seconds
        while served.status is None and time.monotonic() < until:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
            with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/ready")
                if connection.getresponse().status == 200:
                    return True
            time.sleep(0.02)
        return False

    @property
    def is_running(self) -> bool:
        return self._served is not None and self._served.status is None

    async def stop(self) -> int | None:
        """End it as an operator does; return its exit status, ``None`` if it does not end."""
        assert self._served is not None
        self._served.signal(signal.SIGTERM)
        return await self._served.ended(20)

    def kill(self) -> None:
        """End it at once, if it runs."""
        self.signal(signal.SIGKILL)
        while self.is_running:
            time.sleep(0.005)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._served is not None:
            self._served.signal(number)

    def log_tail(self, characters: int = 2000) -> str:
        """What it said last."""
        return self.log_path.read_text("utf-8", "replace")[-characters:] if self.log_path.exists() else ""


ANY_MOMENT, WHILE_STARTING, HELD_UP = "any moment", "while starting", "held up, then going on"
"""Deaths beside those at fault points."""


class Slicers:
    """Processes whose calls hold slice by slice: killed every now and then, and started again.

    Attributes:
        told: what a process was told that a call is charged, by request id; complete once they are stopped.
        kills: how many were killed in the midst of their calls.
    """

    def __init__(self, url: str, directory: Path, *, forker: Forker, lease: float, seed: str) -> None:
        self.told: dict[str, int] = {}
        self.kills = 0
        self._url = url
        self._log = directory / "slices.log"
        self._forker = forker
        self._lease = lease
        self._draw = random.Random(f"{seed}-slices")

    async def rage(self, database: Database) -> None:
        """Open their accounts, then start and kill processes until cancelled."""
        rich = await open_account(database, "sliced", tokens=10_000_000, voice_ms=0)
        capped = await open_account(database, "sliced with a key", tokens=10_000_000, voice_ms=0)
        terms, cap = KeyTerms("slices"), {Meter.TOKENS: SpendCap(total=5_000_000)}
        key = (await ApiKeys(database).create(capped.account_id, terms, cap)).key
        arguments = [self._url, str(self._lease), rich.username, f"{capped.username}={key.key_id}"]
        while True:
            served = self._forker.start("slices", arguments, {}, self._log, program="slices")
            try:
                await asyncio.sleep(self._draw.uniform(0.5, 2.5))
            finally:
                served.signal(signal.SIGKILL)
                self.kills += 1
            await served.ended(10.0)

    def judge(self, verdict: Verdict, charges: dict[str, list[dict[str, Any]]]) -> None:
        """Lay what the processes were told beside their charges, and take these out of ``charges``."""
        for line in self._log.read_text("utf-8").splitlines():
            identity, _, units = line.partition(" ")
            if identity.startswith(PREFIX):
                self.told[identity] = int(units)
            else:  # a traceback
                verdict.faults.append(f"slices: {line}")
        ours = {identity: charges.pop(identity) for identity in list(charges) if identity.startswith(PREFIX)}
        for identity, told in self.told.items():
            charged = [-entry["amount"] for entry in ours.get(identity, [])]
            verdict.expect(charged == [told], f"{identity} was told {told}, and charged {charged}")
        verdict.sliced = len(ours)
        untold = len(ours.keys() - self.told.keys())
        verdict.expect(untold <= self.kills * WORKERS, f"{untold} charges that nobody was told of")
        verdict.expect(self.told, "no call was settled slice by slice")


class Storm:
    """Kills servers, one after the other on each node, and starts them again.

    Args:
        nodes: all of which are running at the end of `rage`.
        lease: of holds, in seconds; a server is held up for longer than that.
    """

    def __init__(self, nodes: Sequence[Node], load: Load, *, lease: float, seed: str) -> None:
        self.faults: list[str] = []
        self._nodes = nodes
        self._load = load
        self._lease = lease
        self._draw = random.Random(f"{seed}-storm")

    def plan(self, kills: int) -> list[str]:
        """Draw the kinds of death: each fault point once, then half at the points and half at any moment.

        Some are cut off while they start, and some are held up for so long that everybody takes them for dead.
        """
        rest = [self._draw.choice(FAULT_POINTS) if index % 2 else ANY_MOMENT for index in range(kills)]
        for index in range(0, len(rest), 12):
            rest[index] = self._draw.choice([WHILE_STARTING, HELD_UP])
        self._draw.shuffle(rest)
        return [*self._draw.sample(FAULT_POINTS, len(FAULT_POINTS)), *rest][:kills]

    async def rage(self, deaths: Sequence[str], *, until: float) -> None:
        """Go through ``deaths``; return with every node running.

        Args:
            until: `time.monotonic` after which no further server is killed.
        """
        left = deque(deaths)

        async def haunt(node: Node) -> None:
            if deaths and node.is_running:
                node.kill()
                self._load.tally.kills[ANY_MOMENT] += 1
            while left and time.monotonic() < until:
                await self._kill(node, left.popleft())
            if not node.is_running:
                await self._revive(node)

        async with asyncio.TaskGroup() as group:
            for node in self._nodes:
                group.create_task(haunt(node))

    async def _kill(self, node: Node, death: str) -> None:
        """Bring a dead node to life, and to that death."""
        point = death if death in FAULT_POINTS else None
        # Dying at the first arrival, or in the midst of other calls.
        odds = self._draw.choice([1.0, 0.1, 0.03])
        served = node.start(fault_point=point and f"{point}:{odds}")
        if death == WHILE_STARTING:
            await asyncio.sleep(self._draw.uniform(0.0, 0.5))
        elif await asyncio.to_thread(node.await_ready):
            if death == HELD_UP:
                await asyncio.sleep(self._draw.uniform(0.2, 1.0))
                served.signal(signal.SIGSTOP)
                await asyncio.sleep(self._lease * self._draw.uniform(1.2, 1.8))
                served.signal(signal.SIGCONT)
                await asyncio.sleep(self._draw.uniform(0.1, 2.0))
            elif point is None:
                await asyncio.sleep(self._draw.uniform(0.1, 3.0))
            else:
                if await served.ended(10.0) is None:
                    death = f"{point}, not reached"
        served.signal(signal.SIGKILL)
        status = await served.ended(10.0)
        if status != -signal.SIGKILL:
            self.faults.append(f"{node.name} ended by itself with status {status}: {node.log_tail()}")
        self._load.tally.kills[death] += 1

    async def _revive(self, node: Node) -> None:
        node.start()
        if not await asyncio.to_thread(node.await_ready):
            self.faults.append(f"{node.name} does not start any more: {node.log_tail()}")


# -- calls -------------------------------------------------------------------------------------------------------------


@dataclass
class Reply:
    """What one attempt came to.

    Attributes:
        kind: ``whole``, ``refused``, ``later`` (come back), ``lost`` (perhaps served), ``unsent``.
        identity: the answer's ``X-Request-Id``.
        content: the whole answer as it is stored: the JSON, or the frames, one a line.
        units: what the answer says was consumed; ``None``: it does not say.
        code: of a refusal.
    """

    kind: str
    identity: str | None = None
    content: bytes = b""
    units: int | None = None
    code: str = ""


@dataclass
class Call:
    """One thing that a client wanted, with however many attempts it took.

    Attributes:
        key: the Idempotency-Key, if any.
        habit: ``plain``, ``twins`` (sent twice at once), ``leaver`` (hangs up, then comes back), ``asks again``.
        expected_units: what a picture or a clip costs; ``None``: the answer tells.
    """

    number: int
    account: Account
    service: str
    habit: str
    key: str | None
    body: bytes
    expected_units: int | None = None
    replies: list[Reply] = field(default_factory=list)

    @property
    def final(self) -> Reply | None:
        """The reply with which the client was content: the first whole one, or a refusal."""
        whole = next((reply for reply in self.replies if reply.kind == "whole"), None)
        if whole is not None or not self.replies:
            return whole
        return self.replies[-1] if self.replies[-1].kind == "refused" else None

    @property
    def state(self) -> str:
        """``answered``, ``refused``, ``lost`` (without a key; nobody knows) or ``undecided``."""
        final = self.final
        if final is None:
            return "lost" if self.key is None and self.replies else "undecided"
        return {"whole": "answered", "refused": "refused"}[final.kind]

    @property
    def units(self) -> int:
        assert self.final is not None
        units = self.final.units if self.expected_units is None else self.expected_units
        assert units is not None
        return units


PATHS = {
    "chat": "/textModel/chat",
    "stream": "/textModel/stream",
    "picture": "/PictureToTextModel/chat",
    "voice": "/voiceModel/chat",
}

UNPAID_ENDS = frozenset({"moderated", "truncated", "server killed"})
"""Outcomes of chats that upstream may bill and nobody pays."""

SPOILED = (
    "[[fault:error code=10013 at=first]]",
    "[[fault:error code=10014 at=middle]]",
    "[[fault:error code=11202 at=first]]",
    "[[fault:truncate after=1]]",
    "[[fault:reset after=2]]",
)
"""Chats that fail upstream, before or after their first frame."""

STREAM_COME_BACK = 20004
"""Code of an error frame where JSON would have had status 503."""


def small_picture() -> bytes:
    """A picture of some hundred bytes."""
    picture = io.BytesIO()
    Image.new("L", (24, 16), 200).save(picture, "PNG")
    return picture.getvalue()


@dataclass
class Tally:
    """What happened, for the summary."""

    kills: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)


class Load:
    """The clients and their accounts.

    Args:
        ports: of the servers, asked anew each time.
        seed: decides what is called in which order; not what the machine makes of it.
    """

    def __init__(self, database: Database, ports: Callable[[], Sequence[int]], *, seed: str) -> None:
        self.calls: list[Call] = []
        self.tally = Tally()
        self._database = database
        self._ports = ports
        self._seed = seed
        self._numbers = count(1)
        self._stopping = asyncio.Event()
        self._accounts: dict[str, list[Account]] = {}
        self._session: aiohttp.ClientSession
        self._picture = small_picture()

    @asynccontextmanager
    async def opened(self, *, rich: int = 6, poor: int = 2, keyless: int = 2) -> AsyncIterator[Load]:
        """Open the accounts: with plenty, with hardly anything, and for calls without a key."""
        for kind, number, tokens, pictures, milliseconds in (
            ("rich", rich, 10_000_000, 100_000, 1_000_000_000),
            ("poor", poor, 300, 3, 5_000),
            ("keyless", keyless, 10_000_000, 100_000, 1_000_000_000),
        ):
            self._accounts[kind] = [
                await open_account(
                    self._database, f"{kind}{index}", tokens=tokens, pic_times=pictures, voice_ms=milliseconds
                )
                for index in range(number)
            ]
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=5)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as self._session:
            yield self

    async def run(self, clients: int, *, calls_each: int | None = None) -> None:
        """Call until `stop`, or that often; returns when every client is done with its last call."""
        async with asyncio.TaskGroup() as group:
            granting = group.create_task(self._grant())
            workers = [group.create_task(self._client(index, calls_each)) for index in range(clients)]
            await asyncio.gather(*workers)
            granting.cancel()

    def stop(self) -> None:
        """Let every client finish the call in hand."""
        self._stopping.set()

    async def _grant(self) -> None:
        """Give the poor a little now and then, beside everything else that moves their balances."""
        quotas = Quotas(self._database, LeaseTimes(30))
        while True:
            await asyncio.sleep(1.0)
            for account in self._accounts["poor"]:
                # Not sure to be done where the database is away: the ledger knows, nobody here counts on it.
                with contextlib.suppress(Exception):
                    await quotas.grant(account, tokens=60, pic_times=1, voice_seconds=1)

    async def _client(self, index: int, calls_each: int | None) -> None:
        draw = random.Random(f"{self._seed}-{index}")
        done = 0
        while not self._stopping.is_set() and (calls_each is None or done < calls_each):
            call = self._think_of(draw)
            self.calls.append(call)
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._make(call, draw)
            except TimeoutError:
                self.tally.attempts["given up"] += 1
            done += 1
            await asyncio.sleep(draw.uniform(0, 0.03))

    def _think_of(self, draw: random.Random) -> Call:
        number = next(self._numbers)
        kind = draw.choices(["rich", "poor", "keyless"], [70, 12, 18])[0]
        account = draw.choice(self._accounts[kind])
        service = draw.choices(["chat", "stream", "picture", "voice"], [30, 35, 18, 17])[0]
        habit = draw.choices(["plain", "twins", "leaver", "asks again"], [64, 12, 14, 10])[0]
        key = f"{self._seed}-{number}-{draw.getrandbits(32):08x}"
        if kind == "keyless":
            habit, key = "plain", ""
        body, units = self._body(service, number, account, draw)
        return Call(number, account, service, habit, key or None, body, units)

    def _body(self, service: str, number: int, account: Account, draw: random.Random) -> tuple[bytes, int | None]:
        is_spoiled = draw.random() < 0.12
        match service:
            case "picture":
                return (b"no picture at all" if is_spoiled else self._picture), 1
            case "voice":
                milliseconds = draw.randrange(100, 400, 20)
                return draw.randbytes(2) * (16 * milliseconds), milliseconds
            case _:
                prompt = f"{draw.choice(SPOILED)} 问题{number}" if is_spoiled else f"问题{number}"
                dialog = [{"role": "user", "content": prompt}]
                return json.dumps({"uuid": account.uuid, "username": account.username, "dialog": dialog}).encode(), None

    # -- one call -------------------------------------------------------------------------------------------------

    async def _make(self, call: Call, draw: random.Random) -> None:
        if call.habit == "twins":
            await asyncio.gather(self._persist(call, draw), self._persist(call, draw))
        elif call.habit == "leaver":
            # Hangs up in the midst of it, and comes back for the answer.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(draw.uniform(0.01, 0.25)):
                    await self._attempt(call, draw)
            await self._persist(call, draw)
        else:
            await self._persist(call, draw)
            if call.habit == "asks again" and call.state == "answered":
                await self._persist(call, draw)

    async def _persist(self, call: Call, draw: random.Random) -> None:
        """Try until there is an answer; without a key only until the call may have been served."""
        while True:
            reply = await self._attempt(call, draw)
            if reply.kind in ("whole", "refused") or (reply.kind == "lost" and call.key is None):
                return
            await asyncio.sleep(draw.uniform(0.02, 0.2 if reply.kind != "later" else 0.6))

    async def _attempt(self, call: Call, draw: random.Random) -> Reply:
        port = draw.choice(list(self._ports()))
        headers = {} if call.key is None else {"Idempotency-Key": call.key}
        if call.service in ("chat", "stream"):
            headers["Content-Type"] = "application/json"
        else:
            headers |= {"uuid": call.account.uuid, "username": quote(call.account.username)}
            headers["Content-Type"] = "application/octet-stream"
        reply = Reply("lost")
        try:
            url = f"http://127.0.0.1:{port}{PATHS[call.service]}"
            async with self._session.post(url, data=call.body, headers=headers) as answer:
                reply.identity = answer.headers.get("X-Request-Id")
                body = await answer.read()
                _read(reply, call, answer.status, body)
        except aiohttp.ClientConnectorError:
            reply.kind = "unsent"
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            reply.kind = "lost"
        self.tally.attempts[reply.kind] += 1
        if reply.kind == "refused":
            self.tally.refusals[reply.code] += 1
        if reply.kind != "unsent":
            call.replies.append(reply)
        return reply


def _read(reply: Reply, call: Call, status: int, body: bytes) -> None:
    """Judge a response whose body has arrived as announced."""
    if status in (429, 503):
        reply.kind = "later"
        return
    if status != 200:
        reply.kind, reply.code = "refused", f"HTTP {status}"
        return
    lines = body.removesuffix(b"\n").split(b"\n")
    first = json.loads(lines[0])
    if "header" not in first:
        reply.code = str(first["code"])
        reply.kind = "whole" if first["code"] == 0 else "refused"
        reply.content = body
        reply.units = first.get("consume_token")
        return
    assert call.service == "stream"
    last = json.loads(lines[-1])
    reply.code = str(last["header"]["code"])
    if last["header"]["code"] == STREAM_COME_BACK:
        reply.kind = "later"
    elif last["header"]["code"] != 0:
        reply.kind = "refused"
    elif last["header"]["status"] == 2:
        reply.kind = "whole"
        reply.content = b"\n".join(lines)
        reply.units = last["payload"]["usage"]["text"]["total_tokens"]
    else:
        reply.code = "a stream that ends without a last frame"
        reply.kind = "refused"


# -- the verdict -------------------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What the books say of the load.

    Attributes:
        faults: everything that is wrong, in words; empty: the books are right.
        outcomes: of all holds.
        overdue: seconds, longest, that a dead server's hold stayed beyond its lease.
    """

    faults: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    charges: int = 0
    sliced: int = 0
    losses: int = 0
    overdue: float = 0.0

    def expect(self, is_right: object, fault: str) -> None:
        if not is_right:
            self.faults.append(fault)


async def await_quiet(database: Database, *, seconds: float) -> bool:
    """Wait until no hold is open; false if one still is after that time."""
    is_open = sa.select(sa.func.count()).select_from(hold).where(hold.c.state == "open")
    try:
        async with asyncio.timeout(seconds):
            while True:
                async with database.connect() as connection:
                    if not (await connection.execute(is_open)).scalar_one():
                        return True
                await asyncio.sleep(0.1)
    except TimeoutError:
        return False


async def judge(database: Database, load: Load, *, longest_overdue: float, slicers: Slicers | None = None) -> Verdict:
    """Lay what the clients know beside what the database holds. Nothing may be running any more.

    Args:
        longest_overdue: seconds that a hold may stay beyond its lease.
        slicers: were running beside the load.
    """
    verdict = Verdict()

    async def rows(table: sa.Table) -> list[dict[str, Any]]:
        async with database.connect() as connection:
            return [dict(row) for row in (await connection.execute(sa.select(table))).mappings()]

    holds = {row["request_id"]: row for row in await rows(hold)}
    answers = {(row["scope"], row["key_hash"]): row for row in await rows(stored_answer)}
    losses = {row["request_id"]: row for row in await rows(operator_loss)}
    charges: dict[str, list[dict[str, Any]]] = {}
    for entry in await rows(ledger_entry):
        if entry["kind"] == "charge":
            charges.setdefault(entry["request_id"], []).append(entry)
            verdict.charges += 1
    verdict.losses = len(losses)

    for row in holds.values():
        verdict.outcomes[f"{row['outcome'] or row['state']}"] += 1
        verdict.expect(row["state"] != "open", f"hold {row['request_id']} is still open")
        if row["outcome"] == "server killed":
            overdue = (row["closed_at"] - row["lease_until"]) / 1000
            verdict.overdue = max(verdict.overdue, overdue)
            verdict.expect(
                overdue <= longest_overdue, f"hold {row['request_id']} stood {overdue:.1f} s beyond its lease"
            )
    _judge_losses(verdict, holds, losses, await rows(unpaid_usage))
    if slicers is not None:
        slicers.judge(verdict, charges)
    for identity, entries in charges.items():
        verdict.expect(len(entries) == 1, f"request {identity} is charged {len(entries)} times")
    for row in await rows(user):
        name = row["UserName"]
        for column in ("Tokens", "PicTimes", "VoiceMs"):
            verdict.expect(row[column] >= 0, f"{name}: {column} is {row[column]}")
        for column in ("HeldTokens", "HeldPicTimes", "HeldVoiceMs"):
            verdict.expect(row[column] == 0, f"{name}: {column} is {row[column]}")

    accounted: set[str] = set()
    lost = Counter[int]()
    for call in load.calls:
        verdict.calls[call.state] += 1
        _judge_call(verdict, call, charges, losses, answers, accounted)
        if call.state == "lost":
            lost[call.account.account_id] += 1
    unaccounted = Counter[int]()
    for identity, entries in charges.items():
        if identity not in accounted:
            unaccounted[entries[0]["account_id"]] += 1
            verdict.expect(
                lost[entries[0]["account_id"]], f"request {identity} is charged, and no client has an answer for it"
            )
    for account_id, number in unaccounted.items():
        verdict.expect(
            number <= lost[account_id], f"account {account_id}: {number} charges for {lost[account_id]} lost calls"
        )
    return verdict


def _judge_losses(
    verdict: Verdict,
    holds: dict[str, dict[str, Any]],
    losses: dict[str, dict[str, Any]],
    counters: list[dict[str, Any]],
) -> None:
    """Look for what failed chats used: a loss for each, and within the bound what counts of them."""
    for identity, row in holds.items():
        has_key = row["stage"] != "held" or row["outcome"] == "server killed"
        if row["capability"] == "tokens" and row["outcome"] in UNPAID_ENDS and has_key:
            reason = losses[identity]["reason"] if identity in losses else None
            verdict.expect(reason == row["outcome"], f"hold {identity} ended as {row['outcome']}, its loss as {reason}")
    counted = Counter[tuple[int, int]]()
    for loss in losses.values():
        if loss["unpaid_day"] is not None:
            counted[loss["account_id"], loss["unpaid_day"]] += loss["unpaid"]
    stored = {(row["account_id"], row["day"]): row["tokens"] for row in counters}
    verdict.expect(stored == dict(counted), f"unpaid usage is {stored}, and the losses say {dict(counted)}")
    verdict.expect(
        all(tokens <= UNPAID_BOUND for tokens in stored.values()), f"unpaid usage is over the bound: {stored}"
    )


def _judge_call(
    verdict: Verdict,
    call: Call,
    charges: dict[str, list[dict[str, Any]]],
    losses: dict[str, dict[str, Any]],
    answers: dict[tuple[str, str], dict[str, Any]],
    accounted: set[str],
) -> None:
    name = f"call {call.number} ({call.service}, {call.habit})"
    final = call.final
    stored = None
    if call.key is not None:
        stored = answers.get((f"account {call.account.account_id}", hashlib.sha256(call.key.encode()).hexdigest()))
    if final is None:
        verdict.expect(call.state == "lost", f"{name} stayed undecided: {[reply.kind for reply in call.replies]}")
        return
    identities = {reply.identity for reply in call.replies if reply.identity is not None}
    if final.kind == "refused":
        charged = sorted(identity for identity in identities if identity in charges)
        verdict.expect(not charged, f"{name} was refused ({final.code}) and is charged: {charged}")
        verdict.expect(stored is None or stored["state"] != "done", f"{name} was refused and its answer is stored")
        verdict.expect(not final.code.startswith("HTTP"), f"{name} met a bug: {final.code}")
        return
    whole = [reply for reply in call.replies if reply.kind == "whole"]
    verdict.expect(
        all(reply.content == final.content for reply in whole), f"{name}: the same key gave different answers"
    )
    if call.service in ("chat", "stream"):
        verdict.expect(final.units, f"{name}: the answer tells no usage")
        if not call.account.username.startswith("poor"):  # those get short answers
            verdict.expect(f"问题{call.number}”" in _text(final.content), f"{name} got the answer to another question")
    identity = final.identity
    if call.key is not None:
        if stored is None or stored["state"] != "done":
            verdict.faults.append(f"{name} was answered and its answer is not stored")
            return
        verdict.expect(bytes(stored["answer"]) == final.content, f"{name}: another answer is stored than was given")
        identity = stored["request_id"]
    entries = charges.get(str(identity), [])
    verdict.expect(len(entries) == 1, f"{name} was answered and is charged {len(entries)} times")
    if entries:
        accounted.add(str(identity))
        lost = losses[str(identity)]["amount"] if str(identity) in losses else 0
        charged_units = -entries[0]["amount"] + lost
        verdict.expect(
            charged_units == call.units, f"{name} was told {call.units} units and is charged {charged_units}"
        )
        verdict.expect(entries[0]["account_id"] == call.account.account_id, f"{name} is charged to another account")


def _text(content: bytes) -> str:
    """What an answer says, whole or in frames."""
    said = []
    for line in content.split(b"\n"):
        told = json.loads(line)
        said.append(told["payload"]["choices"]["text"][0]["content"] if "header" in told else told["content"])
    return "".join(said)


def describe(load: Load, verdict: Verdict) -> list[str]:
    """The figures, a line each."""

    def listed(counter: Counter[str]) -> str:
        return ", ".join(f"{name} {number}" for name, number in sorted(counter.items()))

    tally = load.tally
    rows = [
        ("kills", str(tally.kills.total())),
        *((f"  {death}", str(number)) for death, number in sorted(tally.kills.items())),
        ("calls", f"{len(load.calls)}: {listed(verdict.calls)}"),
        ("attempts", f"{tally.attempts.total()}: {listed(tally.attempts)}"),
        ("refusals by code", listed(tally.refusals)),
        ("holds by outcome", listed(verdict.outcomes)),
        ("longest hold beyond its lease", f"{verdict.overdue:.1f} s"),
        ("charges", f"{verdict.charges}, {verdict.sliced} of calls that held slice by slice"),
        ("operator's losses", str(verdict.losses)),
    ]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


async def ledger_verify(forker: Forker, database_url: str, directory: Path) -> tuple[int | None, str]:
    """Run ``aiproject ledger verify``; return its exit status and what it printed."""
    log = directory / "verify.log"
    environment = {"AIPROJECT_DATABASE_URL": database_url, "AIPROJECT_DATA_DIR": str(directory / "data")}
    served = forker.start("verify", ["ledger", "verify"], environment, log)
    return await served.ended(120), await asyncio.to_thread(log.read_text, "utf-8")


# -- the whole ordeal --------------------------------------------------------------------------------------------------


@dataclass
class Ordeal:
    """A load, a storm, and what came of them.

    Attributes:
        verified: what ``ledger verify`` printed.
        seconds: from the first kill to the last.
    """

    load: Load
    verdict: Verdict
    verified: str
    seconds: float


async def ordeal(
    url: str,
    platform: dict[str, str],
    directory: Path,
    *,
    forker: Forker,
    kills: int,
    seconds: float,
    servers: int,
    clients: int,
    lease: float,
    seed: str,
) -> Ordeal:
    """Kill servers on an empty database while clients call; wait out the lease; judge.

    Args:
        platform: the settings that lead to the sandbox.
        seconds: after which nobody is killed any more.
    """
    database = await Database.open(url)
    try:
        await migrations.upgrade(database)
        settings = {**platform, "AIPROJECT_DATABASE_URL": url, "AIPROJECT_HOLD_LEASE": str(lease)}
        nodes = [Node(f"server{index}", settings, directory, forker=forker) for index in range(servers)]
        load = Load(database, lambda: [node.port for node in nodes], seed=seed)
        async with load.opened():
            storm = Storm(nodes, load, lease=lease, seed=seed)
            slicers = Slicers(url, directory, forker=forker, lease=lease, seed=seed)
            slicing = asyncio.create_task(slicers.rage(database))
            began = time.monotonic()
            calling = asyncio.create_task(load.run(clients))
            try:
                await storm.rage(storm.plan(kills), until=began + seconds)
            finally:
                load.stop()
                raged = time.monotonic() - began
                await calling
                slicing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await slicing
        # A hold is closed by the next sweep after its lease, of any server.
        longest_overdue = 2 * lease + 3
        is_quiet = await await_quiet(database, seconds=lease + longest_overdue)
        statuses = [await node.stop() for node in nodes]
        verdict = await judge(database, load, longest_overdue=longest_overdue, slicers=slicers)
        verdict.expect(is_quiet, "holds are still open after their lease and a sweep")
        verdict.expect(not any(statuses), f"servers did not end in good order: {statuses}")
        verdict.faults += storm.faults
        status, verified = await ledger_verify(forker, url, directory)
        verdict.expect(status == 0 and "difference 0" in verified, f"ledger verify: {verified}")
        return Ordeal(load, verdict, verified, raged)
    finally:
        await database.close()
