"""The ``aiproject`` command of the tree in which these tests lie, whatever the virtual environment has installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["COMMAND", "SOURCES", "environment"]

SOURCES = Path(__file__).resolve().parent.parent / "src"

COMMAND = (sys.executable, "-P", "-m", "aiproject")
"""What ``aiproject`` is on a command line. Runs the sources only in an `environment`."""


def environment(**variables: str) -> dict[str, str]:
    """What a child of a test gets to know: where programs and our sources are, and ``variables``."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONPATH": str(SOURCES), **variables}
