"""``python -m bench relay [scenario …]``: run scenarios, print tables, keep the results."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.relay import report, scenarios
from bench.relay.crowd import many_streams
from bench.relay.growth import growth
from bench.relay.processes import CLONE
from bench.relay.soak import soak

__all__ = ["main"]

BENCH_PYTHON = CLONE / ".venv-bench" / "bin" / "python"
PEERS_PYTHON = CLONE / ".venv-peers" / "bin" / "python"


def main(words: Sequence[str]) -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m bench relay", description=__doc__)
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(SCENARIOS)}; without any: all but peers and soak")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds whose median counts (5)")
    parser.add_argument("--minutes", type=float, default=30.0, help="of the soak (30)")
    parser.add_argument("--scratch", type=Path, help="folder for the big databases of growth; needs 6 GB")
    parser.add_argument("--tables", action="store_true", help="measure nothing; write tables and plots of what is kept")
    options = parser.parse_args(words)
    if unknown := set(options.scenario) - set(SCENARIOS):
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}; there are: {', '.join(SCENARIOS)}")
    names = options.scenario or [name for name in SCENARIOS if name not in ("peers", "soak")]
    console = Console(width=None if sys.stdout.isatty() else 140)
    cores = os.sched_getaffinity(0)
    for name in [] if options.tables else names:
        console.print(f"[bold]{name}[/bold] …")
        results = report.keep(name, SCENARIOS[name](options))
        report.show({name: results[name]}, console)
        os.sched_setaffinity(0, cores)
    results = report.load()
    if not results:
        sys.exit("nothing was measured yet")
    report.write_documents(results)
    if BENCH_PYTHON.exists():
        report.plot(str(BENCH_PYTHON))
    else:
        print("no plots: `make bench` installs matplotlib", file=sys.stderr)


def _flask_python() -> str | None:
    if BENCH_PYTHON.exists():
        return str(BENCH_PYTHON)
    print("without the Flask relay: `make bench` installs it", file=sys.stderr)
    return None


def _litellm_python() -> str:
    if not PEERS_PYTHON.exists():
        sys.exit("LiteLLM is not installed: make bench-peers")
    return str(PEERS_PYTHON)


SCENARIOS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "cost": lambda options: scenarios.cost(rounds=options.rounds, flask_python=_flask_python()),
    "peers": lambda options: scenarios.peers(rounds=options.rounds, litellm_python=_litellm_python()),
    "concurrency": lambda options: scenarios.concurrency(rounds=options.rounds),
    "many-streams": lambda _: many_streams(),
    "slow-streams": lambda _: scenarios.slow_streams(),
    "first-frame": lambda _: scenarios.time_to_first_frame(),
    "workers": lambda options: scenarios.workers(rounds=options.rounds),
    "growth": lambda options: growth(rounds=options.rounds, scratch=options.scratch),
    "soak": lambda options: soak(minutes=options.minutes),
}
