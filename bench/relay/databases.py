"""A MySQL of the benchmark's own, by the tests' means (``tests/services.py``), where the machine has its programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests"))

from services import MySQL, ServerMissing

__all__ = ["DatabaseServer", "mysql"]


@dataclass(frozen=True, slots=True)
class DatabaseServer:
    """A running server."""

    pid: int
    server: MySQL

    def new_database(self) -> str:
        """Make an empty database; return its address."""
        return self.server.url(self.server.create_database())


@contextmanager
def mysql() -> Iterator[DatabaseServer | None]:
    """Run MySQL beside the load; ``None``, said on standard error, where it is missing."""
    try:
        server = MySQL()
    except ServerMissing as error:
        print(error, file=sys.stderr)
        yield None
        return
    try:
        server.start()
        yield DatabaseServer(server.pid, server)
    finally:
        server.remove()
