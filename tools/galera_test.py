#!/usr/bin/env python3
"""Stops, kills and freezes the nodes of a MariaDB Galera cluster under load, and shows that the books still add up.

    .venv/bin/python tools/galera_test.py [--rounds 2 | --brief] [--seed WORD]

Three nodes of Debian's ``mariadb-server`` and ``galera-4`` on loopback, each with one ``aiproject serve`` in front of
it; clients call any of these. In turn a node is stopped, killed and frozen, stays away for a while, and joins again by
the usual ways (incremental transfer, or rsync). Between these, servers are killed, too. Described in
docs/en/explanation/crash-tests.md; the exit status is 0 if nothing is wrong.

Wants MariaDB, Galera 4 and rsync, the machine's or those that tools/get_services.py unpacked; no privileges, and
nothing but loopback. Without them it says so and is skipped, or fails where ``AIPROJECT_REQUIRE_SERVICES=1`` demands
them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import pwd
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import asyncmy  # noqa: E402

from aiproject.adapters.db import migrations  # noqa: E402
from aiproject.adapters.db.engine import Database  # noqa: E402
from aiproject.adapters.log import configure  # noqa: E402
from aiproject.sandbox.running import SandboxThread  # noqa: E402
from crash import SANDBOX, Load, Node, Storm, Verdict, await_quiet, describe, judge, ledger_verify  # noqa: E402
from forker import Forker  # noqa: E402
from services import MariaDB, ServerMissing, find_galera, free_port  # noqa: E402

SUSPECT_SECONDS, INACTIVE_SECONDS = 4, 8
"""After which the others vote a silent node out; Galera's defaults are 5 and 15."""

AWAY_SECONDS = (4.0, 10.0)
"""How long a stopped or killed node stays away."""

FROZEN_SECONDS = 14.0
"""How long a node is frozen: it is voted out, and does not know."""

LEASE = 2.0


