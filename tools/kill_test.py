#!/usr/bin/env python3
"""Kills servers under load, two hundred times and more, and shows that the books still add up.

    .venv/bin/python tools/kill_test.py --database sqlite|mysql|mariadb|postgresql|all [--kills 200] [--seed WORD]

Several ``aiproject serve`` processes share one database; the vendor's platform is the sandbox in this process. Clients
call and call again; meanwhile each server is killed with SIGKILL at a named point of its code or at any moment, and
started again. Described in docs/en/explanation/crash-tests.md; the exit status is 0 if nothing is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from aiproject.adapters.log import configure  # noqa: E402
from aiproject.sandbox.running import SandboxThread  # noqa: E402
from crash import SANDBOX, Ordeal, describe, ordeal  # noqa: E402
from forker import Forker  # noqa: E402
from services import MariaDB, MySQL, PostgreSQL, Server  # noqa: E402

SERVERS: dict[str, type[Server]] = {"mysql": MySQL, "mariadb": MariaDB, "postgresql": PostgreSQL}


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="kill servers under load and verify the books")
    parser.add_argument("--database", choices=["sqlite", *SERVERS, "all"], default="sqlite")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=900.0, help="kill nobody any more after this time")
    parser.add_argument("--servers", type=int, default=4, help="server processes")
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--lease", type=float, default=2.0, help="of holds and keys, in seconds")
    parser.add_argument("--seed", default=time.strftime("%Y%m%d%H%M%S"), help="decides who calls what and who dies how")
    parser.add_argument("--logs", type=Path, help="folder for the servers' logs, which are deleted otherwise")
    options = parser.parse_args()
    configure("warning", "console")
    logging.getLogger("aiohttp.server").disabled = True  # the sandbox's clients die, too
    kinds = ["sqlite", *SERVERS] if options.database == "all" else [options.database]
    failed = [kind for kind in kinds if not one_database(kind, options)]
    if failed:
        print(f"FAILED on {', '.join(failed)}")
    return 1 if failed else 0


def one_database(kind: str, options: argparse.Namespace) -> bool:
    """Run the test on one kind of database; returns whether all is well."""
    with (
        tempfile.TemporaryDirectory(prefix="aiproject-kill-") as folder,
        contextlib.closing(Forker()) as forker,
        SandboxThread(SANDBOX) as sandbox,
        database_of(kind, Path(folder)) as url,
    ):
        directory = options.logs or Path(folder)
        directory.mkdir(parents=True, exist_ok=True)
        result = asyncio.run(
            ordeal(
                url,
                sandbox.environment(),
                directory,
                forker=forker,
                kills=options.kills,
                seconds=options.seconds,
                servers=options.servers,
                clients=options.clients,
                lease=options.lease,
                seed=str(options.seed),
            )
        )
    show(kind, result, str(options.seed))
    return not result.verdict.faults


@contextlib.contextmanager
def database_of(kind: str, folder: Path) -> Iterator[str]:
    """An empty database, on a server of its own."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/data/aiproject.db"
        return
    server = SERVERS[kind]()
    try:
        server.start()
        yield server.url(server.create_database())
    finally:
        server.remove()


def show(kind: str, result: Ordeal, seed: str) -> None:
    """Print the summary."""
    verdict = result.verdict
    print(f"\ndatabase {kind}, seed {seed}, {result.seconds:.0f} s of kills")
    for line in describe(result.load, verdict):
        print(line)
    print(f"ledger verify: {(result.verified.strip().splitlines() or ['said nothing'])[-1]}")
    print(f"wrong: {len(verdict.faults)}")
    for fault in verdict.faults[:50]:
        print(f"WRONG: {fault}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
