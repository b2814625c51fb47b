"""What is compared: each contender is started the same way and answers the same calls."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.relay.load import Target
from bench.relay.processes import SERVER_CORE, Started, start

__all__ = ["Contender", "aiproject", "bare_relay", "litellm", "seed_stack"]

PEOPLE = 20
"""Accounts that the load takes turns with."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A running server and how it is called.

    Attributes:
        folder: of its data, where it has some.
        slowness: it is given so many times fewer calls than the others, so that a round does not take minutes.
        database_pid: of the database server that works for it, whose CPU is told apart.
        key: it speaks OpenAI's dialect and wants this key.
    """

    name: str
    process: Started
    accounts: list[tuple[str, str]]
    folder: Path | None = None
    slowness: int = 1
    database_pid: int | None = None
    key: str | None = None

    def target(self, path: str, orders: str, frames: int) -> Target:
        """Return a call of it that orders ``frames`` frames; ``path`` is the seed's."""
        orders = f"frames={frames} {orders}".strip()
        if self.key is None:
            return Target(self.process.port, path, orders, frames, self.accounts)
        body: dict[str, object] = {"model": "bench", "messages": [{"role": "user", "content": f"please {orders}"}]}
        return Target(
            self.process.port,
            "/v1/chat/completions",
            orders,
            frames,
            self.accounts,
            {"Authorization": f"Bearer {self.key}"},
            {**body, "stream": path.endswith("stream")},
        )


@contextmanager
def aiproject(
    upstream: int,
    *,
    name: str = "AiProject",
    database: str = "",
    cores: set[int] = SERVER_CORE,
    settings: Mapping[str, str] | None = None,
    people: int = PEOPLE,
    filled: tuple[Path, list[tuple[str, str]]] | None = None,
    database_pid: int | None = None,
) -> Iterator[Contender]:
    """Run AiProject, full path but for the rate limits, since all callers come from one address: accounts, books, log.

    Args:
        upstream: port of `bench.relay.upstream`.
        database: address; empty: SQLite in a folder of its own.
        filled: a folder with a database that has accounts already, and those that the load takes turns with.
    """
    with ExitStack() as stack:
        if filled is None:
            folder, accounts = Path(tempfile.mkdtemp(prefix="aiproject-bench-")), list[tuple[str, str]]()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        else:
            folder, accounts = filled
        environment = {
            "AIPROJECT_DATA_DIR": str(folder),
            "AIPROJECT_IFLYTEK_APP_ID": "bench",
            "AIPROJECT_IFLYTEK_API_KEY": "bench-key",
            "AIPROJECT_IFLYTEK_API_SECRET": "bench-secret",
            "AIPROJECT_SPARK_URL": f"ws://127.0.0.1:{upstream}/v3.5/chat",
            "AIPROJECT_SIGNUP_TOKENS": str(10**12),
            "AIPROJECT_LIMITS": "off",
            # Passwords are not what is measured here; they make the accounts before.
            "AIPROJECT_ARGON2_MEMORY": "19456",
            "AIPROJECT_ARGON2_PASSES": "1",
            **({"AIPROJECT_DATABASE_URL": database} if database else {}),
            **(settings or {}),
        }
        process = start("bench.relay.gateway", cores=cores, environment=environment, log=folder / "log")
        stack.callback(process.stop)
        accounts = accounts or [_register(process.port, f"person {n}") for n in range(people)]
        yield Contender(name, process, accounts, folder, database_pid=database_pid)


@contextmanager
def bare_relay(upstream: int) -> Iterator[Contender]:
    """Run the bare ASGI relay."""
    with _plain("bare ASGI relay", "bench.relay.bare", upstream) as contender:
        yield contender


@contextmanager
def seed_stack(upstream: int, python: str) -> Iterator[Contender]:
    """Run the Flask and gevent relay with the Python of its own environment."""
    with _plain("Flask + gevent relay", "bench.relay.seed_stack", upstream, slowness=4, python=python) as contender:
        yield contender


@contextmanager
def litellm(upstream: int, python: str) -> Iterator[Contender]:
    """Run LiteLLM's proxy with the Python of its own environment, in front of `bench.relay.openai_upstream`.

    Without a database; callers show the master key, without which it does not start.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="aiproject-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        key = f"sk-{secrets.token_hex(16)}"
        environment = {
            "BENCH_UPSTREAM": f"http://127.0.0.1:{upstream}/v1",
            "BENCH_FOLDER": str(folder),
            "LITELLM_MASTER_KEY": key,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would load the price list from the network
            "LITELLM_LOG": "ERROR",
        }
        process = start(
            "bench.relay.litellm_proxy", cores=SERVER_CORE, environment=environment, python=python, log=folder / "log"
        )
        stack.callback(process.stop)
        yield Contender("LiteLLM proxy", process, [("", "")], slowness=10, key=key)


@contextmanager
def _plain(
    name: str, module: str, upstream: int, *, slowness: int = 1, python: str = sys.executable
) -> Iterator[Contender]:
    address = f"ws://127.0.0.1:{upstream}/v3.5/chat"
    process = start(module, cores=SERVER_CORE, environment={"BENCH_UPSTREAM": address}, python=python)
    try:
        yield Contender(name, process, [("u", "n")], slowness=slowness)
    finally:
        process.stop()


def _register(port: int, name: str) -> tuple[str, str]:
    fields = {"username": name, "password": "a long enough password", "email": "", "academy": ""}
    _post(port, "/auth/register", fields)
    return str(_post(port, "/auth/login", fields)["uuid"]), name


def _post(port: int, path: str, fields: Mapping[str, str]) -> dict[str, object]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        json.dumps(fields).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.load(answer)
    if found["code"] != 0:
        raise RuntimeError(f"{path}: {found}")
    return found