class GaleraNode(MariaDB):
    """A MariaDB that replicates with two others."""

    def __init__(self, number: int, group_ports: list[int]) -> None:
        self._galera = find_galera()
        super().__init__()
        self._number = number
        self._group_ports = group_ports
        self._ist_port, self._sst_port = free_port(), free_port()
        self._is_first_start = True
        self._is_founding = False
        if os.geteuid() == 0:
            # rsync's daemon, by which a node is given its state, refuses to act as root.
            entry = pwd.getpwnam("nobody")
            self._run_as, self._run_as_group = entry.pw_uid, entry.pw_gid
            os.chown(self.directory, entry.pw_uid, entry.pw_gid)
            if not self._may_run(Path(self._server)):
                self.remove()
                raise ServerMissing(f"as root, nodes run as `nobody`, who cannot reach {self._server}")

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.pathsep.join([*map(str, self._galera.programs), os.environ.get("PATH", os.defpath)])}

    def found(self) -> None:
        """Start as the first node of a new cluster."""
        self._is_founding = True
        self.start()
        self._is_founding = False

    def _initialise(self) -> None:
        self._run(
            [
                self._install,
                "--no-defaults",
                f"--datadir={self.directory / 'data'}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ]
        )

    def _command(self) -> list[str]:
        port = self._group_ports[self._number]
        options = {
            "gmcast.listen_addr": f"tcp://127.0.0.1:{port}",
            "ist.recv_addr": f"127.0.0.1:{self._ist_port}",
            "evs.keepalive_period": "PT0.5S",
            "evs.suspect_timeout": f"PT{SUSPECT_SECONDS}S",
            "evs.inactive_timeout": f"PT{INACTIVE_SECONDS}S",
            "gcache.size": "64M",
        }
        # The account comes with the state that a joining node is given; nobody may write before that.
        unwanted = ("--user=", *(() if self._is_founding else ("--init-file=",)))
        shared = [option for option in self._shared_options() if not option.startswith(unwanted)]
        return [
            self._server,
            "--no-defaults",
            *shared,
            "--binlog-format=ROW",
            "--default-storage-engine=InnoDB",
            "--innodb-autoinc-lock-mode=2",
            "--wsrep-on=ON",
            f"--wsrep-provider={self._galera.library}",
            "--wsrep-cluster-name=aiproject",
            f"--wsrep-cluster-address=gcomm://{','.join(f'127.0.0.1:{port}' for port in self._group_ports)}",
            f"--wsrep-node-address=127.0.0.1:{port}",
            f"--wsrep-node-name=node{self._number}",
            "--wsrep-sst-method=rsync",
            f"--wsrep-sst-receive-address=127.0.0.1:{self._sst_port}",
            f"--wsrep-provider-options={';'.join(f'{name}={value}' for name, value in options.items())}",
            *self._start_position(),
            *(["--wsrep-new-cluster"] if self._is_founding else []),
        ]

    def _start_position(self) -> list[str]:
        """Where a node that was killed has got to, as Debian's ``galera_recovery`` finds it out."""
        if self._is_first_start:
            self._is_first_start = False
            return []
        command = [
            self._server,
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            f"--pid-file={self.directory / 'recover.pid'}",
            f"--socket={self.directory / 'recover.sock'}",
            "--skip-networking",
            "--wsrep-on=ON",
            f"--wsrep-provider={self._galera.library}",
            "--wsrep-recover",
        ]
        done = subprocess.run(
            command, check=False, capture_output=True, timeout=60, cwd=self.directory, **self._identity()
        )
        found = re.findall(rb"Recovered position:? (\S+)", done.stderr)
        return [f"--wsrep-start-position={found[-1].decode()}"] if found else []

    async def status(self, name: str) -> str:
        """One of the node's ``wsrep_…`` words about itself."""
        connection = await asyncmy.connect(unix_socket=str(self.socket_path), user="root", connect_timeout=5)
        try:
            async with connection.cursor() as cursor:
                await cursor.execute(f"SHOW GLOBAL STATUS LIKE 'wsrep_{name}'")
                rows: Any = await cursor.fetchall()
        finally:
            await connection.ensure_closed()
        return str(rows[0][1])

    async def is_synced(self, size: int) -> bool:
        """Whether it serves, in a cluster of that many."""
        try:
            return (await self.status("local_state_comment"), await self.status("cluster_size")) == (
                "Synced",
                str(size),
            )
        except Exception:  # noqa: BLE001 - it does not answer yet
            return False


async def until_synced(cluster: list[GaleraNode], *, seconds: float = 60.0) -> bool:
    """Wait until every node serves and sees all of them."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if all([await node.is_synced(len(cluster)) for node in cluster]):
            return True
        await asyncio.sleep(0.2)
    return False


# -- the test ----------------------------------------------------------------------------------------------------------


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="disturb a Galera cluster under load and verify the books")
    parser.add_argument("--rounds", type=int, default=2, help="times that each of the three things is done to a node")
    parser.add_argument("--brief", action="store_true", help="kill one node and one server, and no more: for each day")
    parser.add_argument("--clients", type=int, default=18)
    parser.add_argument("--kills", type=int, default=4, help="servers killed between two of these")
    parser.add_argument("--seed", default=time.strftime("%Y%m%d%H%M%S"), help="decides who calls what and who falls")
    parser.add_argument("--logs", type=Path, help="folder for the servers' logs, which are deleted otherwise")
    options = parser.parse_args()
    if options.brief:
        options.rounds, options.clients, options.kills = 1, 6, 1
    try:
        find_galera()
        return disturb(options)
    except ServerMissing as reason:
        print(f"galera_test: MISSING: {reason}", file=sys.stderr)
        return 1 if os.environ.get("AIPROJECT_REQUIRE_SERVICES", "") not in ("", "0") else 0


def disturb(options: argparse.Namespace) -> int:
    """Run the test and print what happened; returns the exit status."""
    configure("error", "console")
    # The sandbox's clients die, and the databases that the pool says goodbye to.
    for name in ("aiohttp.server", "sqlalchemy.pool.impl.AsyncAdaptedQueuePool"):
        logging.getLogger(name).disabled = True
    with (
        tempfile.TemporaryDirectory(prefix="aiproject-galera-") as folder,
        contextlib.closing(Forker()) as forker,
        SandboxThread(SANDBOX) as sandbox,
        cluster_of_three() as nodes,
    ):
        directory = options.logs or Path(folder)
        directory.mkdir(parents=True, exist_ok=True)
        test = GaleraTest(nodes, sandbox.environment(), directory, forker, options)
        asyncio.run(test.run())
    for line in test.summary():
        print(line)
    return 1 if test.faults else 0


@contextlib.contextmanager
def cluster_of_three() -> Iterator[list[GaleraNode]]:
    """A running cluster, deleted at the end."""
    ports = [free_port() for _ in range(3)]
    nodes = [GaleraNode(number, ports) for number in range(3)]
    try:
        nodes[0].found()
        for node in nodes[1:]:
            node.start()
        yield nodes
    finally:
        for node in nodes:
            node.kill()
            node.remove()


class GaleraTest:
    """A load on three servers, each at another node of the cluster, while nodes and servers fall and come back."""

    def __init__(
        self,
        cluster: list[GaleraNode],
        platform: dict[str, str],
        directory: Path,
        forker: Forker,
        options: argparse.Namespace,
    ) -> None:
        self.faults: list[str] = []
        self._cluster = cluster
        self._platform = platform
        self._directory = directory
        self._forker = forker
        self._options = options
        self._seed = str(options.seed)
        self._draw = random.Random(f"{self._seed}-cluster")  # noqa: S311 - draws what happens
        self._done: list[str] = []
        self._verdicts: list[Verdict] = []
        self._verified: list[str] = []
        self._load: Load

    async def run(self) -> None:
        name = self._cluster[0].create_database()
        urls = [node.url(name) for node in self._cluster]
        databases = [await Database.open(url) for url in urls]
        try:
            if not await until_synced(self._cluster):
                self.faults.append("the cluster did not come up")
                return
            await migrations.upgrade(databases[0])
            await self._put_under_load(databases, urls)
            for database, url in zip(databases, urls, strict=True):
                await self._judge(database, url)
        finally:
            for database in databases:
                await database.close()

    async def _put_under_load(self, databases: list[Database], urls: list[str]) -> None:
        servers = [
            Node(
                f"server{number}",
                {**self._platform, "AIPROJECT_DATABASE_URL": url, "AIPROJECT_HOLD_LEASE": str(LEASE)},
                self._directory,
                forker=self._forker,
            )
            for number, url in enumerate(urls)
        ]
        load = self._load = Load(databases[0], lambda: [server.port for server in servers], seed=self._seed)
        storm = Storm(servers, load, lease=LEASE, seed=self._seed)
        async with load.opened():
            await storm.rage([], until=0)  # only starts them
            calling = asyncio.create_task(load.run(self._options.clients))
            try:
                for _ in range(self._options.rounds):
                    for disturbance in (self._kill,) if self._options.brief else (self._stop, self._kill, self._freeze):
                        await storm.rage(storm.plan(self._options.kills), until=time.monotonic() + 60)
                        if not await self._disturb(disturbance):
                            return
            finally:
                load.stop()
                await calling
                # Settlements that waited for a node are tried each second.
                await asyncio.sleep(2.0)
                if not await await_quiet(databases[0], seconds=LEASE * 3 + 3):
                    self.faults.append("holds are still open after their lease and a sweep")
                statuses = [await server.stop() for server in servers]
                if any(statuses):
                    self.faults.append(f"servers did not end in good order: {statuses}")
                self.faults += storm.faults

    async def _disturb(self, disturb: Callable[[GaleraNode], Awaitable[None]]) -> bool:
        node = self._draw.choice(self._cluster)
        began = time.monotonic()
        try:
            await disturb(node)
            is_whole = await until_synced(self._cluster)
        except RuntimeError as error:
            self.faults.append(str(error))
            return False
        if not is_whole:
            self.faults.append("the cluster is not whole again")
            return False
        what = (disturb.__doc__ or "").partition(".")[0]
        self._done.append(
            f"{what}: node {self._cluster.index(node)}, whole again after {time.monotonic() - began:.0f} s"
        )
        await asyncio.sleep(1.0)
        return True

    async def _stop(self, node: GaleraNode) -> None:
        """stopped in good order."""
        await asyncio.to_thread(node.stop)
        await asyncio.sleep(self._draw.uniform(*AWAY_SECONDS))
        await asyncio.to_thread(node.start)

    async def _kill(self, node: GaleraNode) -> None:
        """killed."""
        node.kill()
        await asyncio.sleep(self._draw.uniform(*AWAY_SECONDS))
        await asyncio.to_thread(node.start)

    async def _freeze(self, node: GaleraNode) -> None:
        """frozen, voted out, thawed."""
        node.pause()
        await asyncio.sleep(FROZEN_SECONDS)
        node.resume()

    async def _judge(self, database: Database, url: str) -> None:
        """Every node tells the same story."""
        verdict = await judge(database, self._load, longest_overdue=60.0)
        status, verified = await ledger_verify(self._forker, url, self._directory)
        verdict.expect(status == 0 and "difference 0" in verified, f"ledger verify: {verified}")
        self._verdicts.append(verdict)
        self._verified.append((verified.strip().splitlines() or ["said nothing"])[-1])
        number = len(self._verdicts) - 1
        self.faults += [f"node {number}: {fault}" for fault in verdict.faults]

    def summary(self) -> list[str]:
        lines = [f"seed {self._seed}", *self._done]
        for number, (verdict, verified) in enumerate(zip(self._verdicts, self._verified, strict=True)):
            lines.append(f"node {number}: {verdict.charges} charges, ledger verify: {verified}")
        if self._verdicts:
            lines += describe(self._load, self._verdicts[0])
        return [*lines, f"wrong: {len(self.faults)}", *(f"WRONG: {fault}" for fault in self.faults[:50])]


if __name__ == "__main__":
    sys.exit(main())
